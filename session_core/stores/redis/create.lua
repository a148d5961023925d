-- KEYS: record [, user's index] [, OP session's index]
local value, ttl, member, index_ttl, prefix, limit, token = unpack(ARGV, 5)
local found = redis.call('GET', KEYS[1])
if token ~= '' then
  local answer = lost(found, token, value)
  if answer then return {answer} end
else
  local r = opened(found)
  if r and replay and is_mine(r, value) then return {0} end
  if r or is_pending(found) then return {CONFLICT} end
end
local mine, others = opened(value), nil
limit = mine and tonumber(limit) or 0
if limit > 0 then
  others = others_of(KEYS[2], member, mine.user, limit, prefix)
  if not others then return {MANY} end
end
put(KEYS[1], value, ttl)
for place = 2, #KEYS do enlist_and_clean(KEYS[place], member, index_ttl, prefix) end
if limit == 0 then return {0} end
return make_room(KEYS[2], others, limit, prefix)
