"""HTTP/2 in the words of a host's nginx.

Up to 1.25.0 nginx knows it as a parameter of `listen` alone, which holds for every site at that address. Later ones
warn of that, and have a directive for one site. A bundle is the same on every machine, and in a comment it has the line
that is written here. Source: ngx_http_v2_module, "http2"; nginx's CHANGES, 1.25.1.
"""

import re

from msgspec.structs import replace

from generator.paths import Paths
from generator.rendering.bundle import Bundle, File

DIRECTIVE_SINCE = (1, 25, 1)
_LINE = "    # http2 on;\n"
_SERVER = "\nserver {\n"
_LISTEN = re.compile(r"^( *listen \S+ ssl)(?=[ ;])", re.MULTILINE)


def version_in(output: str) -> tuple[int, ...]:
    """The version that `nginx -v` prints; nothing where it prints none."""
    found = re.search(r"nginx/([\d.]+)", output)
    return tuple(int(part) for part in found[1].strip(".").split(".")) if found else ()


def asks_for_http2(bundle: Bundle) -> bool:
    """Whether a bundle has a site that is to offer HTTP/2, and does not say yet how."""
    return any(_is_open(file, bundle) for file in bundle.files)


def with_http2(bundle: Bundle, version: tuple[int, ...]) -> Bundle:
    """The bundle with what an nginx of that version knows, line for line; the same where there is no nginx."""
    if not version:
        return bundle
    say = _by_directive if version >= DIRECTIVE_SINCE else _by_listen
    files = (replace(file, text=say(file.text)) if _is_open(file, bundle) else file for file in bundle.files)
    return replace(bundle, files=tuple(files))


def _is_open(file: File, bundle: Bundle) -> bool:
    return file.path == Paths(bundle.name).site and _LINE in file.text


def _by_directive(text: str) -> str:
    return text.replace(_LINE, _LINE.replace("# ", ""))


def _by_listen(text: str) -> str:
    head, line, tail = text.partition(_LINE)
    before, server, site = head.rpartition(_SERVER)
    said = line.replace("on;", "is said by `listen` above.")
    return before + server + _LISTEN.sub(r"\1 http2", site) + said + tail
