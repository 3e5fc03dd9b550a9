"""Why pip failed, and the fix, in one line: by itself it names what it looked for, and not whom it could not reach.

The standard library only, and readable by Pythons back to 3.6, as `generator/environment.py`.
"""

import os
import re
import sys

_INDEX = "another index in PIP_INDEX_URL or /etc/pip.conf"
_HERE = "Python {}.{} on {}".format(*sys.version_info[:2], os.uname().machine)
_ASKED = re.compile(r"(?:Could not fetch URL \w+://(?:[^/@\s]*@)?|HTTPS?Connection(?:Pool)?\(host=')([^/'\s]+)")
# The first one that any line matches is it. Consequences come last: pip finds a release nowhere, too, if it has reached
# nobody. And an index may lack what another one has: a 404 is not looked at.
_REASONS = (
    (r"(No space left on device|Disk quota exceeded)", "{said}; make room, and look at `df -h`, `df -i` and quotas"),
    (
        r"connect to proxy.*(?:Errno -?\d+\] |failed: |Error\(')([^'\")]+)",
        "the proxy on the way to {host} does not let pip through ({said}); set https_proxy to one that does, or unset "
        "it, and look at `proxy` in /etc/pip.conf",
    ),
    (
        r"certificate verify failed: ([^'\"(]+)",
        "the certificate of {host} is not trusted here ({said}); install the package ca-certificates, look at the date "
        "of this machine, and if a proxy reads along, name its certificate: PIP_CERT=/path/of/it.pem",
    ),
    (
        r"Could not fetch URL .* ((?!404)\d{3} (?:Client|Server) Error: .*) for url",
        f"{{host}} answers {{said}}; try again, or name {_INDEX}",
    ),
    (
        r"(?:: connection error: |ConnectionPool\(host=|Connection aborted).*\b"
        r"([A-Z][a-z]+(?: [\w./]+)+)",
        f"{{host}} cannot be reached ({{said}}); connect this machine, or name a proxy in https_proxy, or {_INDEX}. "
        f"Without a network: docs/offline.md",
    ),
    (
        r"(DO NOT MATCH THE HASHES)",
        f"a package is not the one that is locked: an index or a proxy on the way changed it, or broke off; try again, "
        f"or name {_INDEX}",
    ),
    (
        r"(subprocess-exited-with-error|metadata-generation-failed|Failed to build|Could not build wheels)",
        f"the package named above has no wheel for {_HERE}, and could not be built; on Debian and Ubuntu: apt-get "
        f"install -y build-essential python3-dev",
    ),
    (
        r"No matching distribution found for (\S+)",
        f"no index or directory that pip knows has {{said}} for {_HERE}; name {_INDEX}",
    ),
)


def reason(words: str) -> "str | None":
    """What pip's words mean, those in its log among them; None if they are not known."""
    lines = [line for line in words.splitlines() if "Retrying (Retry(" not in line]  # it has tried again since
    for pattern, text in _REASONS:
        for line in lines:
            found = re.search(pattern, line)
            if found is not None:
                asked = _ASKED.search(line)
                return text.format(said=found.group(1).strip(" ."), host=asked.group(1) if asked else "its index")
    return None
