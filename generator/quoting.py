"""Write a value in the language of the file it goes into, so that the file's reader gets back exactly that value.

One function per language and position. Each returns `Quoted`, the only thing that a template may print, or raises
`Unquotable` where the language has no way to write the value: it is refused, never mangled.
Every rule here is tested by reading values back with the program that reads the file on a host.
"""

import re
from collections.abc import Callable
from textwrap import indent

from service.declaration import plain, shorten

Value = str | int | float | bool | None

# Patterns are compiled when first needed, and a fault in deploy.yaml is told before most are.
# No line-based format can carry them; half a surrogate pair is no text at all, and systemd drops the whole line for
# a noncharacter. Source: unichar_is_valid in systemd's utf8.c.
_NONCHARACTERS = "\\ufdd0-\\ufdef" + "".join(f"\\U{plane:04x}fffe\\U{plane:04x}ffff" for plane in range(17))
_CONTROL = f"[\\x00-\\x1f\\x7f-\\x9f\\u2028\\u2029\\ufeff\\ud800-\\udfff{_NONCHARACTERS}]"
_BARE = r"[A-Za-z0-9_./:@+,=-]+"
_BARE_IN_NGINX = r"[][A-Za-z0-9_./:@+,=-]+"
_VARIABLE = r"[A-Za-z_][A-Za-z0-9_]*"

# nginx reads its configuration through a buffer of 4096 bytes, and a parameter has to fit into it with its quotes.
# Source: NGX_CONF_BUFFER in ngx_conf_file.c.
_NGINX_LONGEST = 4000


class Quoted(str):
    """Text in the language of its file; only the functions of this module make it."""

    __slots__ = ()

    # str() keeps the type, so that a rendered file can be told apart into values and the template's own text.
    def __str__(self) -> str:
        return self


class Unquotable(ValueError):
    """A value that the language of its file cannot carry: `what` is wrong, and the `fix`."""

    def __init__(self, what: str, fix: str) -> None:
        self.what = what
        self.fix = fix
        super().__init__(f"{what}; {fix}")


def comment(value: Value) -> Quoted:
    """Text of a comment that runs to the end of its line."""
    return Quoted(_text(value))


def systemd(value: Value) -> Quoted:
    """The rest of the line behind `Directive=`, or a part of it. Not for `ExecStart=`, where `$` and quotes are live.

    Source: systemd.syntax(7); systemd.unit(5), "Specifiers".
    """
    text = _one_line(value, "a systemd directive")
    if text.endswith("\\"):
        raise Unquotable(f"{shorten(text)} ends in a backslash, which in a unit continues the line", "leave it out")
    return Quoted(text.replace("%", "%%"))


def systemd_exec(value: Value) -> Quoted:
    """One argument of `ExecStart=`.

    Source: systemd.service(5), "Command lines"; systemd.syntax(7), "Quoting".
    """
    return _systemd_word(_text(value).replace("$", "$$"))


def systemd_word(value: Value) -> Quoted:
    """One of the words on a line of tmpfiles.d or sysusers.d, or in a directive that takes a list.

    Source: systemd.syntax(7), "Quoting"; tmpfiles.d(5) and sysusers.d(5), "Specifiers".
    """
    return _systemd_word(_text(value))


def env_name(value: Value) -> Quoted:
    """The name of a variable in .env."""
    text = _text(value)
    if not re.fullmatch(_VARIABLE, text):
        raise Unquotable(f"{shorten(text)} is not the name of a variable", "use letters, digits and underscores")
    return Quoted(text)


def env(value: Value) -> Quoted:
    """A value in .env, read alike by systemd's EnvironmentFile=, sh, bash and python-dotenv.

    In single quotes nothing is live but what is refused here: python-dotenv folds a doubled backslash, takes one
    before the closing quote for an escape, and replaces `${name}` even there.
    """
    text = _text(value)
    if "${" in text:
        raise Unquotable(f"{shorten(text)} has '${{', which python-dotenv would replace", "leave the braces out")
    if "'" in text:
        if found := re.search(r'["\\$`]', text):
            raise Unquotable(
                f"{shorten(text)} has both ' and {found[0]}, which no quotes carry past every reader of .env",
                "leave one of them out",
            )
        return Quoted(f'"{text}"')
    if "\\\\" in text or text.endswith("\\"):
        raise Unquotable(
            f"{shorten(text)} has a doubled or a closing backslash, which the readers of .env do not read alike",
            "use a single backslash inside the value, or a slash",
        )
    return Quoted(f"'{text}'")


def supervisor(value: Value) -> Quoted:
    """The whole value of an option of a supervisor program. Not for `command` and `environment`, which are split.

    Source: supervisord.org/configuration.html, "File Format".
    """
    return Quoted(_supervisor_text(value))


def supervisor_environment(value: Value) -> Quoted:
    """The value of one variable in `environment=`. It has quotes, but no escape inside them."""
    text = _supervisor_text(value, blank_edges=True)
    if text[:1] in ("'", '"') or text[-1:] in ("'", '"') or ("'" in text and '"' in text):
        raise Unquotable(
            f"{shorten(text)} has quotes at its ends, or both kinds of them",
            "supervisor knows no escape; leave them out",
        )
    return Quoted(f"'{text}'" if '"' in text else f'"{text}"')


def supervisor_command(value: Value) -> Quoted:
    """A part of the text that `command=` hands to sh: three readers, so only what none of them could change."""
    return _plain_word(value)


def nginx(value: Value) -> Quoted:
    """One parameter of a directive.

    Source: ngx_conf_read_token in ngx_conf_file.c: quoted text knows `\\"` and `\\\\`; nothing escapes `$`.
    """
    text = _text(value)
    if "$" in text:
        raise Unquotable(f"{shorten(text)} has a $, which starts a variable in nginx", "leave it out")
    if re.fullmatch(_BARE_IN_NGINX, text):
        return _short_enough(text)
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return _short_enough(f'"{escaped}"')


def nginx_block(directives: Quoted) -> Quoted:
    """Whole directives, whose values have been quoted one by one, indented for the block that they are in."""
    return Quoted(indent(directives, "    "))


def logrotate(value: Value) -> Quoted:
    """A part of a path of a log: only what cannot be taken for a wildcard, a quote or a comment."""
    return _plain_word(value)


def redis(value: Value) -> Quoted:
    """One word of a configuration of Valkey or Redis, or of its list of users: without what either reads as quotes."""
    return _plain_word(value)


def python(value: Value | list[Value]) -> Quoted:
    """A literal in gunicorn.conf.py."""
    for item in value if isinstance(value, list) else [value]:
        if not isinstance(item, str | int | float | bool | None):
            str(item)  # a name that is not defined says so itself
            raise Unquotable(f"{item!r} is not a plain value", "use text, a number, true or false")
    return Quoted(repr(value))


def yaml(value: Value) -> Quoted:
    """A scalar of YAML that is text, whatever it looks like: JSON's strings are YAML's.

    Source: YAML 1.2.2, section 7.3.1, "Double-Quoted Style".
    """
    import json

    return Quoted(json.dumps(_text(value), ensure_ascii=False))


def shell(value: Value) -> Quoted:
    """One word of a script for sh.

    Source: POSIX.1-2017, Shell Command Language, 2.2.2 "Single-Quotes".
    """
    text = _text(value)
    if re.fullmatch(_BARE, text):
        return Quoted(text)
    return Quoted("'" + text.replace("'", "'\\''") + "'")


FILTERS: dict[str, Callable[..., Quoted]] = {
    function.__name__: function
    for function in (
        comment,
        systemd,
        systemd_exec,
        systemd_word,
        env_name,
        env,
        supervisor,
        supervisor_environment,
        supervisor_command,
        nginx,
        nginx_block,
        logrotate,
        redis,
        python,
        shell,
        yaml,
    )
}


def _text(value: Value) -> str:
    text = plain(value)
    if not text.isprintable() and (control := re.search(_CONTROL, text)):
        raise Unquotable(f"{shorten(text)} holds {control[0]!a}, which is not text", "leave it out")
    return text


def _one_line(value: Value, what: str) -> str:
    text = _text(value)
    if not text or text != text.strip():
        raise Unquotable(f"{shorten(text)} is empty or has blanks at its ends, which {what} drops", "leave them out")
    return text


def _plain_word(value: Value) -> Quoted:
    text = _text(value)
    if not re.fullmatch(_BARE, text):
        raise Unquotable(f"{shorten(text)} is not a plain word", "use letters, digits and _./:@+,=- only")
    return Quoted(text)


def _systemd_word(text: str) -> Quoted:
    text = text.replace("%", "%%")
    if re.fullmatch(_BARE, text):
        return Quoted(text)
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return Quoted(f'"{escaped}"')


def _supervisor_text(value: Value, blank_edges: bool = False) -> str:
    text = _text(value) if blank_edges else _one_line(value, "supervisor")
    if re.search(r"\s[;#]", text):
        raise Unquotable(f"{shorten(text)} has ; or # behind a blank, which starts a comment", "leave the blank out")
    return text.replace("%", "%%")


def _short_enough(text: str) -> Quoted:
    if len(text.encode()) > _NGINX_LONGEST:
        raise Unquotable(f"{shorten(text)} is too long for nginx", f"use at most {_NGINX_LONGEST} bytes")
    return Quoted(text)
