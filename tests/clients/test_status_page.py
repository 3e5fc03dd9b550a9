"""The status page: its security policy, and what it shows in a real browser."""

import contextlib
import itertools
import json
import os
import re
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect
from websockets.typing import Origin

from service.core.plain_http import Answer
from service.web.status_page import PAGE, status_page
from tests.clients.chromium import Browser, Page
from tests.clients.in_a_browser import found_by_axe, in_a_browser
from tests.service.servers import serving
from tests.service.service_manager import Unit, managing
from tests.service.shells import COMMANDS, DEADLINE_S, ROOT, Client, Shell, clean_environment, running, wait_until
from tests.service.test_hosts import host

HTML = PAGE.read_text()


def policy(answer: Answer) -> dict[str, list[str]]:
    lines = dict(answer.headers)["content-security-policy"].split("; ")
    return {line.split()[0]: line.split()[1:] for line in lines}


def test_the_policy_allows_what_is_in_the_page_and_to_ask_the_service() -> None:
    directives = policy(status_page())
    assert directives["default-src"] == directives["base-uri"] == directives["frame-ancestors"] == ["'none'"]
    assert directives["connect-src"] == ["'self'"]
    for kind in ("style-src", "script-src"):
        (allowed,) = directives[kind]
        assert re.fullmatch(r"'sha256-[A-Za-z0-9+/]{43}='", allowed)


def test_it_is_one_file_that_asks_no_other_site() -> None:
    assert re.findall(r'(?:src|href)="(?!data:)', HTML) == []
    assert not re.search(r"@import|url\(|import\(|https?://(?!www\.w3\.org/)", HTML)
    assert re.findall(r"fetch\(([^,]*),", HTML) == ['"stats"']


def test_no_text_of_the_answer_becomes_html() -> None:
    assert not re.search(r"\.(innerHTML|outerHTML)|insertAdjacentHTML|document\.write|eval\(", HTML)


def stats(shell: Shell) -> Any:
    with urllib.request.urlopen(f"http://127.0.0.1:{shell.port}/stats", timeout=DEADLINE_S) as answer:
        return json.load(answer)


@pytest.fixture(scope="module")
def shell() -> Iterator[Shell]:
    settings = {"WORKERS": "2", "WEBSOCKET_MAX_CONNECTIONS": "10", "WEBSOCKET_ORIGINS": "https://good.example"}
    with running(COMMANDS["runner"], **settings) as shell:
        wait_until(lambda: len(stats(shell)["workers"]) == 2, deadline_s=30)
        yield shell


@pytest.fixture
def browser(running_browser: Browser) -> Iterator[Browser]:
    yield running_browser
    running_browser.close_tabs()


def opened(browser: Browser, shell: Shell | Unit) -> Page:
    """The page, with a plot to see."""
    page = browser.open(f"http://127.0.0.1:{shell.port}/status")
    page.wait_for("points.length > 2")
    return page


def total(page: Page, figure: str) -> str:
    """What the table says of a figure since the start."""
    cell = f"[...byId('figures').rows].find((row) => row.cells[0].textContent.startsWith({json.dumps(figure)}))"
    return str(page.evaluate(f"{cell}?.cells[4].textContent"))


def talk(shell: Shell, messages: int) -> None:
    """A little of everything that is counted."""
    with contextlib.suppress(InvalidStatus), connect(shell.url, origin=Origin("https://evil.example"), proxy=None):
        pass
    with shell.client() as alice, shell.client() as bob:
        alice.register("alice")
        for number in range(messages):
            bob.send_to("alice", number)
        for _ in range(messages):
            alice.receive()
        bob.send_to("nobody", 1)
        with shell.client() as mallory:
            mallory.send_to("alice", "connected")
            assert mallory.close_code() == 4009
        bob.hears_nothing_but_itself()


class TestInABrowser:
    pytestmark = in_a_browser

    def test_under_load_it_shows_what_stats_says(self, browser: Browser, shell: Shell) -> None:
        page = opened(browser, shell)
        for _ in range(3):
            talk(shell, 200)
        wait_until(lambda: stats(shell)["service"]["connections"] == 0)
        told = stats(shell)["service"]
        shown = {
            "connections accepted": sum(told["connections_accepted"].values()),
            "messages from clients": told["messages_received"],
            "messages to clients": told["messages_routed"],
            "refused: 403 foreign page": told["handshakes_refused"]["403"],
            "closed: 4009 address in use": told["connections_closed"]["4009"],
            "dropped: nobody": told["messages_dropped"]["nobody"],
        }
        assert shown["messages to clients"] >= 600
        page.wait_for(f"last.service.messages_received === {told['messages_received']}")
        assert {figure: total(page, figure) for figure in shown} == {
            figure: f"{count:,}" for figure, count in shown.items()
        }
        names = page.evaluate("[...byId('figures').rows].map((row) => row.cells[0].textContent)")
        assert isinstance(names, list)
        assert "mailbox stored" in names
        # What it draws adds up to what was counted while it looked.
        drawn = page.evaluate(
            "points.slice(1).reduce((all, p, at) => all + p.routed * (p.t - points[at].t), 0)"
            " - (points.at(-1).answer.service.messages_routed - points[0].answer.service.messages_routed)"
        )
        assert drawn == pytest.approx(0, abs=0.01)
        pids = page.evaluate("[...byId('workers').tBodies[0].rows].map((row) => Number(row.cells[0].textContent))")
        assert sorted(pids) == sorted(worker["pid"] for worker in stats(shell)["workers"])  # type: ignore[call-overload]
        assert page.evaluate("byId('state').textContent") == "running"

    def test_a_limit_is_a_line_and_who_comes_near_it_is_told(self, browser: Browser, shell: Shell) -> None:
        page = opened(browser, shell)
        with contextlib.ExitStack() as stack:
            for _ in range(9):
                stack.enter_context(shell.client())
            page.wait_for("byId('state').textContent === 'nearly full'")
            assert page.evaluate("document.querySelector('.plot .limit-word').textContent") == "limit 10"
            assert page.evaluate("document.querySelectorAll('.plot line.limit').length >= 1") is True
            assert page.evaluate("document.title.startsWith('9 ')") is True

    def test_while_nobody_sees_it_it_asks_nobody(self, browser: Browser, shell: Shell) -> None:
        page = opened(browser, shell)
        page.evaluate(
            "window.armed = 0; const arm = setTimeout;"
            "window.setTimeout = (act, ms) => { armed += ms === PERIOD_MS; return arm(act, ms); };"
        )
        page.wait_for("armed > 0")
        page.evaluate(
            "Object.defineProperty(document, 'hidden', {value: true, configurable: true});"
            "document.dispatchEvent(new Event('visibilitychange')); ask().then(() => { armed = 0; return ask(); })"
        )
        assert page.evaluate("armed") == 0
        page.evaluate("delete document.hidden; document.dispatchEvent(new Event('visibilitychange'))")
        page.wait_for("armed > 0")
        page.evaluate("byId('pause').click(); ask().then(() => { armed = 0; return ask(); })")
        assert page.evaluate("[armed, byId('pause').textContent]") == [0, "Go on"]

    def test_a_restart_is_a_gap(self, browser: Browser) -> None:
        with running("service/server.py {WEBSOCKET_PORT}") as first:
            page = opened(browser, first)
            talk(first, 20)
            page.wait_for("last.service.messages_routed >= 20")
            first.process.kill()
            first.process.wait()
            page.wait_for("byId('state').textContent.startsWith('not answering since')")
            environ = clean_environment(WEBSOCKET_PORT=str(first.port))
            with subprocess.Popen([sys.executable, "service/server.py"], cwd=ROOT, env=environ) as second:
                try:
                    page.wait_for("points.at(-1).isFirst === false && last.service.messages_routed === 0")
                finally:
                    second.kill()
            assert page.evaluate("document.querySelector('.plot .series[data-runs]').dataset.runs") == "2"
            assert page.evaluate("points.every((p) => !(p.routed < 0))") is True

    def test_a_restart_and_a_reload_say_how_many_clients_they_kept(self, browser: Browser, tmp_path: Path) -> None:
        with managing(tmp_path / "notify") as manager, contextlib.ExitStack() as stack:
            unit = stack.enter_context(contextlib.closing(Unit(tmp_path, manager)))
            unit.start(WORKERS="2")
            page = opened(browser, unit)
            clients = [stack.enter_context(Client(unit.url)) for _ in range(3)]
            page.wait_for("last.service.connections === 3")
            unit.restart(WORKERS="2")
            page.wait_for("marks[0]?.kept === 3")
            assert unit.process is not None
            unit.process.send_signal(signal.SIGHUP)
            page.wait_for("marks[1]?.kept === 3")
            for client in clients:
                client.hears_nothing_but_itself()
            words = page.evaluate("[...PLOTS[0].legend.children].map((each) => each.textContent)")
            assert isinstance(words, list)
            assert [re.sub(r"\d\d:\d\d", "12:00", text) for text in words[-2:]] == [
                "restart at 12:00kept 3 of 3",
                "reload at 12:00kept 3 of 3",
            ]
            plots = "PLOTS.filter(({figure}) => !figure.hidden)"
            lines = page.evaluate(f"{plots}.map(({{element}}) => element.querySelectorAll('.mark').length)")
            assert isinstance(lines, list)
            assert {*lines} == {2}
            assert total(page, "restart at ") == total(page, "reload at ") == "kept 3 of 3"
            assert found_by_axe(page) == []

    def test_clients_that_were_not_kept_show_with_the_reason(self, browser: Browser, shell: Shell) -> None:
        page = opened(browser, shell)
        page.evaluate(
            "byId('pause').click(); window.later = structuredClone(last); later.time += 1;"
            "later.service.connections_taken_over += 7; later.service.connections_not_taken_over.gone += 2;"
            "mark(later, last); keep(point(later, last)); last = later; show()"
        )
        assert total(page, "reload at ") == "kept 7 of 9"
        assert total(page, "not taken over: its client had gone") == "2"

    def test_a_worker_that_does_not_answer_has_a_row_that_says_so(self, browser: Browser, tmp_path: Path) -> None:
        with running(COMMANDS["runner"], WORKERS="2", WEBSOCKET_BUS=str(tmp_path / "bus")) as shell:
            wait_until(lambda: len(stats(shell)["workers"]) == 2, deadline_s=30)
            page = opened(browser, shell)
            stuck = stats(shell)["workers"][1]["pid"]
            stopped = (shell.process.pid, stuck)  # the first would kill the other after ten seconds
            for pid in stopped:
                os.kill(pid, signal.SIGSTOP)
            try:
                page.wait_for("byId('state').textContent === '1 of 2 workers do not answer'")
                row = f"[...byId('workers').tBodies[0].rows].find((row) => row.cells[0].textContent === '{stuck}')"
                texts = page.evaluate(f"[...{row}.cells].map((cell) => cell.textContent)")
                assert isinstance(texts, list)
                assert re.fullmatch(r"no answer for \d+ s", str(texts[1]))
                assert texts[3:5] == ["\u2013", "\u2013"]
            finally:
                for pid in reversed(stopped):
                    os.kill(pid, signal.SIGCONT)

    def test_an_engine_that_is_away_is_what_it_says_first(self, browser: Browser, shell: Shell) -> None:
        page = opened(browser, shell)
        told = page.evaluate(
            "byId('pause').click(); Object.assign(last.service, {engine_up: 0, engine_hosts: 2}); show();"
            "[byId('state').textContent, byId('about').textContent]"
        )
        assert isinstance(told, list)
        assert told[0] == "the engine is away"
        assert told[1].endswith(", joined with 2 other hosts")

    def test_each_host_has_a_row_and_a_line_where_there_is_an_engine(self, browser: Browser, tmp_path: Path) -> None:
        with (
            serving("redis-server", tmp_path) as engine,
            host("runner", "here", tmp_path, engine.url) as here,
            host("runner", "there", tmp_path, engine.url) as there,
            there.client() as alice,
        ):
            page = opened(browser, here)
            alice.register("alice")
            alice.send_to("alice", "hi")
            page.wait_for("last.hosts?.[1]?.messages_routed > 0 && last.hosts[1].connections === 1")
            page.wait_for("byId('hosts').tBodies[0].rows[1]?.cells[3].textContent === '1'")
            rows = "[...byId('hosts').tBodies[0].rows].map((row) => [0, 1, 3].map((at) => row.cells[at].textContent))"
            assert page.evaluate(rows) == [["here", "1", "0"], ["there", "1", "1"]]
            plot = "PLOTS.find(({title}) => title === 'Connections by host')"
            assert page.evaluate(f"[...{plot}.legend.children].map((each) => each.textContent)") == ["here0", "there1"]
            there.process.kill()
            page.wait_for("byId('state').textContent === 'there away'")
            cell = page.evaluate("byId('hosts').tBodies[0].rows[1].cells[2].textContent")
            assert str(cell).startswith("away since")
            assert found_by_axe(page) == []

    def test_without_an_engine_nothing_is_said_of_hosts(self, browser: Browser, shell: Shell) -> None:
        page = opened(browser, shell)
        assert page.evaluate("[byId('joined').checkVisibility(), last.hosts]") == [False, None]
        shown = "PLOTS.filter(({figure}) => figure.checkVisibility()).map(({title}) => title)"
        titles = page.evaluate(shown)
        assert isinstance(titles, list)
        assert "Connections" in titles
        assert not [title for title in titles if "host" in title]

    def test_an_axis_has_steps_that_people_count_in(self, browser: Browser, shell: Shell) -> None:
        page = opened(browser, shell)

        def axes(plot: str, *values: float) -> Any:
            return page.evaluate(
                f"{list(values)}.map((each) => axis(each, {plot})).map(({{step, top}}) => [step, top])"
            )

        assert axes("{}", 0, 1, 7, 220, 401, 0.8) == [
            *([0.5, 1], [0.25, 1], [2, 8], [100, 300], [200, 600], [0.2, 0.8]),
        ]
        assert axes("{isWhole: true}", 2, 9) == [[1, 2], [5, 10]]
        assert axes("{show: bytes}", 3000, 5 * 2**20) == [[1000, 3000], [2 * 2**20, 6 * 2**20]]
        for plot in ("{}", "{isWhole: true}", "{show: bytes}"):
            wrong = page.evaluate(
                "Array.from({length: 3000}, (_, at) => 1.013 ** at / 1000)"
                f".filter((each) => {{ const {{step, top}} = axis(each, {plot});"
                " return !(top >= each && top <= each * 2.6 + 1 && top / step <= 4.001 && step > 0); })"
            )
            assert wrong == []

    def test_an_axis_stays_while_the_values_go_up_and_down_a_little(self, browser: Browser, shell: Shell) -> None:
        page = opened(browser, shell)

        def tops(*values: float) -> Any:
            return page.evaluate(f"((plot) => {list(values)}.map((each) => scale(plot, each).top))({{}})")

        assert tops(195, 205, 198, 202, 190, 170) == [300] * 6
        assert tops(180, 205, 190, 160, 150) == [200, 300, 300, 200, 200]

    def test_all_figures_are_copied_as_a_table(self, browser: Browser, shell: Shell) -> None:
        page = opened(browser, shell)
        page.evaluate("navigator.clipboard.writeText = async (text) => { window.copied = text; }; byId('copy').click()")
        page.wait_for("window.copied?.includes('connections\\t')")
        assert page.evaluate("copied.split('\\n').every((line) => line.split('\\t').length === 5)") is True

    @pytest.mark.parametrize("width", [320, 500, 1100])
    def test_the_times_below_a_plot_do_not_run_into_each_other(
        self, width: int, browser: Browser, shell: Shell
    ) -> None:
        page = opened(browser, shell)
        page.emulate(width, 640, "light")
        plot = "document.querySelector('.plot > svg')"
        page.wait_for(f"{plot}.clientWidth === {plot}.viewBox.baseVal.width")
        times = page.evaluate(
            f"[...{plot}.querySelectorAll('text')]"
            ".filter((each) => each.textContent.includes(':')).map((each) => each.getBBox())"
            ".map(({x, width}) => [x, x + width])"
        )
        assert isinstance(times, list)
        assert times
        assert all(end + 4 < begin for (_, end), (begin, _) in itertools.pairwise(times))

    @pytest.mark.parametrize("width", [320, 1100])
    @pytest.mark.parametrize("scheme", ["light", "dark"])
    def test_axe_finds_nothing_wrong_and_nothing_is_cut_off(
        self, scheme: str, width: int, browser: Browser, shell: Shell
    ) -> None:
        page = opened(browser, shell)
        page.emulate(width, 640, scheme)
        talk(shell, 10)
        page.wait_for("seen('refused').length > 0 && seen('closed').length > 0")
        assert found_by_axe(page) == []
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth") is True
        beyond = (
            "[...document.querySelectorAll('main .card, main dd, main figcaption, .plot li')].filter((element) =>"
            " element.getBoundingClientRect().right > document.documentElement.clientWidth"
            " || element.scrollWidth > element.clientWidth + 1).map(({textContent}) => textContent)"
        )
        assert page.evaluate(beyond) == []

    def test_the_scheme_is_the_users(self, browser: Browser, shell: Shell) -> None:
        page = opened(browser, shell)
        grounds = []
        for scheme in ("light", "dark"):
            page.emulate(1100, 700, scheme)
            grounds.append(page.evaluate("getComputedStyle(document.body).backgroundColor"))
        assert grounds == ["rgb(243, 244, 247)", "rgb(15, 18, 22)"]
