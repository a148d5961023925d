-- KEYS: record. Removes the reservation of a login that has failed.
local found = redis.call('GET', KEYS[1])
if found and string.sub(found, 1, 9) == 'P' .. ARGV[5] then redis.call('DEL', KEYS[1]) end
return 0
