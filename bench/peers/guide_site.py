"""The guide's server as its users have it: behind nginx with the site of the guide, over TCP.

python -m bench.peers.guide_site PORT DIRECTORY [--tls]
"""

import sys
from pathlib import Path

from bench.programs import HERE, PATH, ROOT, certificate, program
from bench.servers import free_port
from bench.together import run


def main(arguments: list[str]) -> int:
    """Run both until one ends."""
    port, directory, *flags = arguments
    place, behind = Path(directory), str(free_port())
    conf = (HERE / "peers" / "guide_site.conf").read_text().replace("BEHIND", behind)
    encrypted = ""
    if "--tls" in flags:
        file, key = certificate(place)
        encrypted = f" ssl; ssl_certificate {file}; ssl_certificate_key {key}"
    (place / "nginx.conf").write_text(conf.replace("PORT", port + encrypted))
    nginx = [program("nginx", "nginx"), "-p", directory, "-c", str(place / "nginx.conf")]
    uvicorn = f"-m uvicorn bench.peers.guide:app --port {behind} --loop asyncio --ws auto --log-level warning"
    environ = {"PATH": PATH, "PYTHONPATH": str(ROOT)}
    return run([(nginx, {"PATH": PATH}), ([sys.executable, *uvicorn.split()], environ)], place)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
