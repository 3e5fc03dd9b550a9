"""The script that keeps the mailboxes of all hosts in the engine, in Lua; `script` beside this calls it."""

TEXT = r"""
-- The mailboxes of all hosts, in the engine: `script` beside this has what is kept where, and the numbers in capitals.
-- ARGV: the prefix of all keys; the time in microseconds, or nothing; mailbox.messages, .bytes, .total, and .ttl in
-- microseconds; then each command, how many words follow it, and these.

local P, now = ARGV[1], tonumber(ARGV[2])
local messages, bytes, total, ttl = tonumber(ARGV[3]), tonumber(ARGV[4]), tonumber(ARGV[5]), tonumber(ARGV[6])
if not now then
    local time = redis.call('TIME')
    now = time[1] * 1000000 + time[2]
end
local horizon = now - ttl
local boxes, news, settled, outcomes, expired = {}, {}, {}, {}, 0
local S, is_changed = false, false

local function text(number) return string.format('%.0f', number) end

local function load_state()
    local v = redis.call('HMGET', P .. 'state', 'version', 'epoch', 'last', 'messages', 'bytes', 'run', 'born', 'lossy',
        'drawn', 'gap', 'restored')
    if v[1] then
        S = {version = tonumber(v[1]), epoch = v[2], last = tonumber(v[3]), messages = tonumber(v[4]),
            bytes = tonumber(v[5]), run = v[6], born = tonumber(v[7]), lossy = v[8], drawn = v[9],
            gap = tonumber(v[10]), restored = tonumber(v[11] or 0)}
    end
end

local function first_of(name) return redis.call('XRANGE', P .. 'mail:' .. name, '-', '+', 'COUNT', 1)[1] end
local function offset_of(entry) return tonumber(string.match(entry[1], '^%d+')) end

-- So many items from there on, whether there may be more, and how many to ask for next: the longer they are, the fewer,
-- for the engine copies all that it returns, and serves nobody else meanwhile.
local function some(name, from, many)
    local found, size = redis.call('XRANGE', P .. 'mail:' .. name, from, '+', 'COUNT', many), 0
    for _, entry in ipairs(found) do size = size + #entry[2][8] end
    return found, #found == many, math.max(1, math.min(16, 4 * many, math.floor(PAGE * #found / math.max(1, size))))
end

local function count(box, number, size)
    box.messages, box.bytes, box.is_changed = box.messages + number, box.bytes + size, true
    S.messages, S.bytes, is_changed = S.messages + number, S.bytes + size, true
end

-- A script that fails half-way, because its user may do less than before, leaves what nobody has counted.
local function recount(box)
    local from, many, goes_on, number, size = '-', 1, true, 0, 0
    while goes_on do
        local found
        found, goes_on, many = some(box.name, from, many)
        for _, entry in ipairs(found) do
            number, size, from = number + 1, size + #entry[2][8] + OVERHEAD, '(' .. entry[1]
            box.oldest = box.oldest or tonumber(entry[2][2])
            S.last = math.max(S.last, offset_of(entry))
        end
    end
    count(box, number - box.messages, size - box.bytes)
    box.was = nil  -- unknown
end

local function load(name)
    local box = boxes[name]
    if box == nil then
        local v = redis.call('HMGET', P .. 'box:' .. name, 'acked', 'lost', 'seen', 'reader', 'messages', 'bytes',
            'epoch')
        if v[1] then
            box = {name = name, acked = tonumber(v[1]), lost = tonumber(v[2]), seen = tonumber(v[3]),
                reader = tonumber(v[4]), messages = tonumber(v[5]), bytes = tonumber(v[6])}
            box.was = box.messages
            if redis.call('XLEN', P .. 'mail:' .. name) ~= box.messages then recount(box) end
            if v[7] ~= S.epoch then  -- something may have been lost since, also for who keeps no position
                box.lost = math.max(box.lost, box.acked + 1)
                box.is_changed = true
            end
        else
            box = false
        end
        boxes[name] = box
    end
    return box
end

local function append(box, offset, at, kind, sender, body, back)
    local fields = {'t', text(at), 'k', kind, 's', sender, 'b', body, 'r', back}
    redis.call('XADD', P .. 'mail:' .. box.name, text(offset) .. '-0', unpack(fields))
    if box.messages == 0 then box.oldest = at end
    count(box, 1, #body + OVERHEAD)
end

local function add(box, kind, sender, body, back)
    S.last = math.max(S.last + 1, now)
    append(box, S.last, now, kind, sender, body, back)
end

local function has_room(box, size)
    return box.messages < messages and box.bytes + size <= bytes and S.bytes + size <= total
end

-- Who wants a receipt, and under which id.
local function address_in(back)
    local length, rest = string.match(back, '^%d(%d+):(.*)$')
    return string.sub(rest, 1, tonumber(length)), string.sub(rest, tonumber(length) + 1)
end

local function give_back(back, recipient, is_delivered)
    local address, id = address_in(back)
    if string.sub(back, 1, 1) == '0' then
        settled[#settled + 1] = {address, id, recipient, is_delivered and 1 or 0}
        return
    end
    local box = load(address)
    if box then  -- whether it is full or not: when it asked for it, it was not
        add(box, '2', recipient, '{"id":' .. id .. ',"is_delivered":' .. tostring(is_delivered) .. '}', '')
        news[#news + 1] = address
    end
end

-- Remove what `is_due` from the beginning, at most so many. Returns the offset of the last one, or 0.
local function remove(box, is_due, most, is_delivered)
    local from, many, last, number, size, backs = '-', 1, 0, 0, 0, {}
    local goes_on = box.messages > 0
    while goes_on do
        local found
        found, goes_on, many = some(box.name, from, many)
        for _, entry in ipairs(found) do
            local f = entry[2]
            if number >= most or not is_due(entry) then
                box.oldest, goes_on = tonumber(f[2]), false
                break
            end
            last, number, size = offset_of(entry), number + 1, size + #f[8] + OVERHEAD
            if f[10] ~= '' and f[4] ~= '2' then backs[#backs + 1] = f[10] end
        end
        from = '(' .. text(last) .. '-0'
    end
    if number > 0 then
        redis.call('XTRIM', P .. 'mail:' .. box.name, 'MINID', '=', text(last + 1) .. '-0')
        count(box, -number, -size)
        if not is_delivered then expired = expired + number end
        if box.messages > 0 and not box.oldest then box.oldest = tonumber(first_of(box.name)[2][2]) end
        for _, back in ipairs(backs) do give_back(back, box.name, is_delivered) end
    end
    return last
end

local function expire(box, most)
    local last = remove(box, function(entry) return tonumber(entry[2][2]) <= horizon end, most, false)
    box.lost = math.max(box.lost, last)
end

local function acknowledge(box, offset)
    if offset > box.acked then
        remove(box, function(entry) return offset_of(entry) <= offset end, math.huge, true)
        box.acked, box.is_changed = offset, true
    end
end

local function see(box) box.seen, box.is_changed = now, true end

local commands = {}

function commands.keep(name, sender, kind, body, back, once, awaited)
    local box = load(name)
    if not box or box.seen <= horizon then return 3 end
    if once ~= '' then
        local at = redis.call('GET', P .. 'once:' .. once)
        if at and tonumber(at) > math.max(now - ONCE, S.restored) then
            is_changed = true  -- so that there is something to be confirmed, which confirms all before it
            return awaited ~= '' and redis.call('GET', P .. 'once:' .. awaited) and 7 or 6
        end
    end
    local origin = string.sub(back, 1, 1) == '1' and load(address_in(back))
    if not has_room(box, #body + OVERHEAD) or (origin and not has_room(origin, OVERHEAD)) then return 2 end
    add(box, kind, sender, body, back)
    if once ~= '' then redis.call('SET', P .. 'once:' .. once, text(now), 'PX', ONCE / 1000) end
    if awaited ~= '' then redis.call('SET', P .. 'once:' .. awaited, '', 'PX', ONCE / 1000) end
    return 1
end

function commands.open(name, epoch, after)
    local box = load(name)
    if not box then  -- offsets of an earlier box of this address mean that something is missing
        box = {name = name, acked = S.last, lost = S.last, seen = now, reader = 0, messages = 0, bytes = 0, was = 0}
        boxes[name] = box
        S.last, is_changed = math.max(S.last + 1, now), true  -- so that it is noticed if this is lost
        if S.gap > 0 and now < S.gap + UNTOLD * ttl then box.lost = S.last end  -- there may have been one that was lost
    end
    expire(box, math.huge)
    local acked, lost, is_whole = box.acked, math.max(box.acked, box.lost), false
    after = tonumber(after)
    if epoch == S.epoch and after <= S.last then
        is_whole = after >= lost
        acknowledge(box, after)
    else
        is_whole, after = epoch == '' and acked >= box.lost, acked
    end
    box.reader = box.reader + 1
    see(box)
    local first, last = first_of(name), redis.call('XREVRANGE', P .. 'mail:' .. name, '+', '-', 'COUNT', 1)[1]
    if first then lost = math.min(lost, offset_of(first) - 1) end  -- who confirms a loss confirms nothing to come
    return {box.reader, text(after), last and text(offset_of(last)) or text(after), is_whole and 1 or 0, text(lost)}
end

function commands.acknowledge(name, reader, offset)
    local box = load(name)
    if box and box.reader == tonumber(reader) then
        acknowledge(box, tonumber(offset))
        see(box)
    end
    return 0
end

function commands.touch(name)
    local box = load(name)
    if box then see(box) end
    return 0
end

function commands.sweep()
    local before = expired
    for _, name in ipairs(redis.call('ZRANGEBYSCORE', P .. 'old', '-inf', text(horizon), 'LIMIT', 0, SWEEP)) do
        if expired - before >= SWEEP then break end
        local box = load(name)
        if box then expire(box, SWEEP) else redis.call('ZREM', P .. 'old', name) end
    end
    for _, name in ipairs(redis.call('ZRANGEBYSCORE', P .. 'idle', '-inf', text(now - 2 * ttl), 'LIMIT', 0, SWEEP)) do
        local box = load(name)
        if not box or (box.messages == 0 and box.seen <= now - (box.lost > box.acked and UNTOLD or 2) * ttl) then
            redis.call('DEL', P .. 'box:' .. name)
            redis.call('ZREM', P .. 'idle', name)
            boxes[name] = false
        else
            box.is_changed = true
        end
    end
    return 0
end

function commands.read(name, after, most, size)
    local items, from, many, left, has_more, goes_on = {}, '(' .. after .. '-0', 1, tonumber(size), 0, true
    while goes_on do
        local found
        found, goes_on, many = some(name, from, many)
        for _, entry in ipairs(found) do
            local f = entry[2]
            left = left - #f[8]
            if #items == tonumber(most) or (left < 0 and #items > 0) then
                has_more, goes_on = 1, false
                break
            end
            items[#items + 1] = {text(offset_of(entry)), f[4], f[6], f[8]}
            from = '(' .. entry[1]
        end
    end
    local box = load(name)
    return {has_more, items, box and text(box.lost) or '0'}
end

function commands.list() return {redis.call('ZRANGE', P .. 'old', 0, -1), redis.call('ZRANGE', P .. 'idle', 0, -1)} end

function commands.show(most)
    local fullest = {}
    for _, name in ipairs(redis.call('ZRANGE', P .. 'old', 0, most)) do
        local box = load(name)
        if box then fullest[#fullest + 1] = {name, box.messages, box.bytes} end
    end
    local oldest = redis.call('ZRANGE', P .. 'old', 0, 0, 'WITHSCORES')[2]
    return {redis.call('ZCARD', P .. 'old') + redis.call('ZCARD', P .. 'idle'), oldest or '', fullest}
end

function commands.show_one(name)
    local box = load(name)
    if not box then return 0 end
    local first, last = first_of(name), redis.call('XREVRANGE', P .. 'mail:' .. name, '+', '-', 'COUNT', 1)[1]
    return {box.messages, box.bytes, first and first[2][2] or '', last and last[2][2] or '', text(box.seen)}
end

-- Whether all that is used here is allowed, before the first message needs it.
function commands.try()
    local key = P .. 'try'
    redis.call('DEL', key)
    redis.call('XADD', key, '1-0', 't', '')
    redis.call('XREVRANGE', key, '+', '-', 'COUNT', 1)
    redis.call('XRANGE', key, '-', '+', 'COUNT', 1)
    redis.call('XLEN', key)
    redis.call('XTRIM', key, 'MINID', '=', '2-0')
    redis.call('DEL', key)
    redis.call('HSET', key, 't', '')
    redis.call('DEL', key)
    redis.call('ZADD', key, 1, 't')
    redis.call('ZRANGE', key, 0, -1)
    redis.call('ZRANGEBYSCORE', key, '-inf', 1, 'LIMIT', 0, 1)
    redis.call('ZCARD', key)
    redis.call('ZREM', key, 't')
    redis.call('SET', key, '', 'PX', 1000)
    redis.call('GET', key)
    redis.call('DEL', key)
    return 0
end

-- A worker has connected; `run` changes whenever the engine may have lost what it had. What the worker says of itself
-- is of when it was connected last. Returns why another epoch begins, if one does.
function commands.begin(run, lossy, fresh, my_run, my_epoch, my_last)
    is_changed = true
    if not S then
        S = {version = VERSION, epoch = fresh, last = now, messages = 0, bytes = 0, run = run, born = now,
            lossy = lossy, drawn = run, gap = my_epoch == '' and 0 or now, restored = 0}
        return my_epoch == '' and '' or 'it has lost all that was stored'
    end
    local why = ''
    if S.run ~= run then
        if S.lossy == '1' then why = 'it was restarted, with mailbox.sync: second' end
        if S.run == 'restored' then why = 'it was restored from a copy' end
        S.run, S.born, S.lossy = run, S.last, lossy
    elseif lossy == '1' then
        S.lossy = lossy
    end
    if my_run ~= '' and my_run ~= run and S.drawn ~= run and (my_epoch ~= S.epoch or tonumber(my_last) > S.born) then
        why = 'it has lost the end of what was stored'
    end
    if my_epoch ~= '' and my_epoch ~= S.epoch and S.gap == 0 then  -- one that knew of nothing began before
        why = 'it has lost all that was stored'
    end
    if why ~= '' then S.epoch, S.drawn, S.gap = fresh, run, now end
    return why
end

-- A copy takes the place of all that is here: this comes first. Then what was here is dropped and what is in the copy
-- added, each time with `only`, as long as no worker has begun: which draws another epoch, however far that has come.
function commands.restore(fresh)
    S = S or {last = 0, messages = 0, bytes = 0}
    S.version, S.epoch, S.last, S.run, S.born = VERSION, fresh, math.max(S.last, now), 'restored', now
    S.lossy, S.drawn, S.gap, S.restored, is_changed = '0', '', now, now, true
    return 0
end

function commands.only(epoch)
    if S.epoch ~= epoch then error('STARTED') end
    return 0
end

function commands.drop(name)
    local box = load(name)
    if box then count(box, -box.messages, -box.bytes) end
    redis.call('DEL', P .. 'mail:' .. name)
    redis.call('DEL', P .. 'box:' .. name)
    redis.call('ZREM', P .. 'old', name)
    redis.call('ZREM', P .. 'idle', name)
    boxes[name] = false
    return 0
end

function commands.put(name, acked, lost, seen, reader)
    boxes[name] = {name = name, acked = tonumber(acked), lost = tonumber(lost), seen = tonumber(seen),
        reader = tonumber(reader), messages = 0, bytes = 0, was = 0, is_changed = true}
    return 0
end

function commands.fill(name, offset, kind, sender, body, back)
    offset = tonumber(offset)
    append(load(name), offset, offset, kind, sender, body, back)
    S.last = math.max(S.last, offset)
    return 0
end

-- What is counted is written last: if anything before it fails, it is counted again.
local function finish()
    for name, box in pairs(boxes) do
        if box and box.is_changed then
            if box.messages == 0 then
                count(box, 0, -box.bytes)
                if box.was ~= 0 then
                    redis.call('DEL', P .. 'mail:' .. name)
                    redis.call('ZREM', P .. 'old', name)
                end
                local later = box.lost > box.acked and (UNTOLD - 2) * ttl or 0
                redis.call('ZADD', P .. 'idle', text(box.seen + later), name)
            else
                if box.oldest then redis.call('ZADD', P .. 'old', text(box.oldest), name) end
                if not box.was or box.was == 0 then redis.call('ZREM', P .. 'idle', name) end
            end
        end
    end
    for name, box in pairs(boxes) do
        if box and box.is_changed then
            redis.call('HSET', P .. 'box:' .. name, 'acked', text(box.acked), 'lost', text(box.lost), 'seen',
                text(box.seen), 'reader', box.reader, 'messages', box.messages, 'bytes', text(box.bytes),
                'epoch', S.epoch)
        end
    end
    if is_changed then
        redis.call('HSET', P .. 'state', 'version', S.version, 'epoch', S.epoch, 'last', text(S.last), 'messages',
            S.messages, 'bytes', text(S.bytes), 'run', S.run, 'born', text(S.born), 'lossy', S.lossy, 'drawn', S.drawn,
            'gap', text(S.gap), 'restored', text(S.restored))
    end
end

load_state()
if S and S.version > VERSION then return redis.error_reply('NEWER mailboxes of a newer release') end
if not S and ARGV[7] ~= 'try' then return redis.error_reply('GONE no mailboxes') end
local at = 7
while ARGV[at] do
    local number = tonumber(ARGV[at + 1])
    outcomes[#outcomes + 1] = commands[ARGV[at]](unpack(ARGV, at + 2, at + 1 + number))
    at = at + 2 + number
end
finish()
S = S or {epoch = '', last = now, messages = 0, bytes = 0}  -- only tried
return {S.epoch, text(S.last), text(now), S.messages, text(S.bytes), expired, news, settled, outcomes}
"""
