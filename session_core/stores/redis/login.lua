-- The user's live sessions but `member`, as pairs of rank and member, when they may be at the limit. Returns nil when there are
-- more than one script looks at (no user may delay the others), or when a login in several steps is under way among them.
local function others_of(index, member, user, limit, prefix)
  local count = redis.call('ZCARD', index)
  if count < limit then return {} end
  if count > 256 then return nil end
  local others = {}
  for _, other in ipairs(redis.call('ZRANGE', index, 0, -1)) do
    local value = other ~= member and redis.call('GET', prefix .. other)
    if kind_of(value) == 'P' then return nil end
    local r = opened(value)
    if r and r.user == user then others[#others + 1] = {r.rank, other} end
  end
  return others
end

-- Deletes the sessions of the lowest rank until there is room for one more below the limit. Returns 0 and their members.
local function make_room(index, others, limit, prefix)
  local ended = {}
  table.sort(others, function(a, b) return a[1] < b[1] or a[1] == b[1] and a[2] < b[2] end)
  for place = 1, #others - limit + 1 do
    ended[place] = others[place][2]
    redis.call('DEL', prefix .. ended[place])
    redis.call('ZREM', index, ended[place])
  end
  announce(prefix, ended)
  table.insert(ended, 1, 0)
  return ended
end

-- What has become of a reservation: nil while it holds, else the answer.
local function lost(value, token, mine)
  if not value then return LAPSED end
  if string.sub(value, 2, 9) == token then
    local kind = kind_of(value)
    if kind == 'P' then return nil end
    if kind == 'X' then return 0 end
  end
  local r = opened(value)
  return replay and r and is_mine(r, mine) and 0 or LAPSED
end
