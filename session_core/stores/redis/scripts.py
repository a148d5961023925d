"""The atomic steps of the Redis store, as Lua. Every KEYS of one script are in one slot when the server is a cluster.

All begin with ARGV[1], not empty when the command may already have been run (the connection was lost before the answer), and
ARGV[2], the caller's now. So no step is applied twice: what a first run did is recognized by the caller's own random bytes in
the record, and where it cannot be told any more the answer is UNKNOWN, never a guess. The writes of a script come after all
of its decisions, and Redis refuses the first of them, not a later one, when memory is full: a script is never half run.

On a single server the indexes change in the script that changes the record. On a cluster they are in other slots: KEYS then
holds the record alone, and `session_core.stores.redis.cluster_login` does the rest.
"""

from __future__ import annotations

from typing import Final

from session_core.stores.redis.lua import Script

__all__ = (
    "CLAIM", "CONFLICT", "CREATE", "DELIST", "ENLIST", "FINISH", "GONE", "LAPSED", "REINDEX", "REPLACE", "RESERVE", "ROTATE",
    "SWEEP", "TOUCH", "UNKNOWN",
)  # fmt: skip

GONE: Final = -1
CONFLICT: Final = -2
REINDEX: Final = -3
"""Nothing was done: the caller must put the record into its indexes (again) in the same step, or before it."""
UNKNOWN: Final = -4
"""The first run may have been applied; what happened since hides it."""
LAPSED: Final = -5
"""The reservation is gone, and nobody says why: it took too long, or the server lost it."""

CREATE: Final = Script("""
-- KEYS: record [, user's index] [, OP session's index]
local value, ttl, member, index_ttl, prefix, limit, token = unpack(ARGV, 3)
local found = redis.call('GET', KEYS[1])
if token ~= '' then
  local answer = lost(found, token, value)
  if answer then return {answer} end
else
  local r = opened(found)
  if r and replay and is_mine(r, value) then return {0} end
  if r or is_pending(found) then return {CONFLICT} end
end
put(KEYS[1], value, ttl)
for place = 2, #KEYS do enlist_beside(KEYS[place], member, index_ttl, prefix) end
local mine = opened(value)
if not mine or tonumber(limit) == 0 or #KEYS == 1 then return {0} end
return {0, unpack(make_room(KEYS[2], member, mine.user, tonumber(limit), prefix))}
""")

_REPLACE_PLAINLY: Final = """
-- What nearly every write is: not repeated, of the version that is there, nobody's or of the same user, and its indexes live
-- long enough. A third of the time, because the functions below are made anew in every run. All else goes on below.
if ARGV[1] == '' and not ARGV[6] then
  local found, value = redis.call('GET', KEYS[1]), ARGV[4]
  local flags = string.byte(value)
  local owners = flags == 138 and 64 or (flags == 130 or flags == 136) and 32 or flags == 128 and 0
  if found and owners and #found >= 14 and string.byte(found) == flags then
    local epoch, cell = 1577836800000, 3600000
    local version, expires = struct.unpack('>I3I5', found, 2)
    local later = struct.unpack('>I5', value, 5)
    if version == tonumber(ARGV[3]) and expires + epoch > tonumber(ARGV[2]) and tonumber(ARGV[5]) > 0
        and string.sub(found, 15, 14 + owners) == string.sub(value, 15, 14 + owners)
        and (owners == 0 or math.floor((later + epoch) / cell) <= math.floor((expires + epoch) / cell)) then
      redis.call('SET', KEYS[1], value, 'PX', ARGV[5])
      return version + 1
    end
  end
end
"""

REPLACE: Final = Script(
    """
-- KEYS: record [, indexes]. The last three arguments are there where the indexes have been seen to.
local version, value, ttl, member, index_ttl, prefix = unpack(ARGV, 3)
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
for place = 2, #KEYS do enlist_beside(KEYS[place], member, index_ttl, prefix) end
return version + 1
""",
    first=_REPLACE_PLAINLY,
)

TOUCH: Final = Script("""
-- KEYS: record [, indexes]. The last three arguments as in REPLACE.
local expires, ttl, member, index_ttl, prefix = unpack(ARGV, 3)
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
for place = 2, #KEYS do enlist_beside(KEYS[place], member, index_ttl, prefix) end
return 1
""")

ROTATE: Final = Script("""
-- KEYS: old record, new record [, user's index] [, OP session's index]
local version, value, ttl, pointer, pointer_ttl, member, old_member, index_ttl, prefix, limit, token = unpack(ARGV, 3)
local old, found = redis.call('GET', KEYS[1]), redis.call('GET', KEYS[2])
local r, answer = opened(old), nil
if replay and old == pointer then return {0} end
if not r then answer = GONE elseif r.version ~= tonumber(version) then answer = CONFLICT end
if answer then
  if token ~= '' and found and string.sub(found, 1, 9) == 'P' .. token then redis.call('DEL', KEYS[2]) end
  return {answer}
end
if token ~= '' then
  answer = lost(found, token, value)
  -- It lost its place to a later login before it was there: moved, and ended at once.
  if answer == 0 then
    redis.call('DEL', KEYS[1])
    announce(prefix, {old_member})
  end
  if answer then return {answer} end
elseif KEYS[1] == KEYS[2] or opened(found) or is_pending(found) then
  return {CONFLICT}
end
put(KEYS[2], value, ttl)
put(KEYS[1], pointer, pointer_ttl)
announce(prefix, {old_member})
for place = 3, #KEYS do
  delist(KEYS[place], {old_member})
  enlist_beside(KEYS[place], member, index_ttl, prefix)
end
local mine = opened(value)
if not mine or tonumber(limit) == 0 or #KEYS == 2 then return {0} end
return {0, unpack(make_room(KEYS[3], member, mine.user, tonumber(limit), prefix))}
""")

FINISH: Final = Script("""
-- KEYS: record. Deletes what lives there, or what it was rotated to; returns its member.
-- With `owned` only a session of that user or OP session; with `hold` also a login under way.
local prefix, member, owned, keep, hold = unpack(ARGV, 3)
for _ = 1, 10000 do
  local name = prefix .. member
  local value = member ~= keep and redis.call('GET', name)
  if not value then return {} end
  local kind = string.sub(value, 1, 1)
  if kind == '>' then
    if owned == '' then redis.call('DEL', name) end
    if struct.unpack('>I8', value, 2) <= now then return {} end
    member = string.sub(value, 10)
  elseif kind == 'P' and hold ~= '0' then
    redis.call('SET', name, 'X' .. string.sub(value, 2, 9), 'PX', hold)
    return {member}
  else
    local r = opened(value)
    if not r or owned ~= '' and owned ~= 'u' .. r.user and owned ~= 'o' .. r.op then return {} end
    redis.call('DEL', name)
    announce(prefix, {member})
    return {member}
  end
end
return {}
""")

SWEEP: Final = Script("""
-- KEYS: index. Deletes all sessions of the index but one; returns their members. For a single server.
local prefix, owned, keep = unpack(ARGV, 3)
local deleted, gone = {}, {}
for _, member in ipairs(members_of(KEYS[1])) do
  local value = redis.call('GET', prefix .. member)
  local r = opened(value)
  if r and member ~= keep and (owned == 'u' .. r.user or owned == 'o' .. r.op) then
    redis.call('DEL', prefix .. member)
    deleted[#deleted + 1] = member
    value = false
  end
  if not value then gone[#gone + 1] = member end
end
delist(KEYS[1], gone)
announce(prefix, deleted)
return deleted
""")

RESERVE: Final = Script("""
-- KEYS: new record [, old record]. Puts a reservation where a login's record will be.
local token, rank, user, old_member, hold, version = unpack(ARGV, 3)
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
""")

ENLIST: Final = Script("""
-- KEYS: index. Returns all members when asked, and when it is time to look for those that have ended.
local member, ttl, all = unpack(ARGV, 3)
if not enlist(KEYS[1], member, ttl) and all == '' then return {} end
return members_of(KEYS[1])
""")

DELIST: Final = Script("""
-- KEYS: index. Takes members out.
delist(KEYS[1], {unpack(ARGV, 3)})
return 0
""")

CLAIM: Final = Script("""
-- KEYS: claim. The value is `expires_at` and random bytes of the caller.
local value, ttl = unpack(ARGV, 3)
local found = redis.call('GET', KEYS[1])
if found and struct.unpack('>I8', found) > now then return found == value and 1 or 0 end
put(KEYS[1], value, ttl)
return 1
""")
