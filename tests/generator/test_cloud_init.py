"""User data that sets up a new machine: what is in it, which URLs it takes, and what its script does."""

import http.server
import subprocess
import sys
import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import yaml

from generator.config.load import load
from generator.packing.archive import Archive, Member, archive
from generator.packing.cloud_init import FIRST_BOOT, PLACE, checked, cloud_config, place_of
from generator.report import UsageError
from tests.generator.front_door import ROOT, Outcome, process, wsbundle

SECRET = "correct-horse-battery-staple"
INSTALL = 'echo $HOME $(umask) "$@"; touch installed; [ "$1" != --fail ]\n'


@pytest.fixture
def small() -> Archive:
    """An archive whose installer says how it was called."""
    return archive("queue-websocket", [Member(path="install", content=INSTALL.encode(), mode=0o755)])


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def served(tmp_path: Path) -> Iterator[str]:
    """The URL of a directory, `served` below the test's own."""
    (tmp_path / "served").mkdir()
    handler = partial(Quiet, directory=str(tmp_path / "served"))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()


def document(archive: Archive, url: str, *assignments: str) -> dict[str, Any]:
    """What cloud-init reads."""
    text = cloud_config(load(str(ROOT / "deploy.yaml"), None, assignments).deploy, archive, url)
    assert text.startswith("#cloud-config\n")
    read: dict[str, Any] = yaml.safe_load(text)
    return read


def first_boot(directory: Path, archive: Archive, url: str, *words: str) -> Outcome:
    (file,) = document(archive, url)["write_files"]
    (directory / "first-boot.py").write_text(file["content"])
    return process([sys.executable, "-I", directory / "first-boot.py", *words], env={"PATH": "/usr/bin:/bin"})


def test_it_is_one_script_and_the_command_that_runs_it(small: Archive) -> None:
    read = document(small, "https://example.org/it's a.tar.gz".replace(" ", "%20"))
    (file,), (command,) = read["write_files"], read["runcmd"]
    assert set(read) == {"write_files", "runcmd"}
    assert (file["path"], file["permissions"]) == (f"{PLACE}/queue-websocket/first-boot.py", "0700")
    assert command == ["python3", "-I", file["path"]]
    written = [line for line in file["content"].splitlines() if line not in FIRST_BOOT.read_text().splitlines()]
    names: dict[str, str] = {}
    exec("\n".join(written), names)
    assert (names["URL"], names["SHA256"], names["DIRECTORY"]) == (
        *("https://example.org/it's%20a.tar.gz", small.digest, small.directory),
    )


def test_no_secret_is_in_it_and_files_that_must_be_there_are_named(small: Archive) -> None:
    given = ["tls=files", "certificate.file=/etc/ssl/chain.pem", "certificate.key=/etc/ssl/key.pem"]
    given += ["auth=token", "keys=/etc/keys.json", f"env.TOKEN={SECRET}"]
    text = cloud_config(load(str(ROOT / "deploy.yaml"), None, given).deploy, small, "https://example.org/a")
    assert SECRET not in text
    for line in (
        "/etc/ssl/chain.pem (certificate.file)",
        "/etc/ssl/key.pem (certificate.key)",
        "/etc/keys.json (keys)",
    ):
        assert f"#   {line}\n" in text
    assert "must be on the machine before" not in cloud_config(
        load(str(ROOT / "deploy.yaml")).deploy, small, "https://x/a"
    )


def test_a_url_that_ends_with_a_slash_is_where_the_archive_lies() -> None:
    assert place_of("https://example.org", "b c.tar.gz") == "https://example.org/b%20c.tar.gz"
    assert place_of("https://example.org/a/?key=1", "b.tar.gz") == "https://example.org/a/b.tar.gz?key=1"
    assert place_of("https://example.org/other.tgz", "b.tar.gz") == "https://example.org/other.tgz"


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("example.org/a.tar.gz", "give a URL that begins with https://"),
        ("ftp://example.org/a.tar.gz", "give a URL that begins with https://"),
        ("file:///srv/a.tar.gz", "give a URL that begins with https://"),
        ("https:///a.tar.gz", "give a URL that begins with https://"),
        ("", "give a URL that begins with https://"),
        ("https://me:hunter2@example.org/a", "every program of the machine reads user data"),
        ("https://example.org:none/a", "is not a URL"),
        ("https://[::1/a", "is not a URL"),
        ("https://example.org/a b", "has letters that no URL has"),
        ("https://example.org/\u00fc", "has letters that no URL has"),
        ("https://example.org/a#b", "has a fragment"),
    ],
)
def test_a_url_that_no_machine_could_fetch_is_refused_with_the_fix(url: str, why: str) -> None:
    with pytest.raises(UsageError) as refused:
        checked(url)
    assert why in str(refused.value)
    assert "hunter2" not in str(refused.value)


def test_the_command_refuses_it_before_it_downloads_anything() -> None:
    outcome = wsbundle("bundle", "--cloud-init", "example.org", "-f", str(ROOT / "deploy.yaml"))
    assert (outcome.code, outcome.out) == (2, "")


# What the script does


def test_the_archive_is_fetched_compared_unpacked_and_installed_and_once_again_only_installed(
    small: Archive, served: str, tmp_path: Path
) -> None:
    (tmp_path / "served/a.tar.gz").write_bytes(small.content)
    outcome = first_boot(tmp_path, small, f"{served}a.tar.gz", "--overwrite")
    assert (outcome.code, outcome.err) == (0, "")
    fetched, unpacked, installed = outcome.out.splitlines()
    assert fetched.startswith("  done ")
    assert fetched.endswith(" s  fetch the archive")
    assert unpacked.endswith(" s  unpack it")
    assert installed == "/root 0022 --overwrite"
    assert {path.name for path in tmp_path.iterdir()} == {"served", "first-boot.py", small.directory}
    (tmp_path / "served/a.tar.gz").unlink()
    assert first_boot(tmp_path, small, f"{served}a.tar.gz") == (0, "/root 0022\n", "")


def test_another_file_than_the_archive_is_not_unpacked(small: Archive, served: str, tmp_path: Path) -> None:
    (tmp_path / "served/a.tar.gz").write_bytes(small.content + b"\0")
    outcome = first_boot(tmp_path, small, f"{served}a.tar.gz")
    assert outcome.code == 1
    assert "wsbundle: this machine is not set up: what the URL leads to is not the archive: its SHA-256" in outcome.err
    assert outcome.err.endswith(f"To try again: sudo python3 -I {tmp_path}/first-boot.py\n")
    assert {path.name for path in tmp_path.iterdir()} == {"served", "first-boot.py"}


def test_a_url_where_nothing_lies_is_said_at_once(small: Archive, served: str, tmp_path: Path) -> None:
    outcome = first_boot(tmp_path, small, f"{served}a.tar.gz")
    assert outcome.code == 1
    assert "the archive could not be fetched: File not found" in outcome.err
    assert "Traceback" not in outcome.err


def test_two_at_once_take_turns(served: str, tmp_path: Path) -> None:
    """As where somebody tries it by hand while the machine boots."""
    install = "echo installing; echo >>begun; until [ -e go ]; do sleep 0.05; done\n"
    slow = archive("queue-websocket", [Member(path="install", content=install.encode(), mode=0o755)])
    (tmp_path / "served/a.tar.gz").write_bytes(slow.content)
    (file,) = document(slow, f"{served}a.tar.gz")["write_files"]
    (tmp_path / "first-boot.py").write_text(file["content"])
    words = [sys.executable, "-I", str(tmp_path / "first-boot.py")]
    begun = tmp_path / slow.directory / "begun"
    with subprocess.Popen(words, stdout=subprocess.DEVNULL) as first:
        while not begun.exists():
            assert first.poll() is None
        with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as second:
            assert second.stdout is not None
            said = second.stdout.readline()
            (begun.parent / "go").touch()
            second.communicate()
    assert said == "  waiting for another run of this script\n"
    assert (first.returncode, second.returncode, begun.read_text()) == (0, 0, "\n\n")


def test_a_server_with_too_many_requests_is_asked_again(small: Archive, tmp_path: Path) -> None:
    codes = [429, 503, 200]

    class Busy(Quiet):
        def do_GET(self) -> None:
            code = codes.pop(0)
            self.send_response(code)
            self.end_headers()
            self.wfile.write(small.content if code == 200 else b"")

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Busy) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        (file,) = document(small, f"http://127.0.0.1:{server.server_port}/")["write_files"]
        script = file["content"].replace("_PAUSE_S = 5.0", "_PAUSE_S = 0.01")
        (tmp_path / "first-boot.py").write_text(script)
        outcome = process([sys.executable, "-I", tmp_path / "first-boot.py"])
        server.shutdown()
    assert (outcome.code, outcome.err) == (0, "")
    assert "waiting for the archive, for 5 minutes at most: Too Many Requests" in outcome.out


def test_an_installation_that_fails_fails_the_boot(small: Archive, served: str, tmp_path: Path) -> None:
    (tmp_path / "served/a.tar.gz").write_bytes(small.content)
    outcome = first_boot(tmp_path, small, f"{served}a.tar.gz", "--fail")
    assert outcome.code == 1
    assert "`sh install` ended with 1; its lines above say why" in outcome.err


def test_the_script_is_read_by_the_oldest_python_of_a_supported_system() -> None:
    import ast

    ast.parse(FIRST_BOOT.read_text(), feature_version=(3, 10))
    assert subprocess.run([sys.executable, "-I", "-m", "py_compile", FIRST_BOOT], check=False).returncode == 0
