"""Debian's Chromium, driven over the DevTools protocol."""

import contextlib
import itertools
import json
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

from websockets.sync.client import ClientConnection, connect

from tests.service.shells import DEADLINE_S, wait_until

CHROMIUM = shutil.which("chromium")

FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--remote-debugging-port=0",
)


class Page:
    """One tab."""

    def __init__(self, browser: "Browser", session: str) -> None:
        self._browser = browser
        self._session = session

    def evaluate(self, expression: str) -> object:
        """The value of a JavaScript expression in the page."""
        arguments = {"expression": expression, "returnByValue": True, "awaitPromise": True}
        result = self._browser.call("Runtime.evaluate", arguments, self._session)
        assert "exceptionDetails" not in result, result
        value = result["result"]
        assert isinstance(value, dict)
        return value.get("value")

    def emulate(self, width: int, height: int, scheme: str) -> None:
        """Let the window have this size, in pixels, and the user prefer `light` or `dark`."""
        size: dict[str, object] = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
        self._browser.call("Emulation.setDeviceMetricsOverride", size, self._session)
        features: dict[str, object] = {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
        self._browser.call("Emulation.setEmulatedMedia", features, self._session)

    def photograph(self) -> str:
        """What the window shows, as PNG in base64."""
        self._browser.call("Page.bringToFront", {}, self._session)
        return str(self._browser.call("Page.captureScreenshot", {"format": "png"}, self._session)["data"])

    def press(self, key: str, text: str = "") -> None:
        """Press a key where the focus is, such as `Tab`; with the text that it writes, if any."""
        codes = {"Tab": 9, "Enter": 13}
        pressed: dict[str, object] = {
            "type": "keyDown",
            "key": key,
            "windowsVirtualKeyCode": codes.get(key, 0),
            "text": text,
        }
        self._browser.call("Input.dispatchKeyEvent", pressed, self._session)
        self._browser.call("Input.dispatchKeyEvent", {**pressed, "type": "keyUp", "text": ""}, self._session)

    def type(self, text: str) -> None:
        """Write where the focus is."""
        self._browser.call("Input.insertText", {"text": text}, self._session)

    def wait_for(self, expression: str) -> None:
        """Wait until the expression is true."""
        wait_until(lambda: self.evaluate(expression))


class Browser:
    """A running Chromium."""

    def __init__(self, connection: ClientConnection) -> None:
        self._connection = connection
        self._numbers = itertools.count(1)
        self._targets: list[object] = []

    def open(self, url: str) -> Page:
        """A new tab that has loaded this URL."""
        target = self.call("Target.createTarget", {"url": "about:blank"})["targetId"]
        self._targets.append(target)
        session = self.call("Target.attachToTarget", {"targetId": target, "flatten": True})["sessionId"]
        assert isinstance(session, str)
        page = Page(self, session)
        self.call("Page.navigate", {"url": url}, session)
        page.wait_for("location.href !== 'about:blank' && document.readyState === 'complete'")
        return page

    def close_tabs(self) -> None:
        """End every page: its client must not keep an address that a later page wants."""
        while self._targets:
            self.call("Target.closeTarget", {"targetId": self._targets.pop()})

    def call(self, method: str, arguments: dict[str, object], session: str | None = None) -> dict[str, object]:
        """Call a method of the protocol, and wait for its result; events are passed over."""
        number = next(self._numbers)
        call = {"id": number, "method": method, "params": arguments}
        self._connection.send(json.dumps(call if session is None else {**call, "sessionId": session}))
        while True:
            answer = json.loads(self._connection.recv(timeout=DEADLINE_S))
            if answer.get("id") == number:
                assert "error" not in answer, answer
                result: dict[str, object] = answer["result"]
                return result


@contextlib.contextmanager
def chromium(*flags: str) -> Iterator[Browser]:
    """Start Chromium with an empty profile."""
    assert CHROMIUM is not None
    with tempfile.TemporaryDirectory(prefix="chromium-", ignore_cleanup_errors=True) as profile:
        process = subprocess.Popen(
            [CHROMIUM, *FLAGS, *flags, f"--user-data-dir={profile}"],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        port_file = Path(profile, "DevToolsActivePort")
        try:
            wait_until(lambda: port_file.exists() and len(port_file.read_text().splitlines()) == 2, deadline_s=30)
            port, path = port_file.read_text().splitlines()
            with connect(f"ws://127.0.0.1:{port}{path}", proxy=None, max_size=None) as connection:
                yield Browser(connection)
        finally:
            process.terminate()
            process.wait(DEADLINE_S)
