"""What a host installs of a bundle, which is the same on every machine."""

from generator.config.schema import Deploy
from generator.host import engine
from generator.host.facts import nginx_version
from generator.host.store import Store
from generator.readers.nginx_http2 import asks_for_http2, with_http2
from generator.rendering.bundle import Bundle


def fitted(bundle: Bundle, deploy: Deploy, store: Store) -> Bundle:
    """The bundle with the settings for the packages of this host; of nginx, once that is installed."""
    bundle = engine.fitted(bundle, engine.flavour(deploy, store))
    return with_http2(bundle, nginx_version()) if asks_for_http2(bundle) else bundle
