-- Reads records in Lua as `session_core.stores.redis.layout` does in Python.
local replay, now = ARGV[1] ~= '', tonumber(ARGV[4])
local EPOCH, CELL = 1577836800000, 3600000
local GONE, CONFLICT, REINDEX, UNKNOWN, LAPSED, MANY = -1, -2, -3, -4, -5, -6

local function owner(value, at, kind)
  if kind == 0 then return '', at end
  local size = 32
  if kind == 2 then
    if #value <= at then return '', at end -- truncated
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
  return r
end

-- Of what is no record: 'P' is a reservation, 'X' the tombstone of one, '>' a pointer.
local function kind_of(value)
  return value and string.sub(value, 1, 1)
end

local function is_pending(value)
  local kind = kind_of(value)
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
