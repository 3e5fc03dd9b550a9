"""The picture of the README shows what happens."""

import json
import re
from html import unescape
from pathlib import Path

import pytest

from service.core.figures import service
from service.web.stats import stats
from tests.service.centers import World
from tools.picture import PICTURE, TOP, drawn, session, top
from tools.sample_stats import answers
from tools.screenshots import _END, SCREENSHOTS, Screenshot, made_from, signed


def text_of(picture: str) -> list[str]:
    """Its lines as they are read; how many checks there are depends on what is installed."""
    texts = re.findall(r"<text [^>]*>(.*?)</text>", picture)
    whole = unescape("".join(texts)).replace("\xa0", " ")
    return [re.sub(r"\d+ of \d+ checks( \(exposure 0\.\d\))?", "checks", line) for line in whole.splitlines()]


@pytest.mark.slow
def test_the_picture_of_a_terminal_shows_what_the_commands_print() -> None:
    installed = [
        (command, re.sub(r"^.*not checked.*\n", "", shown, flags=re.MULTILINE)) for command, shown in session()
    ]
    assert text_of(drawn(installed)) == text_of(PICTURE.read_text())


def test_the_picture_of_top_shows_what_top_draws() -> None:
    assert top() == TOP.read_text(), "run make picture"


@pytest.mark.parametrize("screenshot", SCREENSHOTS, ids=lambda screenshot: screenshot.name)
def test_a_screenshot_was_taken_of_the_page_as_it_is(screenshot: Screenshot) -> None:
    assert made_from(screenshot.path.read_bytes()) == screenshot.digest(), "run make picture"


def test_a_screenshot_of_another_page_would_be_seen() -> None:
    png = SCREENSHOTS[0].path.read_bytes()
    assert made_from(png.replace(b"made-from", b"made_from")) == ""
    bare = png[: png.find(b"tEXtmade-from") - 4] + _END
    assert made_from(bare) == ""
    assert made_from(signed(bare, "another")) == "another"


def test_what_the_pictures_show_is_what_the_service_would_say() -> None:
    real = json.loads(stats(service(World().center)).body)
    for shown in (answers()[0], answers()[-1]):
        assert shown.keys() <= real.keys()
        assert shown["service"].keys() <= real["service"].keys()
        assert shown["workers"][0].keys() <= real["workers"][0].keys()
        assert all(shown["words"][name].items() <= real["words"][name].items() for name in shown["words"])
        assert (
            shown["service"]["delivery_seconds"]["within"].keys()
            == real["service"]["delivery_seconds"]["within"].keys()
        )


@pytest.mark.parametrize("picture", [PICTURE, TOP], ids=lambda picture: picture.name)
def test_the_picture_asks_no_other_site_for_anything(picture: Path) -> None:
    asked = re.findall(r"(?:url\(|href=)[\"']?([^\"')]*)", picture.read_text())
    assert [target for target in asked if not target.startswith("#")] == []
