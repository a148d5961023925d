-- An index is a sorted set of members; the scores count up in the order of entry.

local function live_longer(index, ttl)
  if redis.call('PTTL', index) < tonumber(ttl) then redis.call('PEXPIRE', index, ttl) end
end

-- Puts a member at the end, where it is not in the index yet. Returns its score.
local function enlist(index, member, ttl)
  local last = redis.call('ZREVRANGE', index, 0, 0, 'WITHSCORES')
  local score = (last[2] or 0) + 1
  if redis.call('ZADD', index, 'NX', score, member) == 0 then score = tonumber(redis.call('ZSCORE', index, member)) end
  live_longer(index, ttl)
  return score
end

-- Some members of an index into which more than a few have entered. For each member that enters, several are looked at and
-- removed where nothing is left of them, so those of ended sessions never become many.
local function sample(index, score)
  if score <= 8 or redis.call('ZCARD', index) <= 8 then return {} end
  return redis.call('ZRANDMEMBER', index, 4)
end

-- On a single server, where the records are at hand.
local function enlist_and_clean(index, member, ttl, prefix)
  for _, other in ipairs(sample(index, enlist(index, member, ttl))) do
    if redis.call('EXISTS', prefix .. other) == 0 then redis.call('ZREM', index, other) end
  end
end

-- Gives the place of an old member to a new one. A reader of the index that is not there yet finds the new one; one that was there
-- follows the pointer at the old one.
local function take_place(index, old_member, member, ttl, prefix)
  local score = redis.call('ZSCORE', index, old_member)
  if not score then return enlist_and_clean(index, member, ttl, prefix) end
  redis.call('ZREM', index, old_member)
  redis.call('ZADD', index, score, member)
  live_longer(index, ttl)
end
