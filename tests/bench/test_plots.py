"""The plots and the sentences of docs/performance.md say what its tables say."""

import re
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest

from bench import page as pages
from bench import results
from bench.__main__ import PARTS, main
from bench.behind import WAYS
from bench.figures import Outcome
from bench.page import PAGE, part_of, table
from bench.plots import PLOTS, Panel, Plot, derived, drawn, kind_of, measured, rows, summary
from bench.servers import SERVERS
from tests.clients.chromium import CHROMIUM, chromium

SVG = "{http://www.w3.org/2000/svg}"
DOCS = PAGE.parent
SHOWN = measured(PAGE.read_text())
PLOT = Plot(
    "x.svg", "servers", "Title", "Subtitle.", (Panel("work", ("a", "ratio"), "more"), Panel("b", ("b",), "less"))
)


def a_page(*lines: tuple[str, str, str]) -> str:
    text = table(("server", "ratio", "a", "ratio", "b"), [(name, "0", "0", ratio, b) for name, ratio, b in lines])
    return f"<!-- servers: begin -->\nBefore.\n\n{text}\n\n- after\n<!-- servers: end -->\n"


OURS, REFERENCE = ("**fast**, `python -m service`", "4.00", "7.0"), ("uvicorn as it is (reference)", "1.00", "14.0")


def elements(svg: str, kind: str, css: str = "") -> list[ElementTree.Element]:
    found = ElementTree.fromstring(svg).iter(f"{SVG}{kind}")
    return [each for each in found if css in each.get("class", "").split() or not css]


def values(svg: str) -> list[str]:
    return [each.text or "" for each in elements(svg, "text", "value")]


@pytest.mark.parametrize("name", derived(PAGE.read_text()))
def test_the_page_and_its_plots_follow_from_its_tables(name: str) -> None:
    assert (DOCS / name).read_text() == derived(PAGE.read_text())[name], "run `make docs`"


@pytest.mark.parametrize("plot", SHOWN, ids=lambda plot: plot.file)
def test_a_plot_is_shown_on_the_page(plot: Plot) -> None:
    assert f"]({plot.file})" in PAGE.read_text()


@pytest.mark.parametrize(
    ("plot", "columns"), [(PLOTS[0], (3, 6)), (PLOTS[1], (9, 10))], ids=["messages", "connections"]
)
def test_tables_and_plots_have_the_same_figures(plot: Plot, columns: tuple[int, int]) -> None:
    lines = re.findall(r"(?m)^\| (?!server|-)(.*) \|$", PAGE.read_text().partition("<!-- servers: end -->")[0])
    of_the_table = [line.split("|")[column].strip() for column in columns for line in lines]
    assert len(of_the_table) > 20
    assert values((DOCS / plot.file).read_text()) == of_the_table


def test_a_bar_is_as_long_as_its_figure_says() -> None:
    svg = drawn(a_page(OURS, REFERENCE), PLOT)
    lengths = [float(bar.get("width", "")) for kind in ("main", "other") for bar in elements(svg, "rect", kind)[:2]]
    work, memory, work_of_reference, memory_of_reference = lengths
    assert work == pytest.approx(4 * work_of_reference, abs=0.2)
    assert memory_of_reference == pytest.approx(2 * memory, abs=0.2)
    assert work == memory_of_reference  # the longest of each panel


def test_a_line_shows_where_the_reference_ends() -> None:
    (line,) = elements(drawn(a_page(OURS, REFERENCE), PLOT), "line", "reference")
    bar = elements(drawn(a_page(OURS, REFERENCE), PLOT), "rect", "other")[0]
    assert float(line.get("x1", "")) == pytest.approx(float(bar.get("x", "")) + float(bar.get("width", "")), abs=0.1)


def test_what_was_not_measured_has_no_bar() -> None:
    svg = drawn(a_page(("Node `ws`", "-", "7.1")), PLOT)
    assert values(svg) == ["not measured", "7.1"]
    assert elements(svg, "rect", "other")[0].get("width") == "0.0"


def test_ours_are_told_from_others_and_from_the_floor() -> None:
    lines = [OURS, ("two workers: half", "3", "8"), REFERENCE, ("Node `ws`", "2", "7"), ("floor: C", "9", "0")]
    assert [(row.label, row.kind) for row in rows(a_page(*lines), PLOT)] == [
        ("fast", "main"),
        ("two workers", "own"),
        ("uvicorn as it is", "other"),
        ("Node ws", "other"),
        ("floor", "floor"),
    ]


def test_every_server_is_ours_or_another() -> None:
    kinds = {name: kind_of(server.title) for name, server in {**WAYS, **SERVERS}.items()}
    assert {name for name, kind in kinds.items() if kind == "main"} == {"fast", "deployed", "deployed-tls"}
    assert {name for name, kind in kinds.items() if kind == "own"} == {
        *("workers", "two-cpus", "asgi", "gunicorn", "standalone", "alone"),
    }


@pytest.mark.parametrize("plot", SHOWN, ids=lambda plot: plot.file)
def test_no_two_servers_have_one_label(plot: Plot) -> None:
    labels = [row.label for row in rows(PAGE.read_text(), plot)]
    assert len({*labels}) == len(labels) > 5


@pytest.mark.parametrize("plot", SHOWN, ids=lambda plot: plot.file)
def test_who_does_not_see_it_is_told_the_same(plot: Plot) -> None:
    svg = (DOCS / plot.file).read_text()
    root = ElementTree.fromstring(svg)
    assert root.get("role") == "img"
    title, description = (root.find(f"*[@id='{name}']") for name in root.get("aria-labelledby", "").split())
    assert title is not None
    assert title.text == plot.title
    assert description is not None
    assert [number for number, _ in re.findall(r" ([0-9]+\.[0-9]+)(?=[,.]( |$))", description.text or "")] == values(
        svg
    )


@pytest.mark.parametrize("plot", SHOWN, ids=lambda plot: plot.file)
def test_no_text_is_small_and_nothing_is_asked_of_another_site(plot: Plot) -> None:
    svg = (DOCS / plot.file).read_text()
    assert ElementTree.fromstring(svg).get("viewBox", "").startswith("0 0 800 ")
    assert min(int(size) for size in re.findall(r"(?:font|font-size): ([0-9]+)px", svg)) >= 11
    assert re.findall(r"https?://[^\"]*", svg) == ["http://www.w3.org/2000/svg"]


HEADER = (
    *("server", "W=1: messages/s", "CPU us", "ratio", "W=16: messages/s", "CPU us", "ratio"),
    *("handshakes/s", "CPU us", "ratio", "KiB per idle connection"),
)
FAST = ("**fast shell**", "100400", "10.0", "3.14", "300000", "3.3", "9.00", "4321", "200.0", "1.5", "10.24")
SLOW = ("slow", *["1"] * 10)
WAY = ("", "W=1: CPU us", "W=16: CPU us", "handshake: CPU us", "p50 ms", "p99 ms")
DEPLOYED = ("**as deployed, TLS**", "30.0", "4.0", "300.0", "0.2", "0.4")
GUIDE = ("uvicorn and nginx as the guide has them, TLS", "120.0", "40.0", "600.0", "0.2", "0.4")


def measured_page(*deployed: tuple[str, ...]) -> str:
    parts = {"servers": table(HEADER, [SLOW, FAST]), "deployed": table(WAY, deployed) if deployed else ""}
    return "".join(f"<!-- {part}: begin -->\n{text}\n<!-- {part}: end -->\n" for part, text in parts.items())


def sentences(page: str) -> list[str]:
    return re.split(r"(?:^| )- ", " ".join(summary(page).partition("![")[0].split()))[1:]


def test_the_sentences_have_the_figures_of_what_is_installed() -> None:
    messages, memory, connections = sentences(measured_page())
    assert "passes on 100,000 messages a second" in messages
    assert "and 300,000 if 16 are in flight: with the same CPU time 3.1 and 9.0 times as many" in messages
    assert "takes 10.2 KiB of the service's memory, so 10,000 take 100 MiB" in memory
    assert "as much CPU time as 20 messages; when all come back at once, one worker takes 4,320 of them" in connections


def test_the_whole_way_is_shown_when_it_was_measured() -> None:
    page = measured_page(DEPLOYED, GUIDE)
    assert [plot.part for plot in measured(page)] == ["servers", "servers", "deployed"]
    assert [plot.part for plot in measured(measured_page())] == ["servers", "servers"]
    assert "](performance-deployed.svg)" in summary(page)
    assert "performance-deployed.svg" not in summary(measured_page())
    assert (
        "takes 30.0 us of CPU time in all, or 4.0 us if 16 are in flight: with the same CPU time 4.0 and 10.0"
        in (sentences(page)[1])
    )
    assert values(drawn(page, PLOTS[2])) == ["30.0", "120.0", "4.0", "40.0", "300.0", "600.0"]


def test_a_table_without_what_is_installed_is_refused() -> None:
    with pytest.raises(ValueError, match=r"the table of deployed has no row \*\*as deployed, TLS\*\*"):
        summary(measured_page(GUIDE))


def test_a_run_that_writes_its_tables_draws_their_plots(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    copy = tmp_path / "performance.md"
    copy.write_text(PAGE.read_text())
    servers = part_of(PAGE.read_text(), "servers")
    ratio = re.search(r"\*\*fast shell\*\*.*?\| +\d+ \| +[\d.]+ \| +([\d.]+) \|", servers)
    assert ratio is not None
    outcome = Outcome(servers.replace(f" {ratio[1]} |", " 66.61 |", 1), [], "1 round")
    monkeypatch.setattr(pages, "PAGE", copy)
    monkeypatch.setattr(results, "FILE", tmp_path / "results.jsonl")
    monkeypatch.setitem(PARTS, "servers", lambda options: outcome)
    assert main(["servers", "--write"]) == 0
    for plot in SHOWN:
        assert (tmp_path / plot.file).read_text() == drawn(copy.read_text(), plot)
    assert "66.61" in (tmp_path / PLOTS[0].file).read_text()
    assert "66.6 and " in copy.read_text()


# As seen: fonts differ from machine to machine, and so does the width of a text.
_SEEN = """(() => {
  const box = (text) => { const b = text.getBoundingClientRect(); return [b.left, b.top, b.right, b.bottom]; };
  const all = [...document.querySelectorAll("text")].map((text) => [text.textContent, ...box(text)]);
  const view = document.documentElement.getBoundingClientRect();
  const found = all.filter(([, l, t, r, b]) => l < view.left || t < view.top || r > view.right - 8 || b > view.bottom);
  for (const [i, [one, l, t, r, b]] of all.entries())
    for (const [other, l2, t2, r2, b2] of all.slice(i + 1))
      if (l < r2 && l2 < r && t + 3 < b2 && t2 + 3 < b) found.push([one, other]);
  return JSON.stringify(found);
})()"""


@pytest.mark.browser
@pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium")
@pytest.mark.parametrize("plot", SHOWN, ids=lambda plot: plot.file)
def test_no_text_lies_over_another_or_leaves_the_picture(plot: Plot) -> None:
    with chromium() as browser:
        shown = browser.open((DOCS / plot.file).as_uri())
        grounds = []
        for scheme in ("light", "dark"):
            shown.emulate(800, 500, scheme)
            assert shown.evaluate(_SEEN) == "[]"
            grounds.append(shown.evaluate("getComputedStyle(document.querySelector('.ground')).fill"))
        assert grounds == ["rgb(255, 255, 255)", "rgb(23, 27, 33)"]
