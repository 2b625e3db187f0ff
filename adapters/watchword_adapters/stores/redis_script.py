"""The script with which Redis judges a batch: in one step, beside which nothing else happens there."""

from __future__ import annotations

from typing import Final

USE_FORMAT: Final = ">16s16s16sdd"
"""How one use is packed for the script: key, mark (zeros for none), principal, issue time, lives."""

# Why the mark is compared with INFO in each batch: a restart may have brought back an older snapshot, a replica that
# took over lacks what its master had not sent yet, and eviction picks ids. Each of them leaves the mark in place, and
# none leaves run id and count of evictions as they were. A restart alone is harmless where the server syncs each write
# to its log and has no replica: then ``durable`` was noted before it and is true after it.
SCRIPT: Final = """
local prefix, run, durable = ARGV[1], ARGV[2], ARGV[3]
local skew, tolerance, bound, width, uses =
    tonumber(ARGV[5]), tonumber(ARGV[6]), tonumber(ARGV[7]), tonumber(ARGV[8]), ARGV[9]

if string.match(redis.call('INFO', 'server'), 'run_id:(%x+)') ~= run then return {'moved', ''} end
if string.match(redis.call('INFO', 'replication'), 'connected_slaves:(%d+)') ~= '0' then durable = '0' end
local evicted = string.match(redis.call('INFO', 'stats'), 'evicted_keys:(%d+)')
local time = redis.call('TIME')
local stamp = time[1] .. '.' .. string.rep('0', 6 - #time[2]) .. time[2]
local now = tonumber(stamp)
if math.abs(now - tonumber(ARGV[4])) > tolerance then return {'clock', stamp} end

local mark_key = prefix .. 'mark'
local mark = redis.call('HMGET', mark_key, 'birth', 'run', 'durable', 'evicted')
local birth = mark[1]
if not birth
    or (mark[2] ~= run and not (mark[3] == '1' and durable == '1'))
    or (evicted ~= '0' and evicted ~= mark[4])
then birth = stamp end
if birth ~= mark[1] or mark[2] ~= run or mark[3] ~= durable or mark[4] ~= evicted then
    redis.call('HSET', mark_key, 'birth', birth, 'run', run, 'durable', durable, 'evicted', evicted)
end

local floor, none = tonumber(birth) + skew, string.rep('\\0', 16)
local answers, room, added = {}, {}, {}
for at = 1, #uses, 64 do
    local key, place, owner, issued, lives = struct.unpack('>c16c16c16dd', uses, at)
    local known = redis.call('GET', prefix .. 'id:' .. key)
    local answer
    if known then
        answer = place ~= none and known == place and 'D' or 'P'
    elseif issued <= floor or lives <= now then
        answer = 'T'
    else
        if not room[owner] then
            local held, counts = 0, redis.call('HGETALL', prefix .. 'held:' .. owner)
            for i = 1, #counts, 2 do
                if tonumber(counts[i]) * width > now then
                    held = held + tonumber(counts[i + 1])
                else
                    redis.call('HDEL', prefix .. 'held:' .. owner, counts[i])
                end
            end
            room[owner], added[owner] = bound - held, {}
        end
        if room[owner] <= 0 then
            answer = 'Q'
        else
            redis.call('SET', prefix .. 'id:' .. key, place, 'PXAT', string.format('%.0f', lives * 1000))
            local bucket = string.format('%.0f', math.ceil(lives / width))
            added[owner][bucket] = (added[owner][bucket] or 0) + 1
            room[owner] = room[owner] - 1
            answer = 'F'
        end
    end
    answers[#answers + 1] = answer
end
for owner, buckets in pairs(added) do
    local held = prefix .. 'held:' .. owner
    for bucket, count in pairs(buckets) do
        redis.call('HINCRBY', held, bucket, count)
        redis.call('PEXPIREAT', held, string.format('%.0f', (now + 66 * width) * 1000))
    end
end
return {table.concat(answers), birth}
"""
