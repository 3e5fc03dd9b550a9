"""The targets of `make fuzz`, with the corpus, with what hypothesis draws, and with a service that is at fault."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from service.core.session import Session, SessionV0
from tests.fuzz import run_fuzz
from tests.fuzz.fuzz_targets import CORPUS, TARGETS, FaultError, check_frames, frames, messages, seeds, token

KEPT = [(target, name, data) for target in TARGETS for name, data in seeds(target).items()]
unhurried = settings(deadline=None, database=None, max_examples=50, suppress_health_check=[HealthCheck.too_slow])


@pytest.mark.parametrize(("target", "data"), [row[::2] for row in KEPT], ids=[f"{row[0]}-{row[1]}" for row in KEPT])
def test_what_was_of_interest_once_breaks_nothing(target: str, data: bytes) -> None:
    TARGETS[target](data)


@pytest.mark.parametrize("target", TARGETS)
@given(data=st.data())
@unhurried
def test_whatever_hypothesis_draws_breaks_nothing(target: str, data: st.DataObject) -> None:
    known = list(seeds(target).values())
    begin, middle, end = data.draw(st.sampled_from(known)), data.draw(st.binary()), data.draw(st.sampled_from(known))
    cut = data.draw(st.integers(0, len(begin)))
    TARGETS[target](begin[:cut] + middle + end[data.draw(st.integers(0, len(end))) :])


def test_every_target_has_a_corpus_and_it_is_small() -> None:
    assert sorted(TARGETS) == run_fuzz.TARGETS
    assert sum(file.stat().st_size for file in CORPUS.rglob("*") if file.is_file()) < 100_000


@pytest.mark.parametrize(
    "written",
    [
        b"\x81\x01\xff",
        b"\x88\x02\x03\xe8\x81\x01x",
        b"\x88\x10\x03\xf3internal error",
        b"\x82\x01x",
        b"\x89\x7e\x00\x7e" + b"x" * 126,
    ],
    ids=["not_utf8", "after_the_close", "our_fault", "binary", "long_ping"],
)
def test_a_frame_that_a_server_may_not_send_is_found(written: bytes) -> None:
    with pytest.raises((FaultError, UnicodeDecodeError)):
        check_frames(written)


def broken(session: SessionV0, text: bytes) -> float:
    raise RuntimeError


def forgetful(session: Session) -> None:
    """Forgets to leave."""


@pytest.mark.parametrize(
    ("target", "method", "replacement"),
    [(frames, "receive", broken), (frames, "_leave", forgetful), (messages, "receive", broken)],
)
def test_a_fault_in_the_service_is_found(
    monkeypatch: pytest.MonkeyPatch, target: Callable[[bytes], None], method: str, replacement: Callable[..., object]
) -> None:
    monkeypatch.setattr(SessionV0, method, replacement)
    with pytest.raises((FaultError, RuntimeError)):
        list(map(target, seeds(target.__name__).values()))


def test_a_token_that_proves_something_it_should_not_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("service.tokens.Keys._payload", lambda keys, text: b'{"sub": "a", "exp": 9999999999}')
    with pytest.raises(FaultError, match="was believed"):
        token(b"a.b.c")


def test_where_atheris_cannot_be_installed_it_says_where_it_can(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setitem(sys.modules, "atheris", None)
    pip = tmp_path / "pip"
    pip.write_text("#!/bin/sh\necho no such wheel >&2; exit 1\n")
    pip.chmod(0o755)
    with pytest.raises(run_fuzz.MissingError, match=r"\(no such wheel\); it has wheels for CPython 3\.10"):
        run_fuzz.install_atheris([str(pip)])


def test_a_target_that_breaks_is_told(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    outcome: subprocess.CompletedProcess[bytes] = subprocess.CompletedProcess([], 77)
    monkeypatch.setattr(run_fuzz, "install_atheris", lambda: None)
    monkeypatch.setattr("tests.fuzz.run_fuzz.subprocess.run", lambda *_, **__: outcome)
    assert run_fuzz.main(["token"]) == 1
    assert "token        is broken" in capsys.readouterr().out
