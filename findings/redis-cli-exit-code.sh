#!/usr/bin/env bash
# The exit code of `redis-cli -e` after a wrong password, and after commands of which one fails.
#
# Documentation: with `-e` it returns an exit error code when a command fails. Guess: 1 in both cases.
# Seen with redis 7.0.15 of Debian 12, and so by hand with redis-cli 8.0.6, valkey-cli 8.1.1 and 9.1.2: 0 after a wrong
# password, if the user `default` needs none: it warns, carries the command out as `default`, and is content. 0 also for
# commands that come on standard input, whichever of them fails. 1 only for the one command of its command line. So a
# check of a password asks `ACL WHOAMI` and compares the name.
# Needs Debian 12, whose packages it unpacks. Run by hand: bash findings/redis-cli-exit-code.sh. Fails when that changes.
set -euo pipefail
folder=$(mktemp -d)
server=""
trap 'kill "$server" 2>/dev/null || true; wait; rm -rf "$folder"' EXIT
chmod 755 "$folder"
cd "$folder"
apt-get download -qq 'redis-server=5:7.0.15*' 'redis-tools=5:7.0.15*' libhiredis0.14 libjemalloc2 liblua5.1-0 liblzf1 \
    lua-bitop lua-cjson 2>/dev/null
for package in *.deb; do dpkg-deb -x "$package" unpacked; done
export LD_LIBRARY_PATH=$folder/unpacked/usr/lib/x86_64-linux-gnu

cat >users <<'USERS'
user default on nopass ~* &* +@all
user app on >secret ~* &* +@all
USERS
unpacked/usr/bin/redis-server --port 0 --unixsocket socket --save "" --aclfile users --logfile log &
server=$!
for _ in {1..100}; do [ -S socket ] || sleep 0.1; done

cli() { unpacked/usr/bin/redis-cli -s socket -e "$@" 2>/dev/null; }
code() { "$@" >/dev/null && echo 0 || echo $?; }
right=$(cli --user app --pass secret acl whoami)
wrong=$(cli --user app --pass wrong acl whoami) && wrong="$wrong, exit code 0"
one=$(code cli incr)
first=$(printf 'incr\nget key\n' | code cli)
last=$(printf 'get key\nincr\n' | code cli)
unpacked/usr/bin/redis-cli --version
echo "the right password:     $right"
echo "a wrong password:       $wrong"
echo "one command that fails: exit code $one"
echo "of two commands on standard input the first fails: $first, the last fails: $last"
if [ "$right; $wrong; $one; $first; $last" != "app; default, exit code 0; 1; 0; 0" ]; then
    echo "This has changed." >&2
    exit 1
fi
