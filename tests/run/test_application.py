"""An application behind the rendered site, as a browser has it: nginx and the application are real."""

from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

from tests.run.stage import DEADLINE_S, DOMAIN, Stage, as_systemd, nginx

pytestmark = pytest.mark.slow

APPLICATION = """
async def app(scope, receive, send):
    if scope["type"] == "http":
        length = int(scope["query_string"] or 0)
        names = b" ".join(name for name, _ in scope["headers"] if name.startswith(b"api"))
        fields = [(b"content-length", b"%d" % len(names)), (b"set-cookie", b"a=" + b"x" * length)]
        await send({"type": "http.response.start", "status": 200, "headers": fields})
        await send({"type": "http.response.body", "body": names})
    elif scope["type"] == "websocket":
        await receive()
        await send({"type": "websocket.accept"})
        while (event := await receive())["type"] == "websocket.receive":
            await send({"type": "websocket.send", "text": str(len(event["text"]))})
"""
FILES = {"page.html": "text/html", "new.mjs": "text/javascript", "deep/er.mjs": "text/javascript"}


@pytest.fixture(scope="module")
def site() -> Iterator[Stage]:
    with TemporaryDirectory(prefix="ws-") as directory:
        stage = Stage(Path(directory), app={"callable": "main:app", "static": {"/static/": "files"}})
        code = stage.root / "code/app"
        (code / "files/deep").mkdir(parents=True)
        (code / "main.py").write_text(APPLICATION)
        for name in FILES:
            (code / "files" / name).write_text(name)
        with nginx(stage), as_systemd(stage):
            yield stage


@pytest.mark.parametrize("length", [0, 4_096, 32_768])
def test_an_application_may_set_as_many_cookies_as_it_may_get(site: Stage, length: int) -> None:
    status, fields, _ = site.get(f"/?{length}")
    assert (status, len(fields["set-cookie"])) == (200, length + 2)


def test_a_field_with_an_underscore_in_its_name_does_not_arrive(site: Stage) -> None:
    assert site.get("/", headers={"api_key": "a", "api-key": "b"})[2] == "api-key"


def test_a_message_is_as_long_as_it_may_be_and_not_longer(site: Stage) -> None:
    longest = site.deploy.limits.message_size
    with connect(f"ws://{DOMAIN}/", address=("127.0.0.1", site.http_port), proxy=None) as client:
        client.send("x" * longest)
        assert client.recv(timeout=DEADLINE_S) == str(longest)
        client.send("x" * (longest + 1))
        with pytest.raises(ConnectionClosed):
            client.recv(timeout=DEADLINE_S)
    assert client.close_code == 1009


@pytest.mark.parametrize("name", FILES)
def test_a_file_has_the_type_that_browsers_want(site: Stage, name: str) -> None:
    status, fields, body = site.get(f"/static/{name}")
    assert (status, body) == (200, name)
    assert FILES[name] in fields["content-type"]
    assert fields["cache-control"] == "no-cache"


def test_a_module_that_is_not_there_is_not_found(site: Stage) -> None:
    assert site.get("/static/gone.mjs")[0] == 404
