"""What the scripts of the Redis store share: reading records and indexes in Lua, as `redis_layout` does in Python."""

from __future__ import annotations

from hashlib import sha1
from typing import Final

__all__ = ("Script",)


class Script:
    """A script, under the digest by which servers remember it. `first` runs before what the scripts share is there."""

    __slots__ = ("digest", "text")

    def __init__(self, body: str, *, first: str = "") -> None:
        self.text = (first + _COMMON + body).encode()
        self.digest = sha1(self.text, usedforsecurity=False).hexdigest().encode()


_COMMON: Final = """
local replay, now = ARGV[1] ~= '', tonumber(ARGV[2])
local EPOCH, CELL = 1577836800000, 3600000
local GONE, CONFLICT, REINDEX, UNKNOWN, LAPSED = -1, -2, -3, -4, -5
local NAME_CHARS = 20

local function owner(value, at, kind)
  if kind == 0 then return '', at end
  local size = 32
  if kind == 2 then
    if #value <= at then return '', at end -- cut off
    size, at = struct.unpack('>I2', value, at)
  end
  return kind .. string.sub(value, at, at + size - 1), at + size
end

-- The live record in a value, or nil.
local function opened(value)
  local flags = value and string.byte(value) or 0
  if flags < 128 or #value < (flags % 2 == 0 and 14 or 25) then return nil end
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

-- Says which members ended or moved, by a digest, to whoever listens. Where that is not allowed, the step is made all the same.
local function announce(prefix, members)
  local names = {}
  for place, member in ipairs(members) do names[place] = string.sub(redis.sha1hex(member), 1, NAME_CHARS) end
  if #names > 0 then redis.pcall('PUBLISH', prefix .. 'ended', table.concat(names, ' ')) end
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
  announce(prefix, evicted)
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
