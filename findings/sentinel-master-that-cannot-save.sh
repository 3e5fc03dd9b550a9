#!/usr/bin/env bash
# What a Sentinel of Redis does when the master answers, but cannot save, as with a full disk; and when that is so for the
# replica.
#
# Guess: nothing. It fails over when the master does not answer; this one answers, serves reads and PUBLISH, and its errors
# say what is wrong.
# Seen with Redis 7.0.15 of Debian 12, and so by hand with Valkey 8.1.1 of Debian 13: it fails over, and all clients are
# disconnected. A server that cannot save refuses PING too, with MISCONF, and Sentinel counts that as no answer. For the
# same reason a replica that cannot save is `s_down`, although it is in sync: when the master dies, Sentinel promotes
# nothing. So full disks on both hosts can cost all of the service, not just its writes. With
# `stop-writes-on-bgsave-error no` on both they answer PING; then watch `rdb_last_bgsave_status`.
# Needs Debian 12, whose packages it unpacks. Run by hand: bash findings/sentinel-master-that-cannot-save.sh. Fails when
# that changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
chmod 755 "$folder"
cd "$folder"
apt-get download -qq 'redis-server=5:7.0.15*' 'redis-tools=5:7.0.15*' libhiredis0.14 libjemalloc2 liblua5.1-0 liblzf1 \
    lua-bitop lua-cjson 2>/dev/null
for package in *.deb; do dpkg-deb -x "$package" unpacked; done

cat >drive.py <<'PYTHON'
import pathlib, shutil, socket, subprocess, sys, tempfile, time

FOLDER = pathlib.Path.cwd()
ENVIRONMENT = {"LD_LIBRARY_PATH": str(FOLDER / "unpacked/usr/lib/x86_64-linux-gnu")}
running = []


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return listener.getsockname()[1]


def start(*words):
    """A server in a directory of its own, and that directory."""
    port, directory = free_port(), tempfile.mkdtemp(dir=FOLDER)
    command = [FOLDER / "unpacked/usr/bin/redis-server", *words, "--port", str(port), "--bind", "127.0.0.1"]
    server = subprocess.Popen([*command, "--save", ""], cwd=directory, stdout=subprocess.DEVNULL, env=ENVIRONMENT)
    running.append(server)
    until(lambda: ask(port, "ping") == "PONG")
    return server, port, directory


def ask(port, *words):
    command = [FOLDER / "unpacked/usr/bin/redis-cli", "-p", str(port), *words]
    return subprocess.run(command, capture_output=True, text=True, env=ENVIRONMENT, timeout=20).stdout.strip()


def until(there, seconds=60):
    end = time.monotonic() + seconds
    while not there() and time.monotonic() < end:
        time.sleep(0.2)
    return there()


def cannot_save(port, directory):
    """Its working directory is gone, so that the snapshot fails that each write is followed by."""
    shutil.rmtree(directory)
    ask(port, "config", "set", "save", "1 1")


def replica_and_sentinel():
    master = start()
    replica = start("--replicaof", f"127.0.0.1 {master[1]}")
    configuration = FOLDER / f"sentinel{master[1]}"
    configuration.write_text(
        f"sentinel monitor name 127.0.0.1 {master[1]} 1\n"
        "sentinel down-after-milliseconds name 3000\nsentinel failover-timeout name 10000\n"
    )
    sentinel = start(configuration, "--sentinel")[1]

    def says(what):
        return ask(sentinel, "sentinel", what, "name")

    assert until(lambda: f"127.0.0.1:{replica[1]}" in says("replicas") and "\nok\n" in says("replicas"))
    time.sleep(3)
    return master, replica, says


def master_cannot_save():
    (_, port, directory), (_, other, _), says = replica_and_sentinel()
    cannot_save(port, directory)
    ask(port, "set", "key", "value")
    assert until(lambda: ask(port, "ping").startswith("MISCONF"))
    answered = ask(port, "get", "key"), ask(port, "publish", "channel", "message")
    failed_over = until(lambda: says("get-master-addr-by-name").endswith(str(other)))
    return answered, failed_over


def replica_cannot_save():
    (master, port, _), (_, other, directory), says = replica_and_sentinel()
    cannot_save(other, directory)
    ask(port, "set", "key", "value")
    assert until(lambda: ask(other, "ping").startswith("MISCONF"))
    linked = "master_link_status:up" in ask(other, "info", "replication")
    flags = until(lambda: "s_down" in says("replicas"))
    master.kill()
    failed_over = until(lambda: says("get-master-addr-by-name").endswith(str(other)), 40)
    return linked, flags, failed_over


try:
    answered, failed_over = master_cannot_save()
    print(f"master that cannot save: GET and PUBLISH answer {answered}; Sentinel fails over: {failed_over}")
    linked, down, replaced = replica_cannot_save()
    print(f"replica that cannot save: linked with its master: {linked}, s_down to Sentinel: {down}, "
          f"promoted within 40 s of the master's end: {replaced}")
finally:
    for server in running:
        server.kill()
        server.wait(60)
same = (answered, failed_over, linked, down, replaced) == (("value", "0"), True, True, True, False)
sys.exit(0 if same else "This has changed.")
PYTHON
python3 drive.py
