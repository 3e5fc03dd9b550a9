"""Golden bundles: tests/golden/<deployment>/deploy.yaml, and beside it in expected/ every byte that it becomes.

    python -m tools.golden

records them anew; the difference is reviewed like code.
"""

import shutil
import sys
from pathlib import Path

from generator.config.load import load
from generator.config.schema import Deploy
from generator.rendering.bundle import MANIFEST, Bundle
from generator.rendering.render import render
from generator.rendering.write import write

GOLDEN = Path(__file__).parent.parent / "tests" / "golden"


def deployments() -> list[Path]:
    """The directory of each golden deployment."""
    return sorted(path.parent for path in GOLDEN.glob("*/deploy.yaml"))


def deploy_of(deployment: Path) -> Deploy:
    """What its deploy.yaml says."""
    return load(str(deployment / "deploy.yaml")).deploy


def contents(bundle: Bundle) -> dict[str, str]:
    """A bundle as it is in a directory: text, or `-> target` of a link, by path."""
    files = {file.path: f"-> {file.link}" if file.link else file.text for file in bundle.files}
    return {MANIFEST: bundle.manifest(), **files}


def expected(deployment: Path) -> dict[str, str]:
    """The recorded files, like `contents`."""
    directory = deployment / "expected"
    return {
        str(path.relative_to(directory)): f"-> {path.readlink()}" if path.is_symlink() else path.read_text()
        for path in directory.rglob("*")
        if path.is_symlink() or not path.is_dir()
    }


def record(deployment: Path) -> None:
    """Render the deployment into its expected/, and leave nothing else there."""
    shutil.rmtree(deployment / "expected", ignore_errors=True)
    write(render(deploy_of(deployment)), deployment / "expected")


if __name__ == "__main__":
    for deployment in deployments():
        record(deployment)
        sys.stdout.write(f"recorded {deployment.relative_to(Path.cwd())}\n")
