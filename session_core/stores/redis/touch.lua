-- KEYS: record [, indexes]. The last three arguments as in replace.lua.
local expires, ttl, member, index_ttl, prefix = unpack(ARGV, 5)
local r = opened(redis.call('GET', KEYS[1]))
if not r then return 0 end
expires = tonumber(expires)
if expires <= r.expires then return 1 end
if not member and (r.user ~= '' or r.op ~= '') and math.floor(expires / CELL) > math.floor(r.expires / CELL) then
  return {REINDEX, r.user, r.op}
end
local flags, numbers = string.byte(r.value)
if flags % 2 == 0 and expires - EPOCH < 1099511627776 then
  numbers = struct.pack('>I3I5I5', r.version, expires - EPOCH, r.rank - EPOCH)
else
  flags = flags - flags % 2 + 1
  numbers = struct.pack('>I8I8i8', r.version, expires, r.rank)
end
put(KEYS[1], string.char(flags) .. numbers .. string.sub(r.value, r.head), ttl)
for place = 2, #KEYS do enlist_and_clean(KEYS[place], member, index_ttl, prefix) end
return 1
