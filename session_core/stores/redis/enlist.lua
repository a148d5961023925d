-- KEYS: index. Returns the score of the member, how many there are, and those to be looked at.
local member, ttl = unpack(ARGV, 5)
local score = enlist(KEYS[1], member, ttl)
local reply = sample(KEYS[1], score)
table.insert(reply, 1, redis.call('ZCARD', KEYS[1]))
table.insert(reply, 1, score)
return reply
