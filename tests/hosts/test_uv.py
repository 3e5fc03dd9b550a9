"""A host that has uv gets the runtime that pip would have made, in a fraction of the time."""

import shutil
import sys
from pathlib import Path

from tests.hosts.console import NAME, Console

UV = Path(sys.executable).with_name("uv")
# What of a file depends on who installed it and when: RECORD, programs in bin/, and the times within byte-code.
_TREE = f"""
cd /opt/{NAME}/runtimes/*/venv
find . ! -name uv_cache.json -printf '%p %m %u %g %l\\n'
find . -type f ! -name '*.pyc' ! -name RECORD ! -name uv_cache.json ! -name INSTALLER ! -name pyvenv.cfg \\
    ! -path './bin/*' -exec sha256sum {{}} +
"""


def test_uv_makes_the_runtime_that_pip_makes_and_the_service_can_read_it(empty: Console) -> None:
    def installed(variables: str = "") -> list[str]:
        empty.configure()
        said = empty.run("sh", "-c", f"umask 077; {variables} .venv/bin/wsbundle install")
        assert f"Generation 1 of {NAME} runs" in said
        assert "pip makes this environment instead" not in said
        assert empty.routes()
        tree = empty.run("sh", "-e", "-c", _TREE).splitlines()
        empty.wsbundle("uninstall", "--purge")
        return sorted(tree)

    empty.run("rm", "-rf", f"/opt/{NAME}")
    by_pip = installed()
    shutil.copy(UV, empty.host.root / "usr/local/bin/uv")
    assert installed("WSBUNDLE_UV=no") == by_pip
    by_uv = installed("PATH=/usr/sbin:/usr/bin:/sbin:/bin")
    assert by_uv == by_pip
    # And that it was uv:
    (empty.host.root / "usr/local/bin/uv").write_text("#!/bin/sh\necho uv 0.4.30\n")
    empty.configure()
    said = empty.wsbundle("install")
    assert "/usr/local/bin/uv is uv 0.4, and uv from 0.11 on is needed; pip makes this environment instead" in said
