-- Deletes the session at `member`, or the one it was rotated to. Returns its member, or nil. With `owned` only a session of that
-- user or OP session. With `evict` a reservation becomes a tombstone. `seen` holds the members that were followed before.
local function finish(prefix, member, owned, keep, evict, seen)
  local followed, ended, foreign = {}, nil, false
  for _ = 1, 10000 do
    local name = prefix .. member
    local value = member ~= keep and not seen[member] and redis.call('GET', name)
    if not value then
      foreign = member == keep or seen[member]
      break
    end
    if kind_of(value) == '>' and #value > 9 then
      if owned == '' and struct.unpack('>I8', value, 2) <= now then return nil end
      followed[#followed + 1] = name
      seen[member] = true
      member = string.sub(value, 10)
    elseif kind_of(value) == 'P' and evict then
      redis.call('SET', name, 'X' .. string.sub(value, 2, 9), 'KEEPTTL')
      ended = member
      break
    else
      local r = opened(value)
      foreign = not r or owned ~= '' and owned ~= 'u' .. r.user and owned ~= 'o' .. r.op
      if not foreign then
        redis.call('DEL', name)
        ended = member
      end
      break
    end
  end
  -- Pointers to a session that has ended lead nowhere.
  if not foreign then
    for _, name in ipairs(followed) do redis.call('DEL', name) end
  end
  return ended
end
