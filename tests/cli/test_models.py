"""`gpen-stream models` in processes of its own: killed, interrupted, in pairs, without a network."""

from __future__ import annotations

import json
import resource
import signal
import subprocess
import sys

import pytest
from conftest import on_terminal
from loopback import File
from published_models import DATA, FILE, NAME, SHA, models, server  # noqa: F401  fixtures among them
from waiting import LIMIT_S, until

from stream.errors import ModelError
from stream.models import ledger, registry

FETCH = [sys.executable, "-m", "stream.cli", "models", "fetch", NAME, "--accept-licence", "--quiet"]


@pytest.fixture
def run(run_cli):
    """The command's exit code and the lines of its two outputs."""

    def run(*arguments, **options):
        done = run_cli(*arguments, **options)
        assert "Traceback" not in done.stderr
        return done.returncode, done.stdout.splitlines(), done.stderr.splitlines()

    return run


NO_NETWORK = """
import socket, sys
def refuse(*_, **__):
    raise SystemExit("a connection was opened")
socket.socket.connect = socket.create_connection = socket.getaddrinfo = refuse
from stream.cli.main import main
main()
"""


def test_a_run_needs_no_network_at_all(run, face, tmp_path, server):
    for arguments in (["restore", face, tmp_path / "o.jpg"], ["models", "list"], ["models", "verify"]):
        code, _, said = run(*arguments, code=NO_NETWORK)
        assert code == 0, said
    code, _, said = run("models", "fetch", NAME, "--accept-licence", code=NO_NETWORK)
    assert "a connection was opened" in said[-1], "the guard works"
    assert not server.requests


def test_the_commands_are_one_line_each_to_get_a_model_of_a_mirror(run, server, models):
    code, printed, _ = run("models", "list", "--json")
    assert code == 0 and {m["name"]: m["state"] for m in json.loads("\n".join(printed))}[NAME] == "absent"
    assert run("models", "fetch", NAME)[0] == 2 and not server.requests
    code, _, said = run("models", "fetch", NAME, "--accept-licence")
    assert code == 0 and said[-1] == f"{NAME}: {registry.resolve(NAME)}"
    code, printed, said = run("models", "verify", NAME)
    assert code == 0 and printed == [f"{NAME}: good; SHA-256 {SHA} (pinned)"] and not said
    code, _, said = run("models", "import", models / FILE)
    assert code == 0 and said[-1].startswith(NAME)


def test_two_processes_fetch_the_same_file_once(server, models, tmp_path):
    server.files[FILE].pause_s = 0.3
    both = [subprocess.Popen(FETCH[:-1], stderr=subprocess.PIPE, text=True) for _ in range(2)]
    said = [process.communicate(timeout=LIMIT_S)[1] for process in both]
    assert [process.returncode for process in both] == [0, 0], said
    assert server.sent == len(DATA) and len(server.requests) == 1
    assert sum("another process fetches it; waiting" in text for text in said) <= 1
    assert sum("is here already" in text for text in said) == 1
    assert ledger.read_ledger().pins == {FILE: SHA}


def test_a_process_that_is_killed_leaves_a_part_and_no_lock(run, server, models):
    server.files[FILE] = File(DATA, cuts=[20_000], stall=True)
    process = subprocess.Popen(FETCH)
    part = models / f"{FILE}.part"
    until(lambda: part.exists() and part.stat().st_size)
    process.send_signal(signal.SIGKILL)
    process.wait(LIMIT_S)
    kept = part.stat().st_size
    assert 0 < kept <= 20_000
    registry.fetch(NAME)
    assert server.ranges == [None, f"bytes={kept}-"]


def test_a_terminal_sees_a_bar(server, models):
    server.files[FILE] = File(DATA, pause_s=0.1)
    code, text = on_terminal(FETCH[:-1], 120)
    assert code == 0
    assert "━" in text and "kB/s" in text and "trusted on first use" in text
    assert text.rstrip().splitlines()[-1].split("\x1b")[-1].endswith(".safetensors")


def test_ctrl_c_keeps_what_came(server, models):
    server.files[FILE] = File(DATA, cuts=[20_000], stall=True)
    process = subprocess.Popen(FETCH, stderr=subprocess.PIPE, text=True)
    part = models / f"{FILE}.part"
    until(lambda: part.exists() and part.stat().st_size)
    process.send_signal(signal.SIGINT)
    said = process.communicate(timeout=LIMIT_S)[1]
    assert said == "stopped; what came is kept: run the command again to go on\n"
    assert process.returncode == 130
    assert part.stat().st_size > 0


def test_a_disk_that_takes_no_more_ends_in_one_line_and_keeps_the_part(run, models):
    def limit():
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))

    code, _, said = run("models", "fetch", NAME, "--accept-licence", "--quiet", preexec_fn=limit)
    assert code == 1 and len(said) == 1
    assert str(models) in said[0] and "cannot be written" in said[0] and "GPEN_STREAM_MODELS" in said[0]
    assert (models / f"{FILE}.part").stat().st_size == 20_000
    assert registry.fetch(NAME).is_file()


def test_a_ledger_that_others_hold_is_waited_for(models):
    with ledger.locked("x"), pytest.raises(ModelError), ledger.locked("y"):
        raise ModelError("locks of two files do not meet")
    waited = []
    code = """if True:
        import sys
        from stream.models.ledger import locked
        with locked("x"):
            print("held", flush=True)
            sys.stdin.read()
    """
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    holder = subprocess.Popen([sys.executable, "-c", code], **pipes)
    assert holder.stdout.readline() == "held\n"
    with ledger.locked("x", lambda: (waited.append(1), holder.kill())):
        assert waited == [1]
    holder.communicate()
