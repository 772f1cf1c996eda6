"""Workers: each side of a comparison runs in its own process, with its own threads and memory.

Parent and child exchange pickled dataclasses through the child's standard input and output. The child
makes the job of the first message, runs it once and answers. Then it answers each further message. The
output of libraries goes to stderr.
"""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import IO, Generic, Protocol, TypeVar

from stream.errors import StreamError
from stream.lab.bench.machine import OtherLoad, peak_mb, reset_peak

PAUSE_S = 0.05
"""Pause between measurements, because a library's threads stay busy for a while after their work."""

FactsT = TypeVar("FactsT")
FactsT_co = TypeVar("FactsT_co", covariant=True)


class SideJob(Protocol[FactsT_co]):
    """The work of one side, which a child runs."""

    def run(self) -> FactsT_co:
        """Do the work once. The result must be picklable; the parent gets it with time and memory."""


class Unavailable(StreamError):
    """A side cannot run on this machine; the message gives the reason."""


class BenchError(StreamError):
    """A side failed, or the bench lacks material."""


# --- messages to the child ----------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class StartJob:
    """Request to make the job and run it once."""

    make: Callable[[], SideJob[object]]
    """A picklable function, such as `partial(MatmulJob, threads=2)`."""


@dataclass(frozen=True, slots=True)
class RunJob:
    """Request to run the job once more."""


@dataclass(frozen=True, slots=True)
class MeasureCpu:
    """Request for the CPU time of the process."""


# --- its answers --------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class JobRun(Generic[FactsT_co]):
    """One run of the job."""

    seconds: float
    peak_mb: float
    """Largest memory of the process in MiB: since its start for the first run, later since the first run."""
    facts: FactsT_co
    """The job's result."""


@dataclass(frozen=True, slots=True)
class CpuTime:
    """CPU seconds that the process has used since its start."""

    seconds: float


@dataclass(frozen=True, slots=True)
class JobFailed:
    """The job could not be made or run; the process ends."""

    reason: str
    unavailable: bool
    """Whether this machine lacks what the job needs."""


# --- the parent ---------------------------------------------------------------------------------


def own_python(*arguments: str) -> tuple[list[str], dict[str, str]]:
    """Command and environment for a Python process that imports the same package as this process.

    By default Python would search the working folder first. In a clone it would then measure the clone
    instead of the installed package.
    """
    path = os.pathsep.join(map(os.path.abspath, sys.path))
    return [sys.executable, "-P", *arguments], os.environ | {"PYTHONPATH": path}


class Worker(Generic[FactsT]):
    """The parent's side of a child. The constructor returns at once; `ready` waits for the first run."""

    def __init__(self, make: Callable[[], SideJob[FactsT]]) -> None:
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115  closed in `close`
        command, environment = own_python("-m", "stream.lab.bench")
        self._child = subprocess.Popen(
            command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._errors
        )
        assert self._child.stdin is not None and self._child.stdout is not None  # they are pipes
        self._requests, self._answers = self._child.stdin, self._child.stdout
        self._send(StartJob(make))

    def ready(self) -> JobRun[FactsT]:
        """Wait for the first run, which warms the child up. Raises Unavailable or BenchError."""
        return self._next_run()

    def run(self) -> JobRun[FactsT]:
        """Run the job once more. Raises BenchError."""
        self._send(RunJob())
        return self._next_run()

    def cpu_s(self) -> float:
        """CPU seconds that the child has used since its start."""
        self._send(MeasureCpu())
        answer = self._receive()
        assert isinstance(answer, CpuTime)  # a child answers in the order of the messages
        return answer.seconds

    def close(self) -> None:
        """End the child."""
        if self._child.poll() is None:
            self._requests.close()
            try:
                self._child.wait(10)
            except subprocess.TimeoutExpired:
                self._child.kill()
                self._child.wait()
        self._answers.close()
        self._errors.close()

    def _send(self, message: StartJob | RunJob | MeasureCpu) -> None:
        data = pickle.dumps(message)
        try:
            self._requests.write(data)
            self._requests.flush()
        except BrokenPipeError:
            pass  # `_receive` reports why the child ended

    def _next_run(self) -> JobRun[FactsT]:
        answer = self._receive()
        assert isinstance(answer, JobRun)  # as above
        return answer

    def _receive(self) -> JobRun[FactsT] | CpuTime:
        """The next answer. Raises Unavailable or BenchError."""
        try:
            answer: JobRun[FactsT] | CpuTime | JobFailed = pickle.load(self._answers)
        except (EOFError, pickle.UnpicklingError):
            self._errors.seek(0)
            last = self._errors.read().decode(errors="replace").strip().splitlines()[-1:]
            raise BenchError(f"a worker ended before it answered: {' '.join(last) or 'no message'}") from None
        if isinstance(answer, JobFailed):
            raise Unavailable(answer.reason) if answer.unavailable else BenchError(answer.reason)
        return answer


class Workers(Generic[FactsT]):
    """The sides of one comparison by name, as a context manager."""

    def __init__(self, jobs: Mapping[str, Callable[[], SideJob[FactsT]]]) -> None:
        self.first: dict[str, JobRun[FactsT]] = {}
        """The first run of each side."""
        self.missing: dict[str, str] = {}
        """The reasons of the sides that cannot run on this machine."""
        self.others: float | None = None
        """Share of the machine that other processes took during `interleaved`, 0..1."""
        self._jobs = jobs
        self._running: dict[str, Worker[FactsT]] = {}

    def __enter__(self) -> Workers[FactsT]:
        try:
            for name, make in self._jobs.items():
                self._start(name, Worker(make))
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def _start(self, name: str, worker: Worker[FactsT]) -> None:
        """Start one side and wait for it. Two sides that compile at once would disturb each other."""
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
    ) -> dict[str, list[JobRun[FactsT]]]:
        """Run every side once a round, in alternating order; `at_most` limits the rounds of slow sides."""
        results: dict[str, list[JobRun[FactsT]]] = {name: [] for name in self._running}
        with OtherLoad(lambda: sum(worker.cpu_s() for worker in self._running.values())) as others:
            for i in range(rounds):
                for name in list(self._running)[:: 1 if i % 2 else -1]:
                    if i < (at_most or {}).get(name, rounds):
                        time.sleep(PAUSE_S)
                        results[name].append(self._running[name].run())
        self.others = others.share
        return results


# --- the child ----------------------------------------------------------------------------------


def serve() -> None:
    """The child's main function, see the module's docstring."""
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())

    def answer(message: JobRun[object] | CpuTime | JobFailed) -> None:
        answers.write(pickle.dumps(message))
        answers.flush()

    try:
        start: StartJob = pickle.load(sys.stdin.buffer)
        job = start.make()
        answer(_run(job))
        reset_peak()
        for message in _messages(sys.stdin.buffer):
            answer(_run(job) if isinstance(message, RunJob) else CpuTime(time.process_time()))
    except Unavailable as reason:
        answer(JobFailed(str(reason), unavailable=True))
    except StreamError as error:
        answer(JobFailed(str(error), unavailable=False))


def _messages(pipe: IO[bytes]) -> Iterator[RunJob | MeasureCpu]:
    """The parent's messages until it closes the pipe."""
    while True:
        try:
            message: RunJob | MeasureCpu = pickle.load(pipe)
        except EOFError:
            return
        yield message


def _run(job: SideJob[FactsT]) -> JobRun[FactsT]:
    start = time.perf_counter()
    facts = job.run()
    return JobRun(time.perf_counter() - start, peak_mb(), facts)
