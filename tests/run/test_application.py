"""An application behind the rendered site, as a browser has it: nginx and the application are real."""

from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from tests.run.stage import Stage, as_systemd, nginx

pytestmark = pytest.mark.slow

APPLICATION = """
async def app(scope, receive, send):
    if scope["type"] == "http":
        length = int(scope["query_string"] or 0)
        fields = [(b"content-length", b"2"), (b"set-cookie", b"a=" + b"x" * length)]
        await send({"type": "http.response.start", "status": 200, "headers": fields})
        await send({"type": "http.response.body", "body": b"ok"})
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
    status, fields, body = site.get(f"/?{length}")
    assert (status, len(fields["set-cookie"]), body) == (200, length + 2, "ok")


@pytest.mark.parametrize("name", FILES)
def test_a_file_has_the_type_that_browsers_want(site: Stage, name: str) -> None:
    status, fields, body = site.get(f"/static/{name}")
    assert (status, body) == (200, name)
    assert FILES[name] in fields["content-type"]
    assert fields["cache-control"] == "no-cache"


def test_a_module_that_is_not_there_is_not_found(site: Stage) -> None:
    assert site.get("/static/gone.mjs")[0] == 404
