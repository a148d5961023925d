-- KEYS: claim. The value is `expires_at` and random bytes of the caller.
local now, value, ttl = tonumber(ARGV[4]), ARGV[5], tonumber(ARGV[6])
local found = redis.call('GET', KEYS[1])
if found and struct.unpack('>I8', found) > now then return found == value and 1 or 0 end
if ttl > 0 then redis.call('SET', KEYS[1], value, 'PX', ttl) else redis.call('DEL', KEYS[1]) end
return 1
