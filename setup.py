"""Build the wheel: what cannot be said in pyproject.toml.

The files of the program go to `wsbundle/tree`, the manual page and the completions for shells are made from the parser
of the command line.
"""

import atexit
import shutil
import sys
import tempfile
from pathlib import Path

import shtab
from argparse_manpage.manpage import Manpage
from setuptools import setup
from setuptools.command.build_py import build_py

ROOT = Path(__file__).parent
sys.path.insert(0, str(ROOT))

# setuptools has brought it, where Python has it no longer.
from distutils.command.install_data import install_data  # noqa: E402

from generator import __version__  # noqa: E402
from generator.command_line import parser  # noqa: E402
from generator.program import sources  # noqa: E402

# Not in the checkout: build/ has what is rendered there, and what an earlier build has left must not be in this one.
WORK = Path(tempfile.mkdtemp(prefix="wsbundle-build-"))
atexit.register(shutil.rmtree, WORK, ignore_errors=True)


class WithTree(build_py):
    """Also copies what is not a package of the wheel."""

    def run(self) -> None:
        super().run()
        for path in sources(str(ROOT)):
            target = Path(self.build_lib, "wsbundle", "tree", path)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(ROOT / path, target)


class WithShared(install_data):
    """Makes what man(1), bash and zsh look for below the `share` of an environment."""

    def run(self) -> None:
        command_line = parser("wsbundle", "sudo wsbundle")
        texts = {
            "share/man/man1/wsbundle.1": manual_page(),
            "share/bash-completion/completions/wsbundle": shtab.complete(command_line, "bash"),
            "share/zsh/site-functions/_wsbundle": shtab.complete(command_line, "zsh"),
        }
        for path, text in texts.items():
            target = Path(self.install_dir, path)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(text, encoding="utf-8")
            self.outfiles.append(str(target))


def manual_page() -> str:
    about = {
        "project_name": "wsbundle",
        "version": __version__,
        "description": "deploy a WebSocket notification center from one deploy.yaml",
        "manual_title": "User Commands",
    }
    command_line = parser("wsbundle", "sudo wsbundle")
    assert command_line._subparsers is not None
    (verbs,) = command_line._subparsers._group_actions
    assert isinstance(verbs.choices, dict)
    for verb in verbs.choices.values():
        verb.description += f" {verb.epilog}"  # argparse-manpage leaves out what stands below the options of a command
    return str(Manpage(command_line, about, format="single-commands-section"))


setup(
    packages=["wsbundle"],
    cmdclass={"build_py": WithTree, "install_data": WithShared},
    data_files=[("share", [])],  # else there would be nothing to install there
    options={"build": {"build_base": str(WORK / "build")}, "egg_info": {"egg_base": str(WORK)}},
)
