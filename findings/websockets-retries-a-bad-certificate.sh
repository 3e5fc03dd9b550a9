#!/usr/bin/env bash
# What `async for websocket in connect("wss://...")` of the `websockets` library does when it cannot trust the server's
# certificate.
#
# Guess: it raises, as for a wrong address or a 404: waiting changes nothing, and somebody must look.
# Seen with the version below: it tries again for ever, and says so only to a logger of level INFO, which Python does not
# print unless told to; the program seems to hang. `ssl.SSLCertVerificationError` is an `OSError`, and every `OSError` is
# taken for a fault of the network. So is a host name that does not exist. An answer of 404 raises. `process_exception`
# can tell them apart; `await connect(...)` raises at once.
# Needs openssl. Run by hand: bash findings/websockets-retries-a-bad-certificate.sh. Fails when that changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" -qq --disable-pip-version-check install websockets==17.4
cd "$folder"
openssl req -x509 -newkey rsa:2048 -nodes -keyout key.pem -out cert.pem -days 2 -subj /CN=localhost 2>/dev/null

cat >drive.py <<'PYTHON'
import asyncio, http, logging, ssl, sys
from importlib.metadata import version

from websockets.asyncio.client import connect
from websockets.asyncio.server import serve

EXPECTED = {
    "a certificate of nobody": "tries again: SSLCertVerificationError",
    "the same, awaited": "raises SSLCertVerificationError",
    "no such host": "tries again: gaierror",
    "404": "raises InvalidStatus",
}


class Attempts(logging.Handler):
    """What failed, when the library says that it will try again."""

    def emit(self, record):
        if "reconnecting" in record.getMessage():
            self.last = record.getMessage()


attempts = Attempts()
logging.getLogger("websockets.client").addHandler(attempts)
logging.getLogger("websockets.client").setLevel("INFO")
logging.getLogger("websockets.server").setLevel("CRITICAL")


async def stay(url):
    async for websocket in connect(url, proxy=None):
        return


async def once(url):
    await connect(url, proxy=None)


async def outcome(way, url):
    attempts.last = ""
    try:
        await asyncio.wait_for(way(url), 5)
    except asyncio.TimeoutError:
        names = ("SSLCertVerificationError", "gaierror")
        return "tries again: " + "".join(name for name in names if name in attempts.last)
    except Exception as error:
        return f"raises {type(error).__name__}"


async def main():
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain("cert.pem", "key.pem")

    def missing(connection, request):
        return connection.respond(http.HTTPStatus.NOT_FOUND, "")

    serve_over_tls = serve(print, "127.0.0.1", 0, ssl=context)
    async with serve_over_tls as over_tls, serve(print, "127.0.0.1", 0, process_request=missing) as plain:
        secure = f"wss://localhost:{over_tls.sockets[0].getsockname()[1]}/"
        return {
            "a certificate of nobody": await outcome(stay, secure),
            "the same, awaited": await outcome(once, secure),
            "no such host": await outcome(stay, "ws://nowhere.invalid/"),
            "404": await outcome(stay, f"ws://127.0.0.1:{plain.sockets[0].getsockname()[1]}/"),
        }


print("websockets", version("websockets"))
found = asyncio.run(main())
for what, outcome in found.items():
    print(f"{what:24} {outcome}")
sys.exit(0 if found == EXPECTED else "This has changed.")
PYTHON
venv/bin/python drive.py
