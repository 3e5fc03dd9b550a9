#!/usr/bin/env bash
# An append-only file that a power cut has cut off within a transaction, between MULTI and EXEC.
#
# Guess: the next start drops the transaction and removes it from the file, as it says (aof-load-truncated).
# Seen with redis-server 7.0.15 and valkey-server 8.1.1: it drops it, but removes only the command that is cut. The MULTI
# stays in the file, and all that is written later stands behind it: at the start after that, the EXEC of a later
# transaction carries out what was dropped; and what no EXEC follows is dropped as well, although it was on the disk.
# Run by hand, with redis-server or valkey-server on PATH: bash findings/redis-torn-transaction.sh. Fails when it is otherwise.
set -euo pipefail
server=${1:-$(command -v redis-server || command -v valkey-server)}
cli=${server/server/cli}
folder=$(mktemp -d)
pid=
trap '[ -z "$pid" ] || kill -9 "$pid" || true; rm -rf "$folder"' EXIT
cd "$folder"

start() {
    "$server" --port 0 --unixsocket "$folder/socket" --save '' --appendonly yes --appendfsync always >log &
    pid=$!
    until "$cli" -s socket ping 2>&1 | grep -q PONG; do sleep 0.1; done
}
cut() { # power, and so many bytes
    kill -9 "$pid"
    wait "$pid" 2>/dev/null || true
    truncate --size="-$1" appendonlydir/*.incr.aof
}
transaction() { printf 'MULTI\nSET %s\nSET %s\nEXEC\n' "$1" "$2" | "$cli" -s socket >/dev/null; }
there() { "$cli" -s socket --raw keys '*' | sort | tr '\n' ' '; }
torn() { # a and b were written by a transaction whose end is cut off
    start
    transaction 'a 1' 'b 2'
    cut 20
    start
}

torn
first=$(there)
transaction 'c 3' 'd 4'
cut 0
start
second=$(there)
cut 0
rm -r appendonlydir
torn
"$cli" -s socket set e 5 >/dev/null
cut 0
start
third=$(there)
cut 0
pid=
echo "after the cut:                       $first"
echo "after a transaction and a restart:   $second"
echo "after a single write and a restart:  $third"
[ "${first// /}" = "" ] && [ "$second" = "a c d " ] && [ "${third// /}" = "" ] || { echo "This has changed." && exit 1; }
