-- KEYS: old record, new record [, user's index] [, OP session's index]
local version, value, ttl, pointer, pointer_ttl, member, old_member, index_ttl, prefix, limit, token = unpack(ARGV, 5)
local old, found = redis.call('GET', KEYS[1]), redis.call('GET', KEYS[2])
local r, answer = opened(old), nil
if replay and old == pointer then return {0} end
if not r then answer = GONE elseif r.version ~= tonumber(version) then answer = CONFLICT end
if answer then
  if token ~= '' and found and string.sub(found, 1, 9) == 'P' .. token then redis.call('DEL', KEYS[2]) end
  return {answer}
end
if token ~= '' then
  answer = lost(found, token, value)
  -- It lost its place to a later login before it was there: moved, and ended at once.
  if answer == 0 then
    redis.call('DEL', KEYS[1])
    announce(prefix, {old_member})
  end
  if answer then return {answer} end
elseif KEYS[1] == KEYS[2] or opened(found) or is_pending(found) then
  return {CONFLICT}
end
local mine, others = opened(value), nil
limit = mine and tonumber(limit) or 0
if limit > 0 then
  others = others_of(KEYS[3], old_member, mine.user, limit, prefix)
  if not others then return {MANY} end
end
put(KEYS[2], value, ttl)
redis.call('SET', KEYS[1], pointer, 'PX', pointer_ttl)
announce(prefix, {old_member})
for place = 3, #KEYS do take_place(KEYS[place], old_member, member, index_ttl, prefix) end
if limit == 0 then return {0} end
return make_room(KEYS[3], others, limit, prefix)
