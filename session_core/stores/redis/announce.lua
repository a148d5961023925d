-- Publishes the digests of members that ended or moved. A user without the right to the channel makes the step without it.
local function announce(prefix, members)
  local names = {}
  for place, member in ipairs(members) do names[place] = string.sub(redis.sha1hex(member), 1, 20) end
  if #names > 0 then redis.pcall('PUBLISH', prefix .. 'ended', table.concat(names, ' ')) end
end
