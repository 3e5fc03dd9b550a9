#!/usr/bin/env bash
# When the parts of a streamed answer, one each half second, leave nginx with its default `proxy_buffering on`.
#
# Guess: nginx gathers them, so that a client gets nothing before a buffer of 4 KiB is full or the answer ends; a stream
# needs `proxy_buffering off`, as most guides say. `gzip` changes nothing of that.
# Seen with nginx 1.22.1 of Debian 12: with buffering each part arrives when it is sent. It is `gzip on`, as Debian has
# it for text/html, that keeps all parts until the answer ends; and `proxy_buffering off`, or `X-Accel-Buffering: no`
# from the application, makes gzip pass each part on too. Server-sent events, which gzip leaves alone, are never kept.
# Needs Debian 12, whose package it unpacks. Run by hand: bash findings/nginx-gzip-holds-a-stream.sh. Fails when that
# changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
chmod 755 "$folder"
cd "$folder"
apt-get download -qq 'nginx=1.22.1*' 2>/dev/null
dpkg-deb -x nginx_*.deb unpacked

cat >drive.py <<'PYTHON'
import http.server, pathlib, socket, subprocess, sys, threading, time

CONF = """
daemon off; pid {folder}/pid; error_log {folder}/error; worker_processes 1;
events {{}}
http {{
    access_log off; client_body_temp_path {folder}/b; proxy_temp_path {folder}/p;
    fastcgi_temp_path {folder}/f; uwsgi_temp_path {folder}/u; scgi_temp_path {folder}/s;
    proxy_http_version 1.1; gzip_min_length 0;
    server {{
        listen 127.0.0.1:{port};
        location /plain/ {{ proxy_pass http://127.0.0.1:{upstream}; }}
        location /gzip/ {{ proxy_pass http://127.0.0.1:{upstream}; gzip on; }}
        location /gzip-unbuffered/ {{ proxy_pass http://127.0.0.1:{upstream}; gzip on; proxy_buffering off; }}
    }}
}}
"""
PARTS, PAUSE_S = 4, 0.5
EXPECTED = {
    "/plain/text/html": "as sent", "/gzip/text/html": "at the end", "/gzip-unbuffered/text/html": "as sent",
    "/gzip/asked/text/html": "as sent", "/gzip/text/event-stream": "as sent",
}
folder = pathlib.Path.cwd()


class Stream(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        self.send_response(200)
        self.send_header("Content-Type", "/".join(self.path.split("/")[-2:]))
        self.send_header("Transfer-Encoding", "chunked")
        if "/asked/" in self.path:
            self.send_header("X-Accel-Buffering", "no")
        self.end_headers()
        for number in range(PARTS):
            self.wfile.write(b"a\r\npart %4d\n\r\n" % number)
            time.sleep(PAUSE_S)
        self.wfile.write(b"0\r\n\r\n")

    def log_message(self, *_):
        pass


def ask(port, path):
    """When the first and the last bytes of the body came."""
    with socket.create_connection(("127.0.0.1", port), timeout=20) as client:
        lines = (f"GET {path} HTTP/1.1", "Host: a", "Accept-Encoding: gzip", "Connection: close", "", "")
        client.sendall("\r\n".join(lines).encode())
        received, first = b"", None
        while block := client.recv(65536):
            received += block
            head, _, body = received.partition(b"\r\n\r\n")
            # What gzip begins with has ten bytes, and no part in it.
            has_part = len(body) > 20 if b"gzip" in head else b"part" in body
            if first is None and has_part:
                first = time.monotonic()
        return first, time.monotonic()


upstream = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Stream)
threading.Thread(target=upstream.serve_forever, daemon=True).start()
with socket.create_server(("127.0.0.1", 0)) as listener:
    port = listener.getsockname()[1]
pathlib.Path("nginx.conf").write_text(CONF.format(folder=folder, port=port, upstream=upstream.server_port))
nginx = subprocess.Popen(["unpacked/usr/sbin/nginx", "-p", folder, "-c", f"{folder}/nginx.conf", "-e", f"{folder}/error"])
seen = {}
try:
    for _ in range(100):
        try:
            socket.create_connection(("127.0.0.1", port)).close()
            break
        except OSError:
            time.sleep(0.1)
    for path in EXPECTED:
        first, last = ask(port, path)
        seen[path] = "as sent" if last - first > PAUSE_S else "at the end"
        print(f"{path:30} first part {last - first:.1f} s before the end: {seen[path]}", flush=True)
finally:
    nginx.terminate()
    nginx.wait(10)
sys.exit(0 if seen == EXPECTED else "This has changed.")
PYTHON
python3 drive.py
