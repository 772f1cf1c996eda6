"""Threads and processes: the only file that starts them."""

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

Item = TypeVar("Item")
Result = TypeVar("Result")
Arguments = TypeVarTuple("Arguments")
_SPAWN = multiprocessing.get_context("spawn")


def start_thread(name: str, body: Callable[[*Arguments], None], *arguments: *Arguments) -> threading.Thread:
    """A running thread. It keeps the process alive: whoever starts it stops and joins it."""
    thread = threading.Thread(target=body, args=arguments, name=name)
    thread.start()
    return thread


def in_threads(body: Callable[[Item], Result], items: Iterable[Item], threads: int) -> list[Result]:
    """`body` of every item, in the items' order, by so many threads at once.

    The first exception stops the others after the item they are at, and is raised.
    """
    waiting = list(enumerate(items))[::-1]
    places = range(len(waiting))
    results: dict[int, Result] = {}
    failures: list[BaseException] = []

    def work() -> None:
        while not failures:
            try:
                at, item = waiting.pop()
            except IndexError:
                return
            try:
                results[at] = body(item)
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
    return [results[place] for place in places]


def leave_process(code: int) -> None:
    """End this process although a thread is busy in a library that nothing can interrupt."""
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    os._exit(code)


class ChildProcess:
    """A process of its own that runs `body(link, *arguments)`; `link` is its end of a pipe.

    `body` is a function of a module, its arguments can be pickled; they travel by the pipe, so that
    nothing of them is seen in the list of processes, which shows `title`. The child leaves Ctrl-C
    to its parent. When the parent dies its end of the pipe closes: `link.recv()` raises EOFError,
    which every body takes as the order to finish its work and end.
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
        """Whether it still runs."""
        return self._process.is_alive()

    @property
    def pid(self) -> int:
        """The process's number."""
        return self._process.pid or 0

    @property
    def exit_code(self) -> int | None:
        """None while it runs; negative: the signal that ended it."""
        return self._process.exitcode

    def join(self, timeout_s: float) -> bool:
        """Wait for its end; False where it still runs."""
        self._process.join(timeout_s)
        return not self.alive

    def kill(self) -> None:
        """Force its end at once, and wake whoever waits on the link; `end` has to follow."""
        self._process.kill()
        if os.name == "posix":  # a process stuck in the kernel dies later: its end of the pair stays open
            with contextlib.suppress(OSError), socket.socket(fileno=os.dup(self.link.fileno())) as pair:
                pair.shutdown(socket.SHUT_RDWR)

    def end(self, timeout_s: float) -> None:
        """Wait for its end, ask for it by SIGTERM, then force it; never longer than twice `timeout_s`."""
        if not self.join(timeout_s):
            self._process.terminate()
            if not self.join(timeout_s):
                self._process.kill()
                self.join(timeout_s)
        self.link.close()


def _run(title: str, nice: int, link: Connection) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    setproctitle.setproctitle(title)
    if nice and hasattr(os, "nice"):
        os.nice(nice)
    try:
        body, arguments = link.recv()
    except EOFError:
        return
    body(link, *arguments)
