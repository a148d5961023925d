-- KEYS: record. Returns the member of the session that has ended.
local prefix, member, owned, keep, evict = unpack(ARGV, 5)
local ended = finish(prefix, member, owned, keep, evict ~= '', {})
if not ended then return {} end
announce(prefix, {ended})
return {ended}
