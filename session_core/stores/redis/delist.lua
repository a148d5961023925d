-- KEYS: index. Removes members; on a single server, which gives the prefix, only those of which nothing is left.
local prefix = ARGV[5]
for place = 6, #ARGV do
  if prefix == '' or redis.call('EXISTS', prefix .. ARGV[place]) == 0 then redis.call('ZREM', KEYS[1], ARGV[place]) end
end
return 0
