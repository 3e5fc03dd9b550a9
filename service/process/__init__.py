"""One process of the service on its host: sockets, log, service manager, other workers, start and end."""
