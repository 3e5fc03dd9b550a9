"""Where pip fails, the reason is named, and the fix: a real pip meets what it cannot install from."""

import errno
import os
import ssl
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from generator.environment import _way_out
from generator.pip import of_pip
from generator.reasons import reason
from tests.generator.certificate_maker import pair
from tests.generator.front_door import ENVIRONMENT, ROOT, process
from tests.generator.wheel_maker import lock_of, make_wheel
from tests.ports import free_port
from tests.programs import needs

LOCKED = "tiny==1.0 --hash=sha256:" + 64 * "0" + "\n"


class Refusing(BaseHTTPRequestHandler):
    """An index, or a proxy, that refuses everything, as the path says."""

    def do_GET(self) -> None:
        self.send_error(int(self.path.split("/")[1]))

    def do_CONNECT(self) -> None:
        self.send_error(403)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[ThreadingHTTPServer]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Refusing) as serving:
        threading.Thread(target=serving.serve_forever, daemon=True).start()
        yield serving
        serving.shutdown()


def why(directory: Path, lock: str = LOCKED, **settings: str) -> str:
    """The reason that is found for what pip says where it may not even try twice."""
    (directory / "lock.txt").write_text(lock)
    (directory / "log").unlink(missing_ok=True)
    pip = [sys.executable, "-I", "-m", "pip", "install", "--quiet", "--log", str(directory / "log"), "--require-hashes"]
    given = {"PATH": ENVIRONMENT["PATH"], "HOME": str(directory), "PIP_CONFIG_FILE": os.devnull, "PIP_RETRIES": "0"}
    command = [*pip, "--target", str(directory / "there"), "-r", str(directory / "lock.txt")]
    outcome = process(command, env=of_pip({**given, **settings}))
    assert outcome.code == 1
    return str(reason(outcome.err + (directory / "log").read_text()))


def test_an_index_that_cannot_be_reached(tmp_path: Path) -> None:
    port = free_port()
    said = why(tmp_path, PIP_INDEX_URL=f"http://somebody:secret@127.0.0.1:{port}/simple")
    assert said.startswith(f"127.0.0.1:{port} cannot be reached (Connection refused); connect this machine, or ")
    assert "docs/offline.md" in said
    assert "secret" not in said


def test_a_name_that_nobody_knows(tmp_path: Path) -> None:
    said = why(tmp_path, PIP_INDEX_URL="https://index.invalid/simple")
    assert said.startswith("index.invalid cannot be reached (")


def test_a_proxy_that_is_not_there_and_one_that_refuses(server: ThreadingHTTPServer, tmp_path: Path) -> None:
    said = why(
        tmp_path, https_proxy=f"http://127.0.0.1:{free_port()}", PIP_INDEX_URL="https://index.example.org/simple"
    )
    assert said.startswith("the proxy on the way to index.example.org does not let pip through (Connection refused); ")
    said = why(tmp_path, https_proxy=f"http://127.0.0.1:{server.server_port}", PIP_INDEX_URL="https://a.example.org/s")
    assert said.startswith("the proxy on the way to a.example.org does not let pip through (403 Forbidden); set https_")


def test_an_index_that_answers_with_an_error(server: ThreadingHTTPServer, tmp_path: Path) -> None:
    index = f"127.0.0.1:{server.server_port}"
    said = why(tmp_path, PIP_INDEX_URL=f"http://{index}/401/simple")
    assert said.startswith(f"{index} answers 401 Client Error: Unauthorized; try again, or name another index in PIP_")


def test_an_index_without_the_package(server: ThreadingHTTPServer, tmp_path: Path) -> None:
    said = why(tmp_path, PIP_INDEX_URL=f"http://127.0.0.1:{server.server_port}/404/simple")
    assert said.startswith("no index or directory that pip knows has tiny==1.0 for Python ")
    assert why(tmp_path, PIP_NO_INDEX="1") == said


@needs("openssl")
def test_a_certificate_that_is_not_trusted(server: ThreadingHTTPServer, tmp_path: Path) -> None:
    file, key = pair(tmp_path / "certificate", "DNS:localhost")  # pip 25 reads no address there
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(file, key)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    index = f"localhost:{server.server_port}"
    said = why(tmp_path, PIP_INDEX_URL=f"https://{index}/404/simple")
    assert said.startswith(f"the certificate of {index} is not trusted here (self-signed certificate); install the ")
    said = why(tmp_path, PIP_INDEX_URL=f"https://{index}/404/simple", PIP_CERT=str(file))
    assert said.startswith("no index or directory that pip knows has tiny==1.0")


def test_a_wheel_that_is_not_the_locked_one(tmp_path: Path) -> None:
    make_wheel(tmp_path)
    said = why(tmp_path, PIP_NO_INDEX="1", PIP_FIND_LINKS=str(tmp_path))
    assert said.startswith("a package is not the one that is locked: ")


def test_a_package_that_cannot_be_built_here(tmp_path: Path) -> None:
    source = tmp_path / "tiny-1.0"
    source.mkdir()
    (source / "pyproject.toml").write_text('[build-system]\nrequires = []\nbuild-backend = "b"\nbackend-path = ["."]\n')
    (source / "b.py").write_text("def build_wheel(*_):\n    raise SystemExit('no compiler')\n")
    (source / "PKG-INFO").write_text("Metadata-Version: 2.1\nName: tiny\nVersion: 1.0\n")
    process(["tar", "-czf", "tiny-1.0.tar.gz", "tiny-1.0"], cwd=tmp_path)
    said = why(tmp_path, lock_of(tmp_path / "tiny-1.0.tar.gz"), PIP_NO_INDEX="1", PIP_FIND_LINKS=str(tmp_path))
    assert said.startswith("the package named above has no wheel for Python ")
    assert said.endswith(
        ", and could not be built; on Debian and Ubuntu: apt-get install -y build-essential python3-dev"
    )


@pytest.mark.parametrize(
    ("words", "begins"),
    [
        (
            "Could not fetch URL https://a.example.org/simple/tiny/: connection error: Failed to resolve IP address "
            "for 'a.example.org' ([Errno -3] Temporary failure in name resolution) - skipping",
            "a.example.org cannot be reached (Temporary failure in name resolution); ",
        ),
        (
            "Could not fetch URL https://a.example.org/simple/tiny/: proxy connection error: ('Unable to connect to "
            "proxy', OSError('Tunnel connection failed: 407 Proxy Authentication Required')) - skipping",
            "the proxy on the way to a.example.org does not let pip through (407 Proxy Authentication Required); ",
        ),
        (
            "pip._vendor.urllib3.exceptions.ReadTimeoutError: HTTPSConnectionPool(host='files.example.org', port=443): "
            "Read timed out.",
            "files.example.org cannot be reached (Read timed out); ",
        ),
        (
            "WARNING: Retrying (Retry(total=0)) after connection broken by 'ReadTimeoutError(\"HTTPSConnectionPool("
            "host='a.example.org', port=443): Read timed out.\")': /simple/\n"
            "ERROR: THESE PACKAGES DO NOT MATCH THE HASHES FROM THE REQUIREMENTS FILE.",
            "a package is not the one that is locked: ",
        ),
        ("ERROR: [Errno 28] No space left on device: '/x'", "No space left on device; make room"),
        (
            "ERROR: Failed to build installable wheels for some projects (tiny)",
            "the package named above has no wheel for",
        ),
    ],
)
def test_what_other_releases_of_pip_say(words: str, begins: str) -> None:
    assert str(reason(words)).startswith(begins)


def test_what_is_not_known_is_no_reason() -> None:
    assert reason("ERROR: Exception:\nValueError: what is this\n") is None
    assert reason("") is None


@pytest.mark.slow
def test_the_reason_is_the_last_line_of_setting_up(tmp_path: Path) -> None:
    port = free_port()
    (tmp_path / "lock.txt").write_text(LOCKED)
    script = str(ROOT / "generator/environment.py")
    variables = {"PATH": ENVIRONMENT["PATH"], "HOME": str(tmp_path), "PIP_CONFIG_FILE": os.devnull, "PIP_RETRIES": "0"}
    outcome = process(
        [sys.executable, "-IB", script, str(tmp_path / "made"), str(tmp_path / "lock.txt")],
        env={**variables, "WSBUNDLE_UV": "no", "PIP_INDEX_URL": f"http://127.0.0.1:{port}/simple"},
    )
    assert (outcome.code, outcome.out) == (1, "")
    assert outcome.err.splitlines()[-1].startswith(
        f"wsbundle: setting up {tmp_path}/made failed at `-I -m pip install`: 127.0.0.1:{port} cannot be reached ("
    )


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (errno.EACCES, "belongs to "),
        (errno.EROFS, "copy this checkout to a file system that can be written"),
        (errno.ENOSPC, "; "),
        (errno.ENOENT, ""),
    ],
)
def test_a_file_that_cannot_be_written(number: int, words: str, tmp_path: Path) -> None:
    assert words in _way_out(tmp_path / "venv", OSError(number, os.strerror(number), "x"))


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_a_checkout_of_another_user_is_named_with_its_owner(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    for above in tmp_path.parents[:3]:
        above.chmod(above.stat().st_mode | 0o055)
    program = f"""
import ensurepip, os, pip, sys, venv
sys.path.insert(0, {str(ROOT)!r})
from generator.environment import main
os.setuid(12345)
sys.exit(main([{str(tmp_path / "venv")!r}, "requirements.txt"]))
"""
    outcome = process([sys.executable, "-c", program], cwd=tmp_path)
    assert (outcome.code, outcome.out) == (1, "")
    assert outcome.err == (
        f"wsbundle: {tmp_path}/venv.lock: Permission denied; {tmp_path} belongs to root: work as that user, or in a "
        "copy of your own\n"
    )
