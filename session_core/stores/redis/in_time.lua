-- Runs before everything else of a script. ARGV[2] is the server time in milliseconds at which the caller sent this at the
-- earliest, ARGV[3] the time by which it must take effect: what was answered with an error must not happen later.
do
  local clock = redis.call('TIME')
  clock = clock[1] * 1000 + clock[2] / 1000
  if clock > tonumber(ARGV[3]) or clock < tonumber(ARGV[2]) then return redis.error_reply('LATE nothing was changed') end
end
