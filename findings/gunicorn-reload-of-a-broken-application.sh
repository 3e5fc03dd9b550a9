#!/usr/bin/env bash
# What a reload of gunicorn (SIGHUP, the usual `ExecReload=`) does when the application can no longer be imported, as
# after a deployment that lacks a package.
#
# Documentation: HUP starts new workers with the new configuration and gracefully shuts down the older ones. Guess: the
# new workers fail, the log says so, and the old ones serve on, as nginx does with a configuration that is broken.
# Seen with gunicorn 27.0.1: the old workers are stopped without waiting whether a new one starts, and when a new one fails
# to, the main process ends with an error: nothing serves any more. So it is with WSGI and ASGI workers, one or three. With
# `preload_app` it serves on, but with the old code, after every reload: the main process never loads the new one.
# So import the application with the new code first, `python -c "import app"`, and reload only if that succeeds.
# Run by hand: bash findings/gunicorn-reload-of-a-broken-application.sh. Fails when that changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" -qq --disable-pip-version-check install gunicorn==27.0.1
cd "$folder"

cat >drive.py <<'PYTHON'
import pathlib, signal, socket, subprocess, sys, time, urllib.request

SOUND = """
def app(environ, start_response):
    start_response("200 OK", [("Content-Length", "2")])
    return [b"ok"]


async def asgi(scope, receive, send):
    assert scope["type"] == "http"
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
    await send({"type": "http.response.body", "body": b"ok"})
"""
CASES = {
    "one sync worker": "application:app",
    "three sync workers": "application:app --workers 3",
    "one asgi worker": "application:asgi --worker-class asgi",
    "preloaded": "application:app --preload",
}
application = pathlib.Path("application.py")


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return listener.getsockname()[1]


def answers(port):
    try:
        return urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=5).read() == b"ok"
    except OSError:
        return False


def after_reload(words):
    application.write_text(SOUND)
    port = free_port()
    process = subprocess.Popen(
        [sys.prefix + "/bin/gunicorn", *words.split(), "--bind", f"127.0.0.1:{port}", "--no-control-socket"],
        stderr=subprocess.DEVNULL,
    )
    try:
        for _ in range(300):
            if answers(port):
                break
            time.sleep(0.1)
        time.sleep(2)
        application.write_text("import a_package_that_is_not_there\n")
        process.send_signal(signal.SIGHUP)
        try:
            return "gunicorn has failed" if process.wait(30) else "gunicorn has ended", answers(port)
        except subprocess.TimeoutExpired:
            return "gunicorn runs on", answers(port)
    finally:
        process.terminate()
        process.wait(60)


found = {name: after_reload(words) for name, words in CASES.items()}
for name, (what, serves) in found.items():
    print(f"{name:20} {what}, and {'something' if serves else 'nothing'} answers")
expected = dict.fromkeys(CASES, ("gunicorn has failed", False)) | {"preloaded": ("gunicorn runs on", True)}
sys.exit(0 if found == expected else "This has changed.")
PYTHON
venv/bin/python drive.py
