"""Which URL clients are given when an installation is done, and which the rendered files lead them to."""

from pathlib import Path

import pytest

from generator.config.load import load_text
from generator.config.schema import domains
from generator.host import provide
from generator.host.install import announce
from generator.host.programs import Outcome
from generator.host.provide import stage
from generator.host.store import Store
from generator.rendering.render import render
from generator.report import Report

FILES = "tls: files\ncertificate: {file: /etc/ssl/a.pem, key: /etc/ssl/a.key}"
BALANCER = "trusted_proxies: [10.0.0.5]"


@pytest.mark.parametrize(
    ("settings", "url"),
    [
        ("", "ws://a.org/"),
        ("domain: [a.org, www.a.org, b.org]", "ws://a.org/"),
        (f"domain: [a.org, www.a.org]\n{FILES}", "wss://a.org/"),
        ("nginx: {http_port: 8080}", "ws://a.org:8080/"),
        (f"nginx: {{http_port: 8080, {BALANCER}}}", "ws://a.org/"),
        (FILES, "wss://a.org/"),
        (f"{FILES}\nnginx: {{http_port: 8080, https_port: 8443}}", "wss://a.org:8443/"),
        # Clients come to the balancer, and it has the usual ports.
        (f"{FILES}\nnginx: {{https_port: 8443, proxy_protocol: true, {BALANCER}}}", "wss://a.org/"),
    ],
)
def test_clients_are_given_the_url_at_which_they_get_through(
    settings: str, url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    domain = "" if "domain:" in settings else "domain: a.org"
    deploy = load_text(f"{domain}\nping: {{interval: 25, timeout: 20}}\n{settings}\n", "deploy.yaml").deploy
    bundle, store = render(deploy), Store(deploy.name, tmp_path)
    monkeypatch.setattr("shutil.chown", lambda *_: None)  # only root may give files away
    monkeypatch.setattr(provide, "run", lambda *_, **__: Outcome(0, ""))  # and make users
    (store.home / "runtimes/r1").mkdir(parents=True)
    store.make_current(stage(deploy, bundle, store, "r1", Report()))
    assert store.generation(1).domains == domains(deploy)
    announce(store, Report())
    assert f"runs: {url} by uvicorn" in capsys.readouterr().out
    redirects = [file.text for file in bundle.files if f"return 308 https{url[3:-1]}$request_uri;" in file.text]
    assert len(redirects) == (1 if url.startswith("wss:") else 0)
