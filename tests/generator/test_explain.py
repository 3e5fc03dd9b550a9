"""Every setting, section, rule and agreement can be asked for by name."""

import pytest

from generator.config.load import load_text
from generator.config.rules import RULES
from generator.config.schema import Deploy, is_about
from generator.explain import about, nearest, settings_in_force, shown, topics
from generator.rendering.agreement import AGREEMENTS
from service.declaration import settings_of

SETTINGS = {setting.key: setting for setting in settings_of(Deploy)}


def test_a_setting_is_explained() -> None:
    for key, setting in SETTINGS.items():
        explained = dict(about(key) or [])
        assert explained["meaning"] == setting.description
        assert explained["takes"] == setting.expects
        assert explained["default"], key
        assert explained.get("variable") == setting.extra.get("env")
        assert explained.get("rules") == (", ".join(rule.name for rule in RULES if key in rule.keys) or None), key


def test_a_default_is_explained_as_deploy_yaml_would_say_it() -> None:
    defaults = {key: dict(about(key) or [])["default"] for key in SETTINGS}
    assert {key: defaults[key] for key in ("domain", "port", "ping.interval", "expose", "user", "env")} == {
        "domain": "none: it must be given",
        "port": "8765",
        "ping.interval": "60",
        "expose": "false",
        "user": "null",
        "env": "{}",
    }
    assert defaults["nginx.health_from"] == "[127.0.0.1, '::1']"


def test_a_rule_is_explained() -> None:
    for rule in RULES:
        assert dict(about(rule.name) or [])["reason"] == rule.reason


def test_a_rule_says_whether_it_stops_or_warns() -> None:
    assert dict(about("host-has-a-port") or []) == {
        "reason": next(rule.reason for rule in RULES if rule.name == "host-has-a-port"),
        "settings": "host, port, socket",
        "when not": "error",
    }
    assert dict(about("domain-is-no-example") or [])["when not"] == "warning"


def test_an_agreement_is_explained() -> None:
    for agreement in AGREEMENTS:
        assert about(agreement.name) == [
            ("reason", agreement.reason),
            ("when not", "error, and a fault of the templates"),
        ]


def test_a_section_is_explained_by_its_settings() -> None:
    assert about("ping") == [(key, SETTINGS[key].description) for key in ("ping.interval", "ping.timeout")]


@pytest.mark.parametrize("topic", ["", "colour", "pin", "port.", ".port", "ping."])
def test_nothing_else_is_explained(topic: str) -> None:
    assert about(topic) is None


def test_all_topics_are_listed_once_each_with_a_line_and_can_be_explained() -> None:
    names = [name for name, _ in topics()]
    assert len(set(names)) == len(names) == len(SETTINGS) + len(RULES) + len(AGREEMENTS)
    assert all(about(name) and line and "\n" not in line for name, line in topics())


@pytest.mark.parametrize(
    ("topic", "suggestion"),
    [
        ("prot", "; did you mean port?"),
        ("interval", "; did you mean ping.interval?"),
        ("host-has-port", "; did you mean host-has-a-port?"),
        ("same-listner", "; did you mean same-listener?"),
        ("colour", "; `.venv/bin/wsbundle explain` lists them"),
    ],
)
def test_the_nearest_topic_is_suggested(topic: str, suggestion: str) -> None:
    assert nearest(topic) == suggestion


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (60.0, "60"),
        (1.5, "1.5"),
        (True, "true"),
        (None, "null"),
        ((), "[]"),
        (("10.0.0.1", "::1"), "[10.0.0.1, '::1']"),
        ({}, "{}"),
        ("text", "text"),
    ],
)
def test_a_value_is_shown_as_deploy_yaml_would_say_it(value: object, text: str) -> None:
    assert shown(value) == text


def test_settings_in_force_are_told_with_value_and_origin_each_variable_for_itself() -> None:
    loaded = load_text("domain: a.org\nenv: {B: 2, A: 1}\nping:\n  interval: 50\n", "deploy.yaml")
    told = {key: (value, origin) for key, value, origin in settings_in_force(loaded)}
    of_the_center = {key for key in SETTINGS if is_about(key, loaded.deploy)}
    assert told.keys() == of_the_center - {"env"} | {"env.A", "env.B"}
    assert told["domain"] == ("a.org", "deploy.yaml:1:9")
    assert told["env.A"] == ("1", "deploy.yaml:2:16")
    assert told["ping.interval"] == (50, "deploy.yaml:4:13")
    assert told["ping.timeout"] == (30, "default")


def test_every_listing_begins_with_the_setting_that_must_be_given() -> None:
    assert topics()[0][0] == "domain"
    assert settings_in_force(load_text("domain: ws.mycompany.org\n", "deploy.yaml"))[0][0] == "domain"


def test_only_what_is_deployed_has_settings_in_force() -> None:
    def keys(text: str) -> set[str]:
        return {key for key, _, _ in settings_in_force(load_text(text, "deploy.yaml"))}

    center = keys("domain: ws.mycompany.org\n")
    assert {"app.callable", "auth", "mailbox.keep", "drain.window"} <= center
    assert not {"app.path", "needs.jit"} & center
    app = keys("domain: ws.mycompany.org\napp: {callable: 'main:app'}\n")
    assert {"app.callable", "app.path", "needs.jit", "drain.window", "domain"} <= app
    assert not {"auth", "mailbox.keep", "engine.url", "nginx.metrics_from"} & app
