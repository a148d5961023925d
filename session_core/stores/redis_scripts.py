"""The atomic steps of the Redis store, as Lua. Every KEYS of one script are in one slot when the server is a cluster.

All begin with ARGV[1], not empty when the command may already have been run (the connection was lost before the answer), and
ARGV[2], the caller's now. So no step is applied twice: what a first run did is recognized by the caller's own random bytes in
the record, and where it cannot be told any more the answer is UNKNOWN, never a guess. The writes of a script come after all
of its decisions, and Redis refuses the first of them, not a later one, when memory is full: a script is never half run.

On a single server the indexes change in the script that changes the record. On a cluster they are in other slots: KEYS then
holds the record alone, and `session_core.stores.redis_reservation` does the rest.
"""

from __future__ import annotations

from hashlib import sha1
from typing import Final

__all__ = (
    "CLAIM", "CONFLICT", "CREATE", "DELIST", "ENLIST", "FINISH", "GONE", "LAPSED", "REINDEX", "REPLACE", "RESERVE", "ROTATE",
    "SWEEP", "TOUCH", "UNKNOWN", "Script",
)  # fmt: skip

GONE: Final = -1
CONFLICT: Final = -2
REINDEX: Final = -3
"""Nothing was done: the caller must put the record into its indexes (again) in the same step, or before it."""
UNKNOWN: Final = -4
"""The first run may have been applied; what happened since hides it."""
LAPSED: Final = -5
"""The reservation is gone, and nobody says why: it took too long, or the server lost it."""


class Script:
    """A script, under the digest by which servers remember it."""

    __slots__ = ("digest", "text")

    def __init__(self, body: str) -> None:
        self.text = (_COMMON + body).encode()
        self.digest = sha1(self.text, usedforsecurity=False).hexdigest().encode()


_COMMON: Final = """
local replay, now = ARGV[1] ~= '', tonumber(ARGV[2])
local EPOCH, CELL = 1577836800000, 3600000
local GONE, CONFLICT, REINDEX, UNKNOWN, LAPSED = -1, -2, -3, -4, -5

local function owner(value, at, kind)
  if kind == 0 then return '', at end
  local size = 32
  if kind == 2 then size, at = struct.unpack('>I2', value, at) end
  return kind .. string.sub(value, at, at + size - 1), at + size
end

-- The live record in a value, or nil.
local function opened(value)
  local flags = value and string.byte(value) or 0
  if flags < 128 then return nil end
  local r, at = {value = value}
  if flags % 2 == 0 then
    r.version, r.expires, r.rank, at = struct.unpack('>I3I5I5', value, 2)
    r.expires, r.rank = r.expires + EPOCH, r.rank + EPOCH
  else
    r.version, r.expires, r.rank, at = struct.unpack('>I8I8i8', value, 2)
  end
  if r.expires <= now then return nil end
  r.head = at
  r.user, at = owner(value, at, math.floor(flags / 2) % 4)
  r.op, at = owner(value, at, math.floor(flags / 8) % 4)
  r.data = at
  return r
end

local function is_pending(value)
  local kind = value and string.sub(value, 1, 1)
  return kind == 'P' or kind == 'X'
end

-- Whether the value is the one that the caller wrote in a first run; a touch may have moved its expiry meanwhile.
local function is_mine(r, value)
  local mine = opened(value)
  return mine and mine.version == r.version and string.sub(value, mine.head) == string.sub(r.value, r.head)
end

local function put(name, value, ttl)
  if tonumber(ttl) > 0 then
    redis.call('SET', name, value, 'PX', ttl)
  else
    redis.call('DEL', name)
  end
end

-- An index: its members, each after a byte that says how long it is.
local function members_of(index)
  local value, members, at = redis.call('GET', index) or '', {}, 1
  while at <= #value do
    local size = string.byte(value, at)
    members[#members + 1] = string.sub(value, at + 1, at + size)
    at = at + 1 + size
  end
  return members
end

local function sized(member)
  return string.char(#member) .. member
end

local function delist(index, gone)
  local value = redis.call('GET', index)
  local rest = value or ''
  for _, member in ipairs(gone) do
    local first, last = string.find(rest, sized(member), 1, true)
    if first then rest = string.sub(rest, 1, first - 1) .. string.sub(rest, last + 1) end
  end
  if rest == '' then
    redis.call('DEL', index)
  elseif rest ~= value then
    redis.pcall('SET', index, rest, 'KEEPTTL') -- refused when memory is full; one too many does no harm
  end
end

-- Returns whether it is time to look for members that have ended: every sixteenth of them.
local function enlist(index, member, ttl)
  local value, entry = redis.call('GET', index) or '', sized(member)
  if not string.find(value, entry, 1, true) then
    value = value .. entry
    redis.call('SET', index, value, 'KEEPTTL')
  end
  if redis.call('PTTL', index) < tonumber(ttl) then redis.call('PEXPIRE', index, ttl) end
  return math.floor(#value / #entry) % 16 == 0
end

-- The same on a single server, where the records are at hand.
local function enlist_beside(index, member, ttl, prefix)
  if not enlist(index, member, ttl) then return end
  local gone = {}
  for _, other in ipairs(members_of(index)) do
    if redis.call('EXISTS', prefix .. other) == 0 then gone[#gone + 1] = other end
  end
  delist(index, gone)
end

-- Delete the user's sessions of the lowest rank until there is room for `member`; return them.
local function make_room(index, member, user, limit, prefix)
  local others, evicted, gone = {}, {}, {}
  for _, other in ipairs(members_of(index)) do
    if other ~= member then
      local value = redis.call('GET', prefix .. other)
      local r = opened(value)
      if not value then
        gone[#gone + 1] = other
      elseif r and r.user == user then
        others[#others + 1] = {r.rank, other}
      end
    end
  end
  table.sort(others, function(a, b) return a[1] < b[1] or a[1] == b[1] and a[2] < b[2] end)
  for place = 1, #others - limit + 1 do
    evicted[place] = others[place][2]
    gone[#gone + 1] = evicted[place]
    redis.call('DEL', prefix .. evicted[place])
  end
  delist(index, gone)
  return evicted
end

-- What a reservation has become: nil while it holds, else the answer.
local function lost(value, token, mine)
  if not value then return LAPSED end
  if string.sub(value, 2, 9) == token then
    if string.sub(value, 1, 1) == 'P' then return nil end
    if string.sub(value, 1, 1) == 'X' then return 0 end
  end
  local r = opened(value)
  return replay and r and is_mine(r, mine) and 0 or LAPSED
end
"""

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

REPLACE: Final = Script("""
-- KEYS: record [, indexes]
local version, value, ttl, member, index_ttl, prefix, force = unpack(ARGV, 3)
local r = opened(redis.call('GET', KEYS[1]))
if not r then return GONE end
version = tonumber(version)
if r.version ~= version then
  if not replay then return CONFLICT end
  if r.version == version + 1 and is_mine(r, value) then return r.version end
  return r.version > version and UNKNOWN or CONFLICT
end
if force == '' then
  local mine = opened(value)
  if mine and (mine.user ~= r.user or mine.op ~= r.op
      or (mine.user ~= '' or mine.op ~= '') and math.floor(mine.expires / CELL) > math.floor(r.expires / CELL)) then
    return {REINDEX, r.user, r.op}
  end
end
put(KEYS[1], value, ttl)
for place = 2, #KEYS do enlist_beside(KEYS[place], member, index_ttl, prefix) end
return version + 1
""")

TOUCH: Final = Script("""
-- KEYS: record [, indexes]
local expires, ttl, member, index_ttl, prefix, force = unpack(ARGV, 3)
local r = opened(redis.call('GET', KEYS[1]))
if not r then return 0 end
expires = tonumber(expires)
if expires <= r.expires then return 1 end
if force == '' and (r.user ~= '' or r.op ~= '') and math.floor(expires / CELL) > math.floor(r.expires / CELL) then
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
  if answer == 0 then redis.call('DEL', KEYS[1]) end
  if answer then return {answer} end
elseif KEYS[1] == KEYS[2] or opened(found) or is_pending(found) then
  return {CONFLICT}
end
put(KEYS[2], value, ttl)
put(KEYS[1], pointer, pointer_ttl)
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
