"""What Redis does in one step: Lua, which runs alone.

mlaas:job:ID        a hash: the record
mlaas:results:ID    a list: results in the order in which they came
mlaas:indexes:ID    a set: the pictures that have one
mlaas:key:OWNER:KEY the id of the owner's job with that Idempotency-Key
mlaas:identity      the store's
mlaas:unfinished    a sorted set: ids by when they stop to count against the limits
mlaas:sizes         a hash: for each of those its number of pictures and of bytes
mlaas:pictures, mlaas:bytes    sums over those

Names are built inside the scripts, so this is not for Redis Cluster.
"""

_COMMON = """
local function names(id)
  return 'mlaas:job:' .. id, 'mlaas:results:' .. id, 'mlaas:indexes:' .. id
end
local function number(id, field)
  return tonumber(redis.call('HGET', 'mlaas:job:' .. id, field) or 0)
end
local function uncount(id)
  redis.call('ZREM', 'mlaas:unfinished', id)
  local size = redis.call('HGET', 'mlaas:sizes', id)
  if size then
    local pictures, bytes = size:match('(%d+) (%d+)')
    redis.call('DECRBY', 'mlaas:pictures', pictures)
    redis.call('DECRBY', 'mlaas:bytes', bytes)
    redis.call('HDEL', 'mlaas:sizes', id)
  end
end
local function forget(id)
  local job, results, indexes = names(id)
  local key = redis.call('HGET', job, 'key_name')
  if key and redis.call('GET', key) == id then redis.call('DEL', key) end
  uncount(id)
  redis.call('DEL', job, results, indexes)
end
local function is_open(id)
  local job, results = names(id)
  return redis.call('HGET', job, 'state') == 'open' and redis.call('LLEN', results) < number(id, 'total')
end
local function settle(id, now)
  local publish_until = number(id, 'publish_until_ms')
  if publish_until > 0 then
    if publish_until < now then forget(id) end
  elseif is_open(id) and number(id, 'deadline_ms') <= now then
    redis.call('HSET', 'mlaas:job:' .. id, 'state', 'expired')
    uncount(id)
  end
end
local function sweep(now, most)
  local due = redis.call('ZRANGEBYSCORE', 'mlaas:unfinished', '-inf', '(' .. now, 'LIMIT', 0, most)
  for _, id in ipairs(due) do
    settle(id, now)
    uncount(id)
  end
  return #due
end
"""

# a new one, if there is none
IDENTITY = "redis.call('SET', 'mlaas:identity', ARGV[1], 'NX') return redis.call('GET', 'mlaas:identity')"

# now, id, expires, forget, key's name, pictures, bytes, most pictures, most bytes, until,
# how many pairs of field and value, those, then pairs of index and body
CREATE = (
    _COMMON
    + """
local now, id, expires, key = tonumber(ARGV[1]), ARGV[2], ARGV[3], ARGV[5]
local job, results, indexes = names(id)
if redis.call('EXISTS', job) == 1 then return {'created'} end
sweep(now, 100)
if key ~= '' then
  local first = redis.call('GET', key)
  if first then
    settle(first, now)
    if redis.call('EXISTS', 'mlaas:job:' .. first) == 1 then return {'key taken', first} end
  end
end
local pictures, bytes = ARGV[6], ARGV[7]
if tonumber(redis.call('GET', 'mlaas:pictures') or 0) + pictures > tonumber(ARGV[8])
  or tonumber(redis.call('GET', 'mlaas:bytes') or 0) + bytes > tonumber(ARGV[9]) then return {'full'} end
local fields = 11 + 2 * tonumber(ARGV[11])
for at = 12, fields, 2 do redis.call('HSET', job, ARGV[at], ARGV[at + 1]) end
redis.call('PEXPIREAT', job, ARGV[4])
for at = fields + 1, #ARGV, 2 do
  redis.call('SADD', indexes, ARGV[at])
  redis.call('RPUSH', results, ARGV[at] .. ' ' .. ARGV[at + 1])
end
redis.call('PEXPIREAT', results, expires)
redis.call('PEXPIREAT', indexes, expires)
if key ~= '' then redis.call('SET', key, id, 'PXAT', expires) end
if is_open(id) then
  redis.call('ZADD', 'mlaas:unfinished', ARGV[10], id)
  redis.call('INCRBY', 'mlaas:pictures', pictures)
  redis.call('INCRBY', 'mlaas:bytes', bytes)
  redis.call('HSET', 'mlaas:sizes', id, pictures .. ' ' .. bytes)
end
return {'created'}
"""
)

# now, id
ACCEPT = (
    _COMMON
    + """
local now, id = tonumber(ARGV[1]), ARGV[2]
settle(id, now)
local job = names(id)
if redis.call('EXISTS', job) == 0 then return 0 end
redis.call('HSET', job, 'publish_until_ms', 0)
redis.call('ZADD', 'mlaas:unfinished', 'XX', number(id, 'deadline_ms'), id)
return 1
"""
)

# id
REMOVE = (
    _COMMON
    + """
local id = ARGV[1]
local job = names(id)
if number(id, 'publish_until_ms') > 0 then forget(id) end
return 1 - redis.call('EXISTS', job)
"""
)

# now, id, after
GET = (
    _COMMON
    + """
local id = ARGV[2]
if number(id, 'publish_until_ms') == 0 then settle(id, tonumber(ARGV[1])) end
local job, results = names(id)
return {redis.call('HGETALL', job), redis.call('LLEN', results), redis.call('LRANGE', results, ARGV[3], -1)}
"""
)

# now, id, pairs of index and body; returns stored, duplicates, unknown
ADD = (
    _COMMON
    + """
local now, id = tonumber(ARGV[1]), ARGV[2]
local job, results, indexes = names(id)
local total, counts = number(id, 'total'), {0, 0, 0}
local takes = redis.call('HGET', job, 'state') == 'open' and number(id, 'deadline_ms') > now
for at = 3, #ARGV, 2 do
  if redis.call('SISMEMBER', indexes, ARGV[at]) == 1 then counts[2] = counts[2] + 1
  elseif not takes or tonumber(ARGV[at]) >= total then counts[3] = counts[3] + 1
  else
    redis.call('SADD', indexes, ARGV[at])
    redis.call('RPUSH', results, ARGV[at] .. ' ' .. ARGV[at + 1])
    counts[1] = counts[1] + 1
  end
end
if counts[1] > 0 then
  local expires = redis.call('HGET', job, 'expires_ms')
  redis.call('PEXPIREAT', results, expires)
  redis.call('PEXPIREAT', indexes, expires)
  if not is_open(id) then uncount(id) end
end
return counts
"""
)

# now, id
CANCEL = (
    _COMMON
    + """
local id = ARGV[2]
settle(id, tonumber(ARGV[1]))
if is_open(id) then
  redis.call('HSET', 'mlaas:job:' .. id, 'state', 'canceled')
  uncount(id)
end
"""
)

# now, most
SWEEP = _COMMON + "return sweep(tonumber(ARGV[1]), ARGV[2])"
