#!/usr/bin/env bash
# Whether a client gets its answer that has closed its sending side behind the request, as `nc -N`, socat and scripts
# do that pipe a request into a connection.
#
# A FIN says that the client sends no more, not that it has gone: it still reads. Guess: every server answers, and then
# closes.
# Seen with the versions below, with an application that takes 0.3 s: only hypercorn answers, and gunicorn with its WSGI
# workers, sync or gthread. uvicorn, granian, daphne, and gunicorn with its ASGI worker close without one byte, and so do
# the servers of aiohttp and tornado: they take the end of the stream for the end of the client. The application has run
# all the same, so that what it was asked for is done, and whoever asked does not know.
# Run by hand: bash findings/asgi-half-closed-client.sh. Fails when one of them behaves otherwise.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" -qq --disable-pip-version-check install uvicorn==0.54.0 websockets==16.1.1 httptools==0.9.0 \
    hypercorn==0.18.0 granian==2.8.9 gunicorn==27.0.1 daphne==4.2.3 aiohttp==3.14.5 tornado==6.6.1
cd "$folder"

cat >app.py <<'PYTHON'
import asyncio, pathlib, sys, time


def work():
    with open("worked", "a") as file:
        file.write(".")


async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        while True:
            event = (await receive())["type"]
            await send({"type": f"{event}.complete"})
            if event == "lifespan.shutdown":
                return
    await asyncio.sleep(0.3)
    work()
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"4")]})
    await send({"type": "http.response.body", "body": b"done"})


def wsgi(environ, start_response):
    time.sleep(0.3)
    work()
    start_response("200 OK", [("Content-Length", "4")])
    return [b"done"]
PYTHON
cat >of_aiohttp.py <<'PYTHON'
import asyncio, sys
from aiohttp import web
from app import work


async def answer(request):
    await asyncio.sleep(0.3)
    work()
    return web.Response(text="done")


application = web.Application()
application.router.add_get("/", answer)
web.run_app(application, host="127.0.0.1", port=int(sys.argv[1]), print=None)
PYTHON
cat >of_tornado.py <<'PYTHON'
import asyncio, sys
import tornado.web
from app import work


class Answer(tornado.web.RequestHandler):
    async def get(self):
        await asyncio.sleep(0.3)
        work()
        self.write("done")


async def main():
    tornado.web.Application([("/", Answer)]).listen(int(sys.argv[1]), "127.0.0.1")
    await asyncio.Event().wait()


asyncio.run(main())
PYTHON

cat >drive.py <<'PYTHON'
import pathlib, socket, subprocess, sys, time

GUNICORN = "gunicorn --bind 127.0.0.1:{port} --no-control-socket --worker-class"
SERVERS = {
    "uvicorn, httptools": "uvicorn app:app --port {port} --http httptools",
    "uvicorn, h11": "uvicorn app:app --port {port} --http h11",
    "hypercorn": "hypercorn app:app --bind 127.0.0.1:{port}",
    "granian": "granian app:app --port {port} --interface asgi",
    "daphne": "daphne -b 127.0.0.1 -p {port} app:app",
    "gunicorn, asgi": GUNICORN + " asgi app:app",
    "gunicorn, sync": GUNICORN + " sync app:wsgi",
    "gunicorn, gthread": GUNICORN + " gthread --threads 2 app:wsgi",
    "aiohttp": "python of_aiohttp.py {port}",
    "tornado": "python of_tornado.py {port}",
}
ANSWERS = {"hypercorn", "gunicorn, sync", "gunicorn, gthread"}
WORKS_IN_VAIN = set(SERVERS) - ANSWERS
worked = pathlib.Path("worked")


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return listener.getsockname()[1]


def seen(name):
    """What the client gets, and whether the application came to the end of its work."""
    port = free_port()
    words = SERVERS[name].format(port=port).split()
    worked.write_text("")
    process = subprocess.Popen([sys.prefix + "/bin/" + words[0], *words[1:]], stdout=subprocess.DEVNULL,
                               stderr=subprocess.DEVNULL)
    try:
        for _ in range(300):
            try:
                socket.create_connection(("127.0.0.1", port)).close()
                break
            except OSError:
                time.sleep(0.1)
        time.sleep(1)
        with socket.create_connection(("127.0.0.1", port), 10) as client:
            client.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
            client.shutdown(socket.SHUT_WR)
            received = b""
            while more := client.recv(4096):
                received += more
        time.sleep(1)
        return received.startswith(b"HTTP/1.1 200"), received == b"", worked.read_text() == "."
    finally:
        process.terminate()
        process.wait(60)


same = True
for name in SERVERS:
    answered, nothing, done = seen(name)
    same &= answered == (name in ANSWERS) and nothing != answered
    print(f"{name:20} {'answers' if answered else 'sends nothing'}, the work is {'done' if done else 'not done'}")
    same &= done
sys.exit(0 if same else "This has changed.")
PYTHON
venv/bin/python drive.py
