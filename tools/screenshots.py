"""Photograph the status page and the demo page in Chromium, for the docs: `make picture`.

No two versions of Chromium paint the same bytes. So each picture carries the digest of what it was made from, in a text
chunk of its PNG, and a test sees whether that is still what is there. Source: PNG (Third Edition), section 11.3.3.
"""

import base64
import hashlib
import json
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from tests.clients.chromium import Browser, Page, chromium
from tests.service.shells import COMMANDS, Shell, running
from tools.sample_stats import answers

ROOT = Path(__file__).parent.parent
_KEYWORD = b"made-from"
_END = b"\x00\x00\x00\x00IEND\xaeB`\x82"


class Screenshot(NamedTuple):
    """A picture below docs/, what shows it, and the files that it follows from."""

    name: str
    width: int
    height: int
    shown: Callable[[Browser, Shell], Page]
    sources: tuple[str, ...]

    @property
    def path(self) -> Path:
        return ROOT / "docs" / self.name

    def digest(self) -> str:
        """Of its sources, as they are now."""
        return hashlib.sha256(b"\0".join((ROOT / source).read_bytes() for source in self.sources)).hexdigest()


def _status(browser: Browser, shell: Shell) -> Page:
    page = browser.open(f"http://127.0.0.1:{shell.port}/status")
    page.emulate(1280, 1010, "light")
    page.wait_for("points.length > 0")
    # An answer of the service that comes later would be a year after the sample, and push all of it out.
    page.evaluate(
        "byId('pause').click(); points.length = marks.length = 0; last = null;"
        f"for (const answer of {json.dumps(answers())})"
        " { if (last) mark(answer, last); keep(point(answer, last)); last = answer; } show();"
        "keep = show = state = () => {}; byId('pause').textContent = 'Pause';"
        "requestAnimationFrame(() => requestAnimationFrame(() => { window.isDrawn = true; }))"
    )
    page.wait_for("window.isDrawn && document.querySelectorAll('.plot .series').length > 10")
    return page


def _conversation(browser: Browser, shell: Shell) -> Page:
    def opened(uuid: str) -> Page:
        page = browser.open(f"http://127.0.0.1:{shell.port}/page/#{uuid}")
        page.wait_for("document.getElementById('state').textContent === 'connected'")
        return page

    def say(page: Page, to: str, text: str) -> None:
        page.evaluate(
            f"byId('recipient').value = {json.dumps(to)}; byId('message').value = {json.dumps(text)};"
            "document.querySelector('#send button').click()"
        )
        page.wait_for("document.querySelector('#log li:last-child .outcome')?.textContent === 'delivered'")

    alice, bob = opened("alice"), opened("bob")
    alice.emulate(900, 560, "light")
    alice.evaluate("join('office')")
    say(bob, "alice", "The build is done. Shall I install it?")
    say(alice, "bob", "Yes, please. The plan says that nobody is disconnected.")
    say(bob, "alice", "Installed: generation 12, 41 s.")
    alice.wait_for("byId('log').children.length === 3")
    alice.evaluate("byId('connection').open = true; byId('message').blur()")
    return alice


SCREENSHOTS = (
    Screenshot("status.png", 1280, 1010, _status, ("service/web/status.html", "tools/sample_stats.py")),
    Screenshot(
        "page.png",
        900,
        560,
        _conversation,
        tuple(f"clients/{name}" for name in ("page/index.html", "page/page.css", "page/page.js", "js/client.js")),
    ),
)


def made_from(png: bytes) -> str:
    """The digest that a picture carries; nothing where it has none."""
    begin = png.find(b"tEXt" + _KEYWORD + b"\0")
    if begin < 0:
        return ""
    (length,) = struct.unpack("!I", png[begin - 4 : begin])
    return png[begin + 4 + len(_KEYWORD) + 1 : begin + 4 + length].decode()


def signed(png: bytes, digest: str) -> bytes:
    """The picture with the digest in it."""
    chunk = b"tEXt" + _KEYWORD + b"\0" + digest.encode()
    framed = struct.pack("!I", len(chunk) - 4) + chunk + struct.pack("!I", zlib.crc32(chunk))
    return png.removesuffix(_END) + framed + _END


def main() -> None:
    """Take all of them."""
    with running(COMMANDS["runner"], WEBSOCKET_PAGE=str(ROOT / "clients")) as shell, chromium() as browser:
        for screenshot in SCREENSHOTS:
            page = screenshot.shown(browser, shell)
            screenshot.path.write_bytes(signed(base64.b64decode(page.photograph()), screenshot.digest()))


if __name__ == "__main__":
    main()
