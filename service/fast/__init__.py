"""The fast shell: WebSockets under uvicorn and gunicorn, without a task or a queue for each."""
