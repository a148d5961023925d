-- KEYS: new record [, old record]. Puts a reservation where the record of a login will be.
local token, rank, user, old_member, hold, version = unpack(ARGV, 5)
local moves = ''
if KEYS[2] then
  local r = opened(redis.call('GET', KEYS[2]))
  if not r then return GONE end
  if r.version ~= tonumber(version) or KEYS[1] == KEYS[2] then return CONFLICT end
  if r.user == user then moves = old_member end
end
local found = redis.call('GET', KEYS[1])
if found and string.sub(found, 1, 9) == 'P' .. token then return 0 end
if opened(found) or is_pending(found) then return CONFLICT end
redis.call('SET', KEYS[1], 'P' .. token .. struct.pack('>i8', tonumber(rank)) .. moves, 'PX', hold)
return 0
