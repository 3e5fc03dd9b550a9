# How gunicorn runs chat.
# Rendered by wsbundle from deploy.yaml; edit that and install again.

# Under systemd the listeners are inherited and `bind` has no effect; under supervisor gunicorn opens them.
bind = ['unix:/run/chat/ws.sock']
backlog = 4096

workers = 1
# Carries ping timing and limits into each worker: gunicorn has no settings for them.
worker_class = 'service.worker.Worker'
# A worker that is replaced closes all its WebSockets, so none is replaced for having served long enough.
max_requests = 0
# A worker whose event loop does not report in for this many seconds is killed.
timeout = 30
# Longer than the service's own drain, shorter than what stops gunicorn itself.
graceful_timeout = 15

# The control socket wants a writable home directory, and nobody here talks to it.
control_socket_disable = True

# Workers report in through a file: in memory, where no slow disk can make a healthy one look dead.
worker_tmp_dir = '/dev/shm'
# The directory lets only nginx's group in. gunicorn gives its socket to the service's own group, so the socket is open.
umask = 0o111

# Whose X-Forwarded-For is believed on TCP: that of proxies on this host. On its own socket nginx is believed anyway; it
# overwrites what clients send.
forwarded_allow_ips = '127.0.0.1,::1'

# nginx writes the access log.
accesslog = None
errorlog = '-'
# One line for each event, as `log.format` says, the master's and the workers'.
logger_class = 'service.process.gunicorn_log.Log'
loglevel = 'warning'
