"""Where the files of a deployment stand on its host: said here, and nowhere else in the generator.

All are without the leading slash: a bundle has the same tree below its directory, and so has a generation.
"""

UNITS = "etc/systemd/system/"
SHARED = "etc/nginx/modules-enabled/90-wsbundle.conf"
RENDERED = "Rendered by wsbundle"  # in every file of ours that a program reads
"""What may stand only once on a host: all deployments share one file, that of the most demanding."""
# Hidden by ProtectHome= and PrivateTmp= of the unit, and elsewhere no place for what nobody else may read or replace.
HIDDEN_PLACES = ("/home/", "/root/", "/run/user/", "/tmp/", "/var/tmp/")


def engine_unit(engine: str, name: str) -> str:
    """The unit that serves a deployment's engine, by the package that it is of; nothing where none does."""
    return f"{engine}-server@{name}.service" if engine else ""


class Paths:
    """Those of one deployment, by what they are. Those of `NAME` are the templates', below templates/."""

    def __init__(self, name: str) -> None:
        self.env = f"etc/{name}/.env"
        self.gunicorn = f"etc/{name}/gunicorn.conf.py"
        self.certbot_hook = f"etc/letsencrypt/renewal-hooks/deploy/{name}"
        self.logrotate = f"etc/logrotate.d/{name}"
        self.main_context = SHARED
        self.site = f"etc/nginx/sites-available/{name}"
        self.site_link = f"etc/nginx/sites-enabled/{name}"
        # For a site of the operator's own, which includes it.
        self.locations = f"etc/nginx/{name}/locations.conf"
        self.supervisor = f"etc/supervisor/conf.d/{name}.conf"
        self.service = f"{UNITS}{name}.service"
        self.socket = f"{UNITS}{name}.socket"
        # The listener of nginx, where there is one for programs of the host as well. Names have no dots.
        self.nginx_socket = f"{UNITS}{name}.nginx.socket"
        self.beside_nginx = f"{UNITS}nginx.service.d/{name}.conf"
        self.beside_supervisor = f"{UNITS}supervisor.service.d/{name}.conf"
        self.sysusers = f"etc/sysusers.d/{name}.conf"
        self.tmpfiles = f"etc/tmpfiles.d/{name}.conf"
        # Of a bundle, and nowhere on the host.
        self.alerts = "monitoring/prometheus-rules.yaml"
        self.scraping = "monitoring/prometheus-scrape.yaml"
        self.dashboard = "monitoring/grafana-dashboard.json"
        self.engine = f"etc/{name}/engine.conf"
        self.engine_users = f"etc/{name}/engine.users"
        self.beside_valkey = f"{UNITS}valkey-server@{name}.service.d/{name}.conf"
        self.beside_redis = f"{UNITS}redis-server@{name}.service.d/{name}.conf"
        # No part of a bundle.
        self.app = f"opt/{name}/current/app"
        self.engine_password = f"etc/{name}/engine.password"
        self.engine_run = f"run/{name}-engine"
        self.keys = f"etc/{name}/keys.json"
        self.bus = f"run/{name}/bus"
        self.listener = f"run/{name}/ws.sock"
        self.mailbox = f"var/lib/{name}/mailbox"
        self.recovery = f"{UNITS}{name}.recovery.service"
        self.tls = f"etc/{name}/tls"
        self.placeholder = f"etc/{name}/placeholder"
