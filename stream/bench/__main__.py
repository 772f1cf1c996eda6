"""A worker's process: `python -m stream.bench`, fed by `worker.Worker`."""

from stream.bench.worker import serve

serve()
