-- KEYS: record [, indexes]. The last three arguments are there where the record has been put into its indexes.
local version, value, ttl, member, index_ttl, prefix = unpack(ARGV, 5)
local r = opened(redis.call('GET', KEYS[1]))
if not r then return GONE end
version = tonumber(version)
if r.version ~= version then
  if not replay then return CONFLICT end
  if r.version == version + 1 and is_mine(r, value) then return r.version end
  return r.version > version and UNKNOWN or CONFLICT
end
if not member then
  local mine = opened(value)
  if mine and (mine.user ~= r.user or mine.op ~= r.op
      or (mine.user ~= '' or mine.op ~= '') and math.floor(mine.expires / CELL) > math.floor(r.expires / CELL)) then
    return {REINDEX, r.user, r.op}
  end
end
put(KEYS[1], value, ttl)
for place = 2, #KEYS do enlist_and_clean(KEYS[place], member, index_ttl, prefix) end
return version + 1
