"""A worker's process: `python -m stream.lab.bench`, fed by `worker.Worker`."""

from stream.lab.bench.worker import serve

serve()
