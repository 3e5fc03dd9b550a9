"""What an engine must be, and let its user do, beside what the links need, so that it keeps mailboxes."""

from collections.abc import Iterator, Mapping

OLDEST = (7, 0)
# From here on it can be asked to wait for its disk.
WAITS = (7, 2)
NEVER_SYNCED = "set appendfsync everysec or always there; if it is, its disk is too slow"
RIGHTS = (
    *("+evalsha", "+script|load", "+time", "+hmget", "+hset", "+get", "+set", "+del"),
    *("+xadd", "+xrange", "+xrevrange", "+xlen", "+xtrim", "+zadd", "+zrem", "+zrange", "+zrangebyscore", "+zcard"),
)

# With a key: what stands in its file, from which it has the mailboxes after a restart.
WRITES = ("hset {} f v", "set {} v", "del {}", "xadd {} * f v", "xtrim {} maxlen 1", "zadd {} 1 m", "zrem {} m")


def rights(name: str, is_old: bool) -> list[str]:
    """As ACL SETUSER of valkey.io has them; of an old engine it is read whether it syncs each write."""
    return [f"~nc:1:{name}:*", *RIGHTS, "+config|get" if is_old else "+@connection"]


def version_of(facts: Mapping[str, object]) -> tuple[int, ...]:
    """Of Redis, or that with which Valkey agrees, as INFO has it."""
    return tuple(int(part) for part in str(facts.get("redis_version", "0.0")).split(".")[:2])


def is_refusal(said: str) -> bool:
    """Whether an error of the engine says that its user may not do something, also within a script."""
    return any(words in said for words in ("NOPERM", "permissions", "ACL failure", "The user executing the script"))


def faults_of(facts: Mapping[str, object]) -> Iterator[tuple[str, str]]:
    """Why an engine keeps no mail as it is, by what it says of itself in INFO; and the fix."""
    if version_of(facts) < OLDEST:
        yield f"it is Redis {facts.get('redis_version')}", "use Redis 7 or newer, or Valkey 8 or newer"
    if str(facts.get("aof_enabled")) != "1":
        yield "it keeps nothing through a restart", "set appendonly yes there"
    if facts.get("maxmemory_policy") != "noeviction":
        yield "it drops what it stores when it is full", "set maxmemory-policy noeviction there"
