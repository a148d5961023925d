-- KEYS: index. Ends the sessions of the members that follow a score, as many as one step may take; for a single server.
-- Returns the score to go on after ('' at the end of the index) and the members that have ended.
local prefix, owned, keep, after, most = unpack(ARGV, 5)
local page = redis.call('ZRANGEBYSCORE', KEYS[1], '(' .. after, '+inf', 'WITHSCORES', 'LIMIT', 0, most)
local seen, ended = {}, {}
for place = 1, #page, 2 do
  local member = page[place]
  ended[#ended + 1] = finish(prefix, member, owned, keep, false, seen)
  if redis.call('EXISTS', prefix .. member) == 0 then redis.call('ZREM', KEYS[1], member) end
end
announce(prefix, ended)
table.insert(ended, 1, #page < 2 * most and '' or page[#page])
return ended
