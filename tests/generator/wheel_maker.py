"""A wheel of nothing, and the locked line that names it: what pip needs to work without any index.

It asks for another that nobody has, so that whoever looks for more than what is locked fails.
"""

import zipfile
from hashlib import sha256
from pathlib import Path


def make_wheel(directory: Path, name: str = "tiny", tag: str = "py3-none-any", needs: str = "absent") -> Path:
    wheel = directory / f"{name}-1.0-{tag}.whl"
    about = f"{name}-1.0.dist-info"
    with zipfile.ZipFile(wheel, "w") as file:
        file.writestr(f"{name}.py", "")
        file.writestr(
            f"{about}/METADATA",
            f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n{f'Requires-Dist: {needs}' if needs else ''}\n",
        )
        file.writestr(f"{about}/WHEEL", f"Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: {tag}\n")
        file.writestr(f"{about}/RECORD", "")
    return wheel


def lock_of(wheel: Path, marker: str = "") -> str:
    """As `make lock` writes it."""
    name = wheel.name.partition("-")[0]
    digest = sha256(wheel.read_bytes()).hexdigest()
    return f"# locked\n{name}==1.0{marker and f' ; {marker}'} \\\n    --hash=sha256:{digest}\n    # via a test\n"
