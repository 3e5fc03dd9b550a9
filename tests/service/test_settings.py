"""The environment, read and written."""

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import inspect as declared

from service.declaration import Setting, plain, read, read_words, settings_of
from service.settings import Drain, Engine, Limits, Log, Ping, Settings, SettingsError, from_environ, to_environ

EVERY_SETTING = list(settings_of(Settings))

# One variable, what stands in it, and the line that tells what is wrong.
FAULTS = [
    ("WEBSOCKET_PORT", "87650", "87650 is too large; use a whole number from 1024 to 65535, or none"),
    ("WEBSOCKET_PORT", "80", "80 is too small; use a whole number from 1024 to 65535, or none"),
    ("WEBSOCKET_PORT", "-8765", "-8765 is too small; use a whole number from 1024 to 65535, or none"),
    ("WEBSOCKET_PORT", "0755", "'0755' is not a decimal number; write 755, or 493 if it is octal"),
    ("WEBSOCKET_PORT", "0o755", "'0o755' is not a decimal number; write 755, or 493 if it is octal"),
    ("WEBSOCKET_PORT", "08765", "'08765' is not a whole number; use a whole number from 1024 to 65535, or none"),
    ("WEBSOCKET_PORT", "8765.5", "'8765.5' is not a whole number; use a whole number from 1024 to 65535, or none"),
    ("WEBSOCKET_PORT", "http", "'http' is not a whole number; use a whole number from 1024 to 65535, or none"),
    ("WEBSOCKET_PORT", "true", "'true' is not a whole number; use a whole number from 1024 to 65535, or none"),
    ("WEBSOCKET_PORT", "null", "has no value; use a whole number from 1024 to 65535, or none"),
    ("WEBSOCKET_PING_INTERVAL", "60s", "'60s' has a unit; write a plain number of seconds, such as 60"),
    ("WEBSOCKET_PING_INTERVAL", "1:30", "'1:30' is not a number; write 90 if it is base 60"),
    ("WEBSOCKET_PING_INTERVAL", ".inf", "'.inf' is not a number; use a number from 1 to 3600 (seconds)"),
    ("WEBSOCKET_PING_INTERVAL", "nan", "'nan' is not a number; use a number from 1 to 3600 (seconds)"),
    ("WEBSOCKET_PING_INTERVAL", "1e9", "1e9 is too large; use a number from 1 to 3600 (seconds)"),
    ("WEBSOCKET_PING_TIMEOUT", "0.5", "0.5 is too small; use a number from 1 to 3600 (seconds)"),
    ("WEBSOCKET_MAX_MESSAGE_SIZE", "64KiB", "'64KiB' has a unit; write a plain number of bytes, such as 65536"),
    ("WEBSOCKET_MAX_CONNECTIONS", "1000 users", "'1000 users' has a unit; write a plain number, such as 1000"),
    (
        "WEBSOCKET_MAX_CONNECTIONS",
        "9" * 5000,
        f"'{'9' * 59}…' is too large; use a whole number from 1 to 100000",
    ),
    ("LOG_LEVEL", "warn", "'warn' is unknown; use one of critical, debug, error, info, warning; did you mean warning?"),
    ("LOG_LEVEL", "DEBUG", "'DEBUG' is unknown; use one of critical, debug, error, info, warning"),
    ("WORKERS", "atuo", "'atuo' is not a whole number; use a whole number from 1 to 64, or auto; did you mean auto?"),
    ("WEBSOCKET_HOST", "localhost", "'localhost' does not fit; use an IPv4 or IPv6 address, such as 127.0.0.1"),
    (
        "WEBSOCKET_SOCKET",
        "run/ws.sock",
        "'run/ws.sock' does not fit; use an absolute path, such as /run/queue-websocket/ws.sock",
    ),
    ("WEBSOCKET_SOCKET", "/run/" + "x" * 103, "is 108 characters long; use at most 107"),
    ("WEBSOCKET_WELCOME", "x" * 501, "is 501 characters long; use at most 500"),
    ("WEBSOCKET_WELCOME", "two\nlines", r"holds the control character '\n' at position 4; use text on one line"),
    ("WEBSOCKET_WELCOME", "\udcff", r"holds the control character '\udcff' at position 1; use text on one line"),
]


@pytest.mark.parametrize(("variable", "text", "fault"), FAULTS, ids=lambda part: ascii(part)[:40])
def test_a_fault_says_what_is_wrong_and_how_to_mend_it(variable: str, text: str, fault: str) -> None:
    with pytest.raises(SettingsError) as refused:
        from_environ({variable: text})
    assert str(refused.value) == f"{variable}: {fault}"


def test_all_faults_come_at_once() -> None:
    with pytest.raises(SettingsError) as refused:
        from_environ({"WEBSOCKET_PORT": "80", "LOG_LEVEL": "loud", "WORKERS": "0"})
    assert list(refused.value.faults) == ["WEBSOCKET_PORT", "WORKERS", "LOG_LEVEL"]


def test_an_empty_environment_means_the_defaults() -> None:
    assert from_environ({}) == Settings()


def test_an_empty_variable_means_the_default() -> None:
    assert from_environ({setting.extra["env"]: "" for setting in EVERY_SETTING}) == Settings()


def test_variables_of_others_are_left_alone() -> None:
    assert from_environ({"WEBSOCKET_PROT": "1", "PATH": "/bin", "WEB_CONCURRENCY": "4"}) == Settings()


def test_the_defaults_are_those_of_the_guide() -> None:
    settings = Settings()
    assert (settings.port, settings.ping.interval, settings.ping.timeout) == (8765, 60, 30)
    assert (settings.workers, settings.log.level) == (1, "warning")


def test_auto_is_a_number_of_workers() -> None:
    assert from_environ({"WORKERS": "auto"}).workers == "auto"


def test_no_two_settings_share_a_variable() -> None:
    variables = [setting.extra["env"] for setting in EVERY_SETTING]
    assert len(variables) == len(set(variables))


def test_every_setting_says_what_it_means_and_has_a_default_that_it_takes() -> None:
    for setting in EVERY_SETTING:
        assert setting.description.endswith("."), setting.key
        reader = read_words if setting.takes_many else read
        assert setting.default is None or reader(plain(setting.default), setting) == setting.default


def values(setting: Setting) -> st.SearchStrategy[object]:
    """Every value that a setting may have."""
    return st.one_of([values_of_kind(kind) for kind in setting.alternatives])


def values_of_kind(kind: declared.Type) -> st.SearchStrategy[object]:
    if isinstance(kind, declared.IntType):
        return st.integers(kind.ge, kind.le)
    if isinstance(kind, declared.FloatType):
        return st.floats(kind.ge, kind.le)
    if isinstance(kind, declared.BoolType):
        return st.booleans()
    if isinstance(kind, declared.LiteralType):
        return st.sampled_from(kind.values)
    if isinstance(kind, declared.NoneType):
        return st.none()
    if isinstance(kind, declared.VarTupleType):
        assert isinstance(kind.item_type, declared.Metadata)
        return st.lists(values_of_kind(kind.item_type.type), max_size=3).map(tuple)
    assert isinstance(kind, declared.StrType)
    if kind.pattern is not None:
        return st.from_regex(kind.pattern, fullmatch=True).filter(lambda text: len(text) <= (kind.max_length or 100))
    words = st.text(st.characters(exclude_categories=("C", "Zl", "Zp")), min_size=1, max_size=kind.max_length)
    return words.filter(lambda text: text not in ("~", "null", "Null", "NULL"))


sections = st.fixed_dictionaries({setting.key: values(setting) for setting in EVERY_SETTING})


def settings_from(flat: dict[str, object]) -> Settings:
    """Settings from values by dotted key, checked by msgspec alone."""
    tree: dict[str, object] = {}
    for section in ("engine", "mailbox", "ping", "limits", "drain", "log"):
        prefix = section + "."
        tree[section] = {key[len(prefix) :]: value for key, value in flat.items() if key.startswith(prefix)}
    return msgspec.convert(tree | {key: value for key, value in flat.items() if "." not in key}, Settings)


@given(sections)
@settings(deadline=None, database=None, max_examples=25)
def test_what_is_written_to_the_environment_is_read_back(flat: dict[str, object]) -> None:
    chosen = settings_from(flat)
    assert from_environ(to_environ(chosen)) == chosen


def test_the_environment_has_every_setting_as_a_person_would_write_it() -> None:
    chosen = Settings(
        host="::1",
        port=9000,
        engine=Engine(url="unix:///run/valkey/valkey.sock", sentinels=("10.0.0.5:26379", "[::1]:26379")),
        ping=Ping(interval=20, timeout=7.5),
        limits=Limits(connections=5, message_size=4096),
        origins=("https://a.example", "http://b.example:8080"),
        drain=Drain(timeout=3, window=0),
        log=Log(level="debug"),
        welcome="Hi {uuid}",
    )
    assert to_environ(chosen) == {
        "WEBSOCKET_HOST": "::1",
        "WEBSOCKET_PORT": "9000",
        "WEBSOCKET_SOCKET": "",
        "WORKERS": "1",
        "WEBSOCKET_BUS": "",
        "WEBSOCKET_APP": "",
        "WEBSOCKET_APP_START": "60",
        "WEBSOCKET_ENGINE_URL": "unix:///run/valkey/valkey.sock",
        "WEBSOCKET_ENGINE_SENTINELS": "10.0.0.5:26379 [::1]:26379",
        "WEBSOCKET_ENGINE_MASTER": "",
        "WEBSOCKET_ENGINE_NAME": "",
        "WEBSOCKET_ENGINE_USER": "default",
        "WEBSOCKET_ENGINE_PASSWORD_FILE": "",
        "WEBSOCKET_ENGINE_CA": "",
        "WEBSOCKET_ENGINE_CERT": "",
        "WEBSOCKET_ENGINE_KEY": "",
        "WEBSOCKET_ENGINE_SILENCE": "4",
        "WEBSOCKET_ENGINE_HOST": "",
        "WEBSOCKET_PING_INTERVAL": "20",
        "WEBSOCKET_PING_TIMEOUT": "7.5",
        "WEBSOCKET_AUTH": "none",
        "WEBSOCKET_KEYS": "",
        "WEBSOCKET_ORIGINS": "https://a.example http://b.example:8080",
        "WEBSOCKET_MAX_CONNECTIONS": "5",
        "WEBSOCKET_MAX_CONNECTIONS_PER_ADDRESS": "100",
        "WEBSOCKET_MAX_MESSAGE_SIZE": "4096",
        "WEBSOCKET_MAX_MESSAGES_PER_SECOND": "1000",
        "WEBSOCKET_MAX_BYTES_PER_SECOND": "4194304",
        "WEBSOCKET_MAX_REGISTRATIONS": "8",
        "WEBSOCKET_MAX_QUEUE": "1048576",
        "WEBSOCKET_HEADER_TIMEOUT": "10",
        "WEBSOCKET_HELLO_TIMEOUT": "10",
        "WEBSOCKET_MAILBOX_KEEP": "none",
        "WEBSOCKET_MAILBOX_DIRECTORY": "",
        "WEBSOCKET_MAILBOX_TTL": "86400",
        "WEBSOCKET_MAILBOX_MESSAGES": "1000",
        "WEBSOCKET_MAILBOX_BYTES": "1048576",
        "WEBSOCKET_MAILBOX_TOTAL": "1073741824",
        "WEBSOCKET_MAILBOX_SYNC": "turn",
        "WEBSOCKET_DRAIN_TIMEOUT": "3",
        "WEBSOCKET_DRAIN_WINDOW": "0",
        "WEBSOCKET_DRAIN_RATE": "500",
        "WEBSOCKET_DRAIN_KEEP": "true",
        "LOG_LEVEL": "debug",
        "LOG_FORMAT": "plain",
        "WEBSOCKET_WELCOME": "Hi {uuid}",
    }


def test_a_socket_alone_means_that_no_port_is_open() -> None:
    assert from_environ({"WEBSOCKET_SOCKET": "/run/a/ws.sock"}).port == "none"
    assert from_environ({"WEBSOCKET_SOCKET": "/run/a/ws.sock", "WEBSOCKET_PORT": "9000"}).port == 9000
    assert from_environ({"WEBSOCKET_SOCKET": "", "WEBSOCKET_PORT": ""}).port == 8765
