"""What tests in a browser have in common."""

import pytest

from tests.clients.chromium import CHROMIUM, Page
from tests.clients.npm_tools import node_modules
from tests.programs import missing

in_a_browser = [
    pytest.mark.browser,
    pytest.mark.skipif(CHROMIUM is None, reason=missing("chromium")),
]


def found_by_axe(page: Page) -> object:
    """What is wrong with a page for people who cannot see it, or use no mouse: rules of axe, and the elements."""
    page.evaluate((node_modules() / "axe-core/axe.min.js").read_text())
    return page.evaluate(
        "axe.run({runOnly: ['wcag2a', 'wcag2aa', 'wcag21a', 'wcag21aa', 'wcag22aa', 'best-practice']}).then("
        "({violations}) => violations.map(({id, nodes}) => [id, nodes.map(({html}) => html)]))"
    )
