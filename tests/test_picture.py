"""The picture of the README shows what happens."""

import re
from html import unescape

import pytest

from tools.picture import PICTURE, drawn, session


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


def test_the_picture_asks_no_other_site_for_anything() -> None:
    asked = re.findall(r"(?:url\(|href=)[\"']?([^\"')]*)", PICTURE.read_text())
    assert [target for target in asked if not target.startswith("#")] == []
