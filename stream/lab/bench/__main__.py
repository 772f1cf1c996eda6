"""The process of a worker, started by `worker.Worker` as `python -m stream.lab.bench`."""

from stream.lab.bench.worker import serve

serve()
