"""Rules about an application of one's own, in the place of the notification center."""

from collections.abc import Iterator
from posixpath import basename, normpath

from generator.config.addresses import is_address, network_fix
from generator.config.rule import Findings, Origins, rule
from generator.config.schema import Deploy, is_for_apps, serves_app
from generator.paths import HIDDEN_PLACES
from service.declaration import Fault, settings_of, values_of

# What an application may not write to, however much it needs: the system's own, and what it is run from.
_SYSTEM = ("/bin", "/boot", "/dev", "/etc", "/lib", "/lib64", "/opt", "/proc", "/root", "/run", "/sbin", "/sys", "/usr")
ANY = "any"


@rule(
    "app.callable",
    because="Without an application they would change nothing, and somebody believes that they do.",
)
def app_settings_have_an_app(deploy: Deploy, origins: Origins) -> Findings:
    if not serves_app(deploy):
        for key in _given(deploy, origins):
            if key.startswith(("app.", "needs.")):
                yield key, Fault("has no effect without app.callable", "name the application in app.callable")


@rule(
    "app.callable",
    because="An application of your own speaks its own protocol, and the notification center's settings mean nothing "
    "to it.",
)
def app_is_asked_for_nothing_else(deploy: Deploy, origins: Origins) -> Findings:
    if serves_app(deploy):
        for key in _given(deploy, origins):
            if not is_for_apps(key):
                what = "is a setting of the notification center, and app.callable puts your application in its place"
                yield key, Fault(what, "remove it")


@rule(
    *("app.callable", "server"),
    because="Our own runner replaces workers of any ASGI application without refusing a request; the other servers "
    "are made for the notification center.",
)
def app_is_run_by_uvicorn(deploy: Deploy, _: Origins) -> Findings:
    if serves_app(deploy) and deploy.server != "uvicorn":
        what = f"'{deploy.server}' is for the notification center, and does not run an application of your own"
        yield "server", Fault(what, "use uvicorn, whose runner replaces the workers of any, or leave it out")


@rule(
    *("app.requirements", "app.static"),
    because="What is installed is the directory of the application; whatever is outside of it is not on the host. Its "
    "requirements may be above it, as where several projects share them.",
)
def app_has_its_files_inside(deploy: Deploy, _: Origins) -> Findings:
    for url, path in deploy.app.static.items():
        if normpath(path) != path.removesuffix("/") or path.partition("/")[0] in (".", ".."):
            what = f"'{path}' is not a plain path inside of app.path"
            yield f"app.static.{url}", Fault(what, "write it without . and ..")
    requirements = deploy.app.requirements
    if requirements is not None and (normpath(requirements) != requirements or basename(requirements) in (".", "..")):
        fix = "write it without `.`, and `..` at its beginning alone"
        yield "app.requirements", Fault(f"'{requirements}' is not a plain path of a file", fix)


@rule(
    *("app.static", "app.health"),
    because="nginx serves what is below a URL that ends in a slash; without one `/static` would also be /static-old.",
)
def static_files_are_below_a_path(deploy: Deploy, _: Origins) -> Findings:
    for url in deploy.app.static:
        if not url.endswith("/") or url == "/" or "//" in url or "/." in url:
            fix = f"write {'/' + url.strip('/') + '/' if url.strip('/') else '/static/'}"
            yield f"app.static.{url}", Fault(f"'{url}' is not a path below which there are files", fix)
        elif deploy.app.health is not None and deploy.app.health.startswith(url):
            yield "app.health", Fault(f"'{deploy.app.health}' is below {url}, which nginx serves", "use another path")


@rule(
    "app.health",
    because="Without the domain or without TLS nginx answers this path to load balancers, and refuses it to browsers.",
)
def health_has_its_own_path(deploy: Deploy, _: Origins) -> Findings:
    if deploy.app.health == "/":
        fix = "use a path such as /healthz, or leave it out: `/` is asked then"
        yield "app.health", Fault("'/' is where browsers begin", fix)


@rule(
    *("manager", *(setting.key for setting in settings_of(Deploy) if setting.key.startswith("needs."))),
    because="supervisor confines nothing, so that all of it is allowed, and as much again.",
    warns=True,
)
def needs_have_a_confinement(deploy: Deploy, origins: Origins) -> Findings:
    if serves_app(deploy) and deploy.manager == "supervisor":
        for key in _given(deploy, origins):
            if key.startswith("needs."):
                what = "has no effect under supervisor, which confines nothing"
                yield key, Fault(what, "remove it, or use manager: systemd")


@rule("app.build", "app.before", because="A command that the shell cannot read fails only on the host.")
def commands_can_be_read(deploy: Deploy, _: Origins) -> Findings:
    commands = {"app.build": deploy.app.build, "app.before": deploy.app.before}
    for key, number, command in [(key, *each) for key, given in commands.items() for each in enumerate(given)]:
        import shlex  # only an application pays for it

        try:
            shlex.split(command)
        except ValueError as error:
            yield f"{key}[{number}]", Fault(f"'{command}' cannot be read: {error}", "close the quotes")


@rule(
    "needs.network",
    because="systemd drops what it has no address for without a word, and a name is none to it.",
)
def needed_network_is_of_addresses(deploy: Deploy, _: Origins) -> Findings:
    network = deploy.needs.network
    if ANY in network and len(network) > 1:
        yield "needs.network", Fault("names addresses beside `any`, which has them all", "keep one of them")
    for address in network:
        if address != ANY and (fix := network_fix(address)):
            host, port = address.rpartition(":")[::2]
            host = host.strip("[]")
            if is_address(host) and port.isdecimal() and not is_address(address):
                fix = f"write {host}: which ports it may connect to cannot be said"
            yield "needs.network", Fault(f"'{address}' is not an IP address or network", fix)


@rule(
    "needs.write",
    because="An application that can write to the system's own files, or to its own code, is not confined at all.",
)
def needed_directories_are_its_own(deploy: Deploy, _: Origins) -> Findings:
    for path in deploy.needs.write:
        if normpath(path) != path or path == "/" or path.startswith("//"):
            yield "needs.write", Fault(f"'{path}' is not a plain path of a directory", "write it without . and ..")
        elif any(path == place or path.startswith(f"{place}/") for place in _SYSTEM):
            fix = "use a directory below /srv or /var, such as /srv/uploads"
            yield "needs.write", Fault(f"'{path}' belongs to the system", fix)
        elif f"{path}/".startswith(HIDDEN_PLACES):
            fix = "use a directory below /srv or /var, such as /srv/uploads"
            yield "needs.write", Fault(f"'{path}' is hidden from services", fix)


@rule("needs.devices", because="What is not below /dev is no device, and systemd ignores the line.")
def needed_devices_are_devices(deploy: Deploy, _: Origins) -> Findings:
    for path in deploy.needs.devices:
        if normpath(path) != path or not path.startswith("/dev/"):
            yield "needs.devices", Fault(f"'{path}' is not a device", "use a path below /dev, such as /dev/ttyUSB0")


def _given(deploy: Deploy, origins: Origins) -> Iterator[str]:
    """The settings that were given, and are not what they are by default."""
    values = values_of(deploy)
    for setting in settings_of(Deploy):
        if setting.key in origins and values[setting.key] != setting.default:
            yield setting.key
