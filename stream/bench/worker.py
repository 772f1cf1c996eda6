"""Each side of a comparison lives in a process of its own: own threads, own memory, asked in turn.

The child reads a line that names its job, sets it up, runs it once, and answers; then it runs it
again for each line that says so. Answers are lines of JSON. What libraries print goes to stderr.
"""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from types import TracebackType
from typing import Any, Protocol

from stream.bench.measure import OtherLoad, forget_peak, peak_mb
from stream.errors import StreamError

PAUSE_S = 0.05
"""Between measurements: a library's threads spin for a while after their work."""


class Job(Protocol):
    """What a child runs; made from keyword arguments that JSON can hold."""

    def run(self) -> dict[str, Any]:
        """Do the work once; the facts go to the parent beside time and memory."""


class Unavailable(StreamError):
    """A side that cannot run on this machine; the message says why."""


class BenchError(StreamError):
    """A side that failed, or material that is missing."""


def own_python(*arguments: str) -> dict[str, Any]:
    """What Popen needs to start Python so that it imports the same package as this process.

    By itself Python would look in the working folder first: in a clone it would measure that, not the
    installed package.
    """
    path = os.pathsep.join(map(os.path.abspath, sys.path))
    return {"args": [sys.executable, "-P", *arguments], "env": os.environ | {"PYTHONPATH": path}}


class Worker:
    """The parent's end of a child. `start` returns at once, `ready` waits for the first run."""

    def __init__(self, job: str, arguments: Mapping[str, Any]) -> None:
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115  closed in `close`
        self._child = subprocess.Popen(
            **own_python("-m", "stream.bench"),
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._errors, text=True,
        )  # fmt: skip
        self._send({"job": job, "arguments": dict(arguments)})

    def ready(self) -> dict[str, Any]:
        """Facts of the first run, which warmed the child up. Raises Unavailable, BenchError."""
        return self._receive()

    def run(self) -> dict[str, Any]:
        """Run once more: the job's facts, `seconds`, and `peak_mb` of all runs after the first."""
        self._send({"command": "run"})
        return self._receive()

    def cpu_s(self) -> float:
        """CPU seconds that the child has used in all its life."""
        self._send({"command": "cpu"})
        return self._receive()["cpu_s"]

    def close(self) -> None:
        """End the child."""
        if self._child.poll() is None:
            self._child.stdin.close()
            try:
                self._child.wait(10)
            except subprocess.TimeoutExpired:
                self._child.kill()
                self._child.wait()
        self._child.stdout.close()
        self._errors.close()

    def _send(self, message: dict[str, Any]) -> None:
        try:
            self._child.stdin.write(json.dumps(message) + "\n")
            self._child.stdin.flush()
        except BrokenPipeError:
            pass  # why it ended is told where its answer is awaited

    def _receive(self) -> dict[str, Any]:
        line = self._child.stdout.readline()
        if not line:
            self._errors.seek(0)
            last = self._errors.read().decode(errors="replace").strip().splitlines()[-1:]
            raise BenchError(f"a worker ended before it answered: {' '.join(last) or 'no message'}")
        answer = json.loads(line)
        if "unavailable" in answer:
            raise Unavailable(answer["unavailable"])
        if "error" in answer:
            raise BenchError(answer["error"])
        return answer


class Workers:
    """The sides of one comparison by name, as a context manager. Those that cannot run are named."""

    def __init__(self, jobs: Mapping[str, tuple[str, Mapping[str, Any]]]) -> None:
        self.first: dict[str, dict[str, Any]] = {}
        """Facts of each side's first run."""
        self.missing: dict[str, str] = {}
        """Why a side does not run here."""
        self.others: float | None = None
        """Share of the machine that other processes took in `interleaved`."""
        self._jobs, self._running = jobs, {}

    def __enter__(self) -> Workers:
        try:
            for name, (job, arguments) in self._jobs.items():
                self._start(name, Worker(job, arguments))
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def _start(self, name: str, worker: Worker) -> None:
        """One after another: two that compile at once would disturb each other's first figures."""
        self._running[name] = worker
        try:
            self.first[name] = worker.ready()
        except Unavailable as reason:
            self.missing[name] = str(reason)
            self._running.pop(name).close()

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        for worker in self._running.values():
            worker.close()
        self._running.clear()

    def interleaved(
        self, rounds: int, at_most: Mapping[str, int] | None = None
    ) -> dict[str, list[dict[str, Any]]]:
        """Every side once a round, in turn, forwards and backwards; `at_most` limits slow sides."""
        results: dict[str, list[dict[str, Any]]] = {name: [] for name in self._running}
        with OtherLoad(lambda: sum(worker.cpu_s() for worker in self._running.values())) as others:
            for i in range(rounds):
                for name in list(self._running)[:: 1 if i % 2 else -1]:
                    if i < (at_most or {}).get(name, rounds):
                        time.sleep(PAUSE_S)
                        results[name].append(self._running[name].run())
        self.others = others.share
        return results


def serve() -> None:
    """The child: see the module's docstring."""
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())

    def answer(facts: dict[str, Any]) -> None:
        answers.write(json.dumps(facts) + "\n")
        answers.flush()

    try:
        first = json.loads(sys.stdin.readline())
        module, _, name = first["job"].partition(":")
        job: Job = getattr(importlib.import_module(f"stream.bench.{module}"), name)(**first["arguments"])
        answer(_run(job))
        forget_peak()
        for line in sys.stdin:
            wants_run = json.loads(line)["command"] == "run"
            answer(_run(job) if wants_run else {"cpu_s": time.process_time()})
    except Unavailable as reason:
        answer({"unavailable": str(reason)})
    except StreamError as error:
        answer({"error": str(error)})


def _run(job: Job) -> dict[str, Any]:
    start = time.perf_counter()
    facts = job.run()
    return {"seconds": time.perf_counter() - start, "peak_mb": peak_mb()} | facts
