"""The Lua script with which Redis judges a batch atomically."""

from __future__ import annotations

from typing import Final

USE_FORMAT: Final = ">16s16s16sdHHdd"
"""How one claim is packed for the script.

Key, mark (zeros if none), principal, time of issue, indexes of reader and log in the names that follow (0 if none),
offset, append time (minus infinity if unknown).
"""

# Nothing here has a time to live: what expires by a clock leaves no trace, and a clock that jumped ahead may be set
# back. A bucket holds the ids issued in ``width`` seconds. It is dropped as a whole, in the step in which ``since``
# rises above it: an unknown id issued before that is too old. Both clocks must agree, the server's and the caller's,
# since each may be wrong. A birth is at the later of both, for the same reason.
#
# Why the mark is compared with INFO in each batch: a restart may have loaded an older snapshot, a replica that took
# over lacks what its master had not sent yet, and eviction removes single ids. All of these leave the mark in place,
# but change the run id or the count of evictions. Someone may also delete only some keys: therefore the mark records
# how many buckets there are, and these how many ids each holds. A restart alone is harmless if the server syncs each
# write to its log and has no replica: then ``durable`` was recorded before it and is true after it. A reader is known
# under the ``nonce`` of one birth only.
SCRIPT: Final = """
local prefix, run, durable, told, fresh, verb = ARGV[1], ARGV[2], ARGV[3], tonumber(ARGV[4]), ARGV[5], ARGV[6]
local skew, tolerance, bound = tonumber(ARGV[7]), tonumber(ARGV[8]), tonumber(ARGV[9])
local width, lifetime, uses = tonumber(ARGV[10]), tonumber(ARGV[11]), ARGV[12]
local names = 12

if string.match(redis.call('INFO', 'server'), 'run_id:(%x+)') ~= run then return {'moved', ''} end
if string.match(redis.call('INFO', 'replication'), 'connected_slaves:(%d+)') ~= '0' then durable = '0' end
local evicted = string.match(redis.call('INFO', 'stats'), 'evicted_keys:(%d+)')
local time = redis.call('TIME')
local stamp = time[1] .. '.' .. string.rep('0', 6 - #time[2]) .. time[2]
if math.abs(tonumber(stamp) - told) > tolerance then return {'clock', stamp} end
local now, latest = math.min(tonumber(stamp), told), tonumber(stamp) < told and ARGV[4] or stamp

local mark_key, buckets_key, held_key = prefix .. 'mark', prefix .. 'buckets', prefix .. 'held'
local mark = redis.call('HMGET', mark_key,
    'birth', 'nonce', 'run', 'durable', 'evicted', 'width', 'lifetime', 'since', 'buckets')
local birth, nonce, since = mark[1], mark[2], tonumber(mark[8] or 0)
width, lifetime = tonumber(mark[6] or width), math.max(lifetime, tonumber(mark[7] or 0))
if not (birth and nonce and mark[6])
    or (mark[3] ~= run and not (mark[4] == '1' and durable == '1'))
    or (evicted ~= '0' and evicted ~= mark[5])
    or redis.call('HLEN', buckets_key) ~= tonumber(mark[9] or 0)
then birth, nonce = latest, fresh end

local function name_of(issued) return string.format('%.0f', math.floor(issued / width)) end
local touched = {}
local function drop(bucket)
    local counts = redis.call('HGETALL', prefix .. 'held:' .. bucket)
    for i = 1, #counts, 2 do
        if redis.call('HINCRBY', held_key, counts[i], -counts[i + 1]) <= 0 then
            redis.call('HDEL', held_key, counts[i])
        end
    end
    redis.call('UNLINK', prefix .. 'ids:' .. bucket, prefix .. 'held:' .. bucket)
    redis.call('HDEL', buckets_key, bucket)
    touched[bucket] = false
end

if verb == 'claim' then
    for at = 1, #uses, 76 do
        local bucket = name_of(struct.unpack('>d', uses, at + 48))
        if touched[bucket] == nil then
            local ids = tonumber(redis.call('HGET', buckets_key, bucket) or 0)
            local held = redis.call('HLEN', prefix .. 'ids:' .. bucket)
            touched[bucket] = ids > 0
            if held < ids then
                birth, nonce = latest, fresh
                if held == 0 then drop(bucket) else redis.call('HSET', buckets_key, bucket, held) end
            end
        end
    end
end

local over = math.floor((now - lifetime) / width)
if over > since then
    since = over
    for _, bucket in ipairs(redis.call('HKEYS', buckets_key)) do
        if tonumber(bucket) < since then drop(bucket) end
    end
end

local marked = {birth, nonce, run, durable, evicted, string.format('%.0f', width), string.format('%.17g', lifetime),
    string.format('%.0f', since), tostring(redis.call('HLEN', buckets_key))}
for i = 1, #marked do
    if marked[i] ~= mark[i] then
        redis.call('HSET', mark_key, 'birth', birth, 'nonce', nonce, 'run', run, 'durable', durable,
            'evicted', evicted, 'width', marked[6], 'lifetime', marked[7], 'since', marked[8], 'buckets', marked[9])
        break
    end
end

local infinite = {['-inf'] = -math.huge, inf = math.huge}
local function number_of(text) return infinite[text] or tonumber(text) end
local function floor_of(reader)
    local found = redis.call('HMGET', prefix .. 'reader:' .. reader, 'nonce', 'floor')
    return found[1] == nonce and number_of(found[2]) or false
end

if verb ~= 'claim' then
    local reader = ARGV[names + 1]
    local key = prefix .. 'reader:' .. reader
    if verb == 'replace' or (verb == 'admit' and not floor_of(reader)) then
        redis.call('UNLINK', key)
        redis.call('HSET', key, 'nonce', nonce)
        for i = names + 2, #ARGV, 2 do redis.call('HSET', key, ARGV[i], ARGV[i + 1]) end
    end
    return {floor_of(reader) and 'known' or 'unknown', birth, redis.call('HGETALL', key)}
end

local least, none = tonumber(birth) + skew, string.rep('\\0', 16)
local floors, room, added, answers = {}, {}, {}, {}

local function is_accepted(reader, log, offset, appended)
    if log == 0 then return false end
    local text = redis.call('HGET', prefix .. 'reader:' .. ARGV[names + reader], 'log:' .. ARGV[names + log])
    if not text then return false end
    local last, latest = string.match(text, '^(%S+) (%S+)$')
    return offset >= 0 and offset <= tonumber(last) and appended <= number_of(latest)
end

local function refusal(issued, reader, log, offset, appended)
    if issued < since * width then return 'T' end
    if floors[reader] == nil then floors[reader] = floor_of(ARGV[names + reader]) end
    if floors[reader] then
        return issued <= floors[reader] and not is_accepted(reader, log, offset, appended) and 'T'
    end
    if issued > least then return false end
    return (log == 0 or appended > least) and 'T' or 'G'
end

for at = 1, #uses, 76 do
    local key, place, owner, issued, reader, log, offset, appended = struct.unpack('>c16c16c16dHHdd', uses, at)
    local bucket = name_of(issued)
    local ids = prefix .. 'ids:' .. bucket
    local answer = refusal(issued, reader, log, offset, appended)
    if not room[owner] then
        room[owner] = bound - tonumber(redis.call('HGET', held_key, owner) or 0)
    end
    if not answer and room[owner] <= 0 then answer = 'Q' end
    if not answer and redis.call('HSETNX', ids, key, place) == 1 then
        answer = 'F'
        room[owner] = room[owner] - 1
        added[bucket] = added[bucket] or {}
        added[bucket][owner] = (added[bucket][owner] or 0) + 1
    else
        local known = redis.call('HGET', ids, key)
        if known then answer = place ~= none and known == place and 'D' or 'P' end
    end
    answers[#answers + 1] = answer
end
local has_grown = false
for bucket, owners in pairs(added) do
    has_grown = has_grown or not touched[bucket]
    for owner, count in pairs(owners) do
        redis.call('HINCRBY', buckets_key, bucket, count)
        redis.call('HINCRBY', held_key, owner, count)
        redis.call('HINCRBY', prefix .. 'held:' .. bucket, owner, count)
    end
end
if has_grown then redis.call('HSET', mark_key, 'buckets', redis.call('HLEN', buckets_key)) end
local unknown = {}
for reader, floor in pairs(floors) do
    if not floor then unknown[#unknown + 1] = ARGV[names + reader] end
end
return {table.concat(answers), birth, unknown}
"""
