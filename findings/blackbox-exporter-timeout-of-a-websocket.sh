#!/usr/bin/env bash
# How long the Blackbox exporter of Prometheus takes for an HTTP probe of a WebSocket server: the headers of a handshake,
# and `valid_status_codes: [101]`.
#
# Documentation: `timeout`: how long the probe waits before giving up. Guess: it succeeds as soon as it has the 101.
# Seen with 0.23.0 of Debian 12, and so by hand with 0.26.0 of Debian 13: after the 101 it reads what it takes for the
# body, until the server closes the WebSocket; `timeout` does not end that. The server below closes after 6 s: with a
# timeout of 2 s the probe takes 6 s, and succeeds. uvicorn closes after 40 s, when its pings have not been answered. By
# then Prometheus has long given up the scrape, so that `probe_success` is missing, and an alert on `probe_success == 0`
# never fires. With the `tcp` prober it works: send the handshake, expect `^HTTP/1.1 101 `.
# Needs Debian 12, whose package it unpacks. Run by hand: bash findings/blackbox-exporter-timeout-of-a-websocket.sh. Fails
# when that changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
chmod 755 "$folder"
cd "$folder"
apt-get download -qq 'prometheus-blackbox-exporter=0.23.0*' 2>/dev/null
dpkg-deb -x prometheus-blackbox-exporter_*.deb unpacked

cat >conf <<'YAML'
modules:
  http:
    prober: http
    timeout: 2s
    http:
      preferred_ip_protocol: ip4
      valid_status_codes: [101]
      headers:
        Connection: Upgrade
        Upgrade: websocket
        Sec-WebSocket-Version: "13"
        Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==
  tcp:
    prober: tcp
    timeout: 2s
    tcp:
      preferred_ip_protocol: ip4
      query_response:
        - send: "GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r"
        - expect: "^HTTP/1.1 101 "
YAML
cat >drive.py <<'PYTHON'
import re, socket, subprocess, sys, threading, time, urllib.request

ANSWER = (
    b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n"
)


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return listener.getsockname()[1]


def serve(connection):
    """Accept the WebSocket, say nothing, and close it after 6 s, or when the client has gone."""
    with connection:
        received = b""
        while b"\r\n\r\n" not in received:
            received += connection.recv(4096)
        connection.sendall(ANSWER)
        connection.settimeout(6)
        try:
            connection.recv(1)
        except TimeoutError:
            connection.sendall(b"\x88\x02\x03\xe8")  # a close frame with 1000


def server(listener):
    while True:
        threading.Thread(target=serve, args=(listener.accept()[0],), daemon=True).start()


def probe(module, target):
    began = time.monotonic()
    url = f"http://127.0.0.1:{port}/probe?module={module}&target={target}"
    text = urllib.request.urlopen(url, timeout=60).read().decode()
    success = re.search(r"(?m)^probe_success (\d)", text)[1]
    return success, time.monotonic() - began


port = free_port()
with open("log", "w") as log, socket.create_server(("127.0.0.1", 0)) as listener:
    threading.Thread(target=server, args=(listener,), daemon=True).start()
    address = "127.0.0.1:%d" % listener.getsockname()[1]
    exporter = subprocess.Popen(
        ["unpacked/usr/bin/prometheus-blackbox-exporter", "--config.file=conf", f"--web.listen-address=127.0.0.1:{port}"],
        stderr=log,
    )
    try:
        for _ in range(300):
            try:
                socket.create_connection(("127.0.0.1", port)).close()
                break
            except OSError:
                time.sleep(0.1)
        success, took = probe("http", f"http://{address}/")
        tcp_success, tcp_took = probe("tcp", address)
    finally:
        exporter.terminate()
        exporter.wait(60)
print(f"prober http, timeout 2 s: probe_success {success} after {took:.1f} s")
print(f"prober tcp,  timeout 2 s: probe_success {tcp_success} after {tcp_took:.1f} s")
same = (success, tcp_success) == ("1", "1") and took > 5 and tcp_took < 2
sys.exit(0 if same else "This has changed.")
PYTHON
python3 drive.py
