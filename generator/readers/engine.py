"""Valkey or Redis, whichever is here: the configuration of an engine that is served, and its list of users.

Neither has a check of its own, but one that is to listen nowhere reads it all and ends.
"""

import re
from pathlib import Path

from generator.paths import Paths
from generator.readers.processes import Program, Running, find_program
from generator.readers.tree import put
from generator.readers.verdict import Fault, Subject, Verdict
from generator.rendering.bundle import Bundle, File

ENGINE = Subject("valkey-server or redis-server", "engine configuration")

_SOUND = "Configured to not listen anywhere, exiting."
_NOWHERE = ("--port", "0", "--tls-port", "0", "--unixsocket", "")
# Where the server says a word of its own before the line that is wrong, as Valkey and Redis 7 do.
_LINE = re.compile(r"(?m)^Reading the configuration file, at line (\d+)\n>>> (.*)\n(.*)$")
_USER = re.compile(r"(?m):(\d+): (.*?)\s*$")
_WORDS = re.compile(r"(?m)^.*(?:Error|error|ERROR|FATAL|Can't).*$")


def configuration(bundle: Bundle, root: Path) -> Running[list[Verdict]]:
    """Its dry run, with a password in the list of users, and with the data elsewhere: that directory must be there."""
    paths, files = Paths(bundle.name), {file.path: file for file in bundle.files}
    if paths.engine not in files:
        return []
    server = find_program("valkey-server") or find_program("redis-server")
    if not server:
        return [ENGINE.not_installed()]
    conf, users = files[paths.engine], files[paths.engine_users]
    put(root, users.path, with_password(users.text, "any"))
    here = re.sub(r"(?m)^dir .*$", f"dir {root}", conf.text)
    words = ("--aclfile", str(root / users.path), "--supervised", "no", "--daemonize", "no")
    outcome = yield Program([server, str(put(root, conf.path, here)), *words, *_NOWHERE])
    if outcome.failure:
        return [ENGINE.not_checked(f"{server} {outcome.failure}")]
    if _SOUND in outcome.output:
        return [ENGINE.judged([])]
    return [ENGINE.judged(_faults(outcome.output, conf, users))]


def with_password(users: str, password: str) -> str:
    """The rendered list of users with the hash of a password for each that is on.

    Source: ACL SETUSER of valkey.io, "#<hashedpass>".
    """
    from hashlib import sha256

    return users.replace(" on ", f" on #{sha256(password.encode()).hexdigest()} ")


def _faults(output: str, conf: File, users: File) -> list[Fault]:
    if found := _LINE.search(output):
        return [Fault(conf.path, int(found[1]), f"{found[3]}: {found[2]}")]
    lines = [line for line in output.splitlines() if users.path in line]
    if located := [found for line in lines if (found := _USER.search(line.partition(users.path)[2]))]:
        return [Fault(users.path, int(found[1]), found[2]) for found in located]
    words = _WORDS.findall(output) or output.strip().splitlines()[-1:]
    return [Fault(conf.path, None, "; ".join(word.strip() for word in words) or "it ended without a word")]
