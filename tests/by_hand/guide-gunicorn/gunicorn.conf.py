# gunicorn.conf.py
import multiprocessing

# Server socket
bind = "0.0.0.0:8765"
backlog = 2048

# Worker processes
workers = multiprocessing.cpu_count() * 2 + 1
worker_class = "uvicorn.workers.UvicornWorker"
worker_connections = 1000
max_requests = 1000
max_requests_jitter = 50
timeout = 120
graceful_timeout = 30
keepalive = 5

# Logging
loglevel = "info"
accesslog = "/home/deploy/queue-manager/logs/access.log"
errorlog = "/home/deploy/queue-manager/logs/error.log"
access_log_format = '%(h)s %(l)s %(u)s %(t)s "%(r)s" %(s)s %(b)s "%(f)s" "%(a)s"'

# Process naming
proc_name = "queue-websocket"

# Server mechanics
daemon = False
pidfile = "/home/deploy/queue-manager/gunicorn.pid"
umask = 0o007
user = None
group = None
tmp_upload_dir = None

# keyfile = "/home/deploy/key.pem"
