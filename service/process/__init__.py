"""One process of the service on its host: sockets, log, service manager, start and end."""
