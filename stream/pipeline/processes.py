"""Threads and processes: every thread and child process of the program is started here."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import socket
import sys
import threading
from collections.abc import Callable, Iterable
from multiprocessing.connection import Connection as Connection  # re-exported for type hints
from typing import TypeVar, TypeVarTuple

import setproctitle

from stream.pipeline.end_signals import TERMINAL_SIGNALS

Item = TypeVar("Item")
Result = TypeVar("Result")
Arguments = TypeVarTuple("Arguments")
_SPAWN = multiprocessing.get_context("spawn")


def start_thread(name: str, body: Callable[[*Arguments], None], *arguments: *Arguments) -> threading.Thread:
    """Start a thread. It keeps the process alive, so its owner has to stop and join it."""
    thread = threading.Thread(target=body, args=arguments, name=name)
    thread.start()
    return thread


def in_threads(body: Callable[[Item], Result], items: Iterable[Item], threads: int) -> list[Result]:
    """The results of `body` for every item, in the order of the items, computed in `threads` threads.

    The first exception is raised. The other threads then finish only their current item.
    """
    waiting = list(enumerate(items))[::-1]
    indices = range(len(waiting))
    results: dict[int, Result] = {}
    failures: list[BaseException] = []

    def work() -> None:
        while not failures:
            try:
                index, item = waiting.pop()
            except IndexError:
                return
            try:
                results[index] = body(item)
            except BaseException as error:
                failures.append(error)

    running = [start_thread(f"worker-{i}", work) for i in range(threads)]
    try:
        for thread in running:
            thread.join()
    except KeyboardInterrupt as error:
        failures.append(error)
        for thread in running:
            thread.join()
    if failures:
        raise failures[0]
    return [results[index] for index in indices]


def exit_process(code: int) -> None:
    """End this process at once, even while a thread is busy in a library and cannot be interrupted."""
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    os._exit(code)


class ChildProcess:
    """A child process that runs `body(link, *arguments)`; `link` is the child's end of a pipe.

    `body` is a function of a module; its arguments can be pickled. They go through the pipe, so that the
    list of processes shows only `title`. The child ignores Ctrl-C and the other signals of a terminal; its
    parent handles them. When the parent dies, its end of the pipe closes and `link.recv()` raises EOFError.
    Every body then finishes its work and returns.
    """

    def __init__(
        self,
        title: str,
        body: Callable[[Connection, *Arguments], None],
        *arguments: *Arguments,
        nice: int = 0,
    ) -> None:
        self.link, other = _SPAWN.Pipe()
        self._process = _SPAWN.Process(target=_run, args=(title, nice, other), name=title)
        self._process.start()
        other.close()
        self.link.send((body, arguments))

    @property
    def alive(self) -> bool:
        """Whether the process still runs."""
        return self._process.is_alive()

    @property
    def pid(self) -> int:
        """The process's number; 0 before it has one."""
        return self._process.pid or 0

    @property
    def exit_code(self) -> int | None:
        """The exit code; None while the process runs, and minus the signal that ended it."""
        return self._process.exitcode

    def join(self, timeout_s: float) -> bool:
        """Wait for the end of the process; returns whether it has ended."""
        self._process.join(timeout_s)
        return not self.alive

    def kill(self) -> None:
        """End the process by SIGKILL and wake every thread that waits on the link. Call `end` afterwards."""
        self._process.kill()
        if os.name == "posix":  # a process stuck in the kernel dies later and keeps its end open until then
            with contextlib.suppress(OSError), socket.socket(fileno=os.dup(self.link.fileno())) as pair:
                pair.shutdown(socket.SHUT_RDWR)

    def end(self, timeout_s: float) -> None:
        """Wait `timeout_s` for the end of the process, then use SIGTERM, and after another wait SIGKILL."""
        if not self.join(timeout_s):
            self._process.terminate()
            if not self.join(timeout_s):
                self._process.kill()
                self.join(timeout_s)
        self.link.close()


def _run(title: str, nice: int, link: Connection) -> None:
    for number in TERMINAL_SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    setproctitle.setproctitle(title)
    if nice and hasattr(os, "nice"):
        os.nice(nice)
    try:
        body, arguments = link.recv()
    except EOFError:
        return
    body(link, *arguments)
