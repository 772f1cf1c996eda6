"""Downloads against a server that misbehaves: each ends with the right file, or in one line."""

from __future__ import annotations

import hashlib
import socket
import urllib.request
from threading import Thread

import numpy as np
import pytest
from loopback import File, serve

from stream.errors import ConfigError, ModelError
from stream.models import download
from stream.models.download import RetryPolicy, check_url, fetch_file

DATA = np.random.default_rng(0).bytes(300_000)
SHA = hashlib.sha256(DATA).hexdigest()
KNOWN = {"size": len(DATA), "sha256": SHA}
RETRYING = RetryPolicy(timeout_s=60, attempts=3, pause_s=0.01)
ONCE = RetryPolicy(timeout_s=60, attempts=1, pause_s=0)


@pytest.fixture
def server():
    with serve() as running:
        yield running


@pytest.fixture
def get(server, tmp_path):
    def run(**options):
        options = {"retry": RETRYING} | options
        return fetch_file(f"{server.url}/a/model.bin", tmp_path / "model.bin", **options)

    return run


def refusal(get, **options):
    """The message of the error, which must be one line that names the file."""
    with pytest.raises(ModelError) as caught:
        get(**options)
    message = str(caught.value)
    assert "\n" not in message and "model.bin" in message, message
    return message


def names(folder):
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("facts", [KNOWN, {}])
@pytest.mark.parametrize("announce", [True, False])
def test_a_whole_file_arrives_with_its_progress_and_leaves_nothing_else(
    facts, announce, server, get, tmp_path
):
    server.files["model.bin"] = File(DATA, announce=announce)
    seen = []
    assert get(progress=lambda done, total: seen.append((done, total)), **facts) == SHA
    assert (tmp_path / "model.bin").read_bytes() == DATA and names(tmp_path) == ["model.bin"]
    assert [done for done, _ in seen] == sorted({done for done, _ in seen})
    assert seen[-1] == (len(DATA), len(DATA) if announce or facts else None)


@pytest.mark.parametrize("facts", [KNOWN, {}])
def test_a_broken_transfer_goes_on_where_it_stopped(facts, server, get, tmp_path):
    server.files["model.bin"] = File(DATA, cuts=[100_000, 50_000])
    assert get(**facts) == SHA
    assert server.ranges == [None, "bytes=100000-", "bytes=150000-"]
    assert server.sent == len(DATA), "no byte was sent twice"
    assert (tmp_path / "model.bin").read_bytes() == DATA and names(tmp_path) == ["model.bin"]


@pytest.mark.parametrize("facts", [KNOWN, {}])
def test_the_next_run_resumes_what_the_last_one_left(facts, server, get, tmp_path):
    server.files["model.bin"] = File(DATA, cuts=[120_000])
    message = refusal(get, retry=ONCE, **facts)
    assert (
        "broke off after 120000 of 300000 bytes" in message and "120000 bytes that came are kept" in message
    )
    assert (tmp_path / "model.bin.part").read_bytes() == DATA[:120_000]
    assert not (tmp_path / "model.bin").exists()
    assert get(**facts) == SHA
    assert server.ranges == [None, "bytes=120000-"] and server.sent == len(DATA)


def test_what_came_whole_but_was_never_checked_is_not_asked_for_again(server, get, tmp_path):
    (tmp_path / "model.bin.part").write_bytes(DATA)
    assert get(**KNOWN) == SHA
    assert not server.requests and names(tmp_path) == ["model.bin"]


def test_a_server_that_ignores_ranges_starts_anew(server, get, tmp_path):
    server.files["model.bin"] = File(DATA, cuts=[100_000], ranges=False)
    assert get(**KNOWN) == SHA
    assert server.ranges == [None, "bytes=100000-"] and server.sent == 400_000
    server.files["model.bin"].cuts = [100_000] * 9
    (tmp_path / "model.bin").unlink()
    assert "broke off" in refusal(get, **KNOWN), "it does not try for ever"
    assert len(server.requests) == 2 + RETRYING.attempts


def test_a_file_that_changed_meanwhile_is_not_glued_to_the_old_one(server, get, tmp_path):
    server.files["model.bin"] = File(DATA, cuts=[100_000])
    refusal(get, retry=ONCE)
    server.files["model.bin"] = File(DATA[::-1], etag='"2"')
    get()
    assert (tmp_path / "model.bin").read_bytes() == DATA[::-1]
    assert server.ranges == [None, "bytes=100000-"]


@pytest.mark.parametrize("etag", ["", 'W/"1"'])
def test_without_hash_and_strong_validator_nothing_is_built_upon(etag, server, get, tmp_path):
    server.files["model.bin"] = File(DATA, cuts=[100_000], etag=etag)
    get()
    assert server.ranges == [None, None] and (tmp_path / "model.bin").read_bytes() == DATA


def test_a_part_longer_than_the_file_is_dropped(server, get, tmp_path):
    for facts, asked in ((KNOWN, [None]), ({}, ["bytes=300007-", None])):
        (tmp_path / "model.bin.part").write_bytes(DATA + b"surplus")
        (tmp_path / "model.bin.part.tag").write_text('"1"')
        server.files["model.bin"], server.requests = File(DATA), []
        assert get(**facts) == SHA
        assert server.ranges == asked and (tmp_path / "model.bin").read_bytes() == DATA
        (tmp_path / "model.bin").unlink()


def test_a_wrong_file_is_kept_aside_and_never_replaces_a_good_one(server, get, tmp_path):
    wrong = DATA[:-1] + bytes([DATA[-1] ^ 1])
    (tmp_path / "model.bin").write_bytes(b"good")
    server.files["model.bin"] = File(wrong)
    message = refusal(get, **KNOWN)
    aside = f"model.bin.refused-{hashlib.sha256(wrong).hexdigest()[:12]}"
    assert "refused" in message and SHA[:12] in message and aside in message
    assert (tmp_path / aside).read_bytes() == wrong and (tmp_path / "model.bin").read_bytes() == b"good"
    refusal(get, **KNOWN)
    assert names(tmp_path) == ["model.bin", aside], "the same bad file takes its place once"
    server.files["model.bin"] = File(DATA)
    get(**KNOWN)
    replaced = f"model.bin.refused-{hashlib.sha256(b'good').hexdigest()[:12]}"
    assert (tmp_path / "model.bin").read_bytes() == DATA and (tmp_path / replaced).read_bytes() == b"good"


@pytest.mark.parametrize("longer", [7, -7, 10**6])
def test_another_length_than_is_published_is_refused_at_once(longer, server, get, tmp_path):
    server.files["model.bin"] = File(DATA, longer=longer)
    message = refusal(get, **KNOWN)
    assert f"offers {len(DATA) + longer} bytes, expected {len(DATA)}" in message
    assert len(server.requests) == 1 and names(tmp_path) == []


def test_a_length_that_is_announced_too_long_never_counts_as_whole(server, get, tmp_path):
    server.files["model.bin"] = File(DATA, longer=5)
    assert "300000 of 300005 bytes" in refusal(get)
    assert names(tmp_path) == ["model.bin.part", "model.bin.part.tag"]


def test_a_length_that_is_announced_too_short_gives_a_stump_which_approval_refuses(server, get, tmp_path):
    def approve(part, digest):
        if digest != SHA:
            raise ModelError(f"{part}: not whole")

    server.files["model.bin"] = File(DATA, longer=-5)
    message = refusal(get, approve=approve)
    assert "refused: not whole; kept aside as model.bin.refused-" in message
    (aside,) = tmp_path.iterdir()
    assert aside.read_bytes() == DATA[:-5]


def test_a_server_that_falls_silent_is_given_up(server, get, tmp_path):
    server.files["model.bin"] = File(DATA, cuts=[50_000] * 9, stall=True)
    message = refusal(get, retry=RetryPolicy(timeout_s=1.0, attempts=2, pause_s=0), **KNOWN)
    assert "sent nothing for 1 s" in message
    assert server.ranges == [None, "bytes=50000-"]
    assert (tmp_path / "model.bin.part").stat().st_size == 100_000, "what came is kept"


def test_a_slow_server_is_waited_for(server, get):
    server.files["model.bin"] = File(DATA, pause_s=0.06)
    assert get(retry=RetryPolicy(timeout_s=60.0, attempts=1), **KNOWN) == SHA
    assert server.ranges == [None], "slow is not silent"


@pytest.mark.parametrize("status", [401, 403, 404, 410])
def test_a_refusal_is_not_asked_again(status, server, get, tmp_path):
    server.files["model.bin"] = File(DATA, statuses=[status])
    message = refusal(get, **KNOWN)
    assert f"127.0.0.1 answers {status}" in message and "GPEN_STREAM_MODELS_URL" in message
    assert len(server.requests) == 1 and names(tmp_path) == []


def test_a_servers_own_trouble_is_worth_another_attempt(server, get):
    server.files["model.bin"] = File(DATA, statuses=[500, 503])
    assert get(**KNOWN) == SHA and len(server.requests) == 3
    server.files["model.bin"] = File(DATA, statuses=[500] * 9)
    assert "answers 500" in refusal(get, **KNOWN) and len(server.requests) == 3 + RETRYING.attempts


def test_redirects_are_followed_with_the_range_and_only_over_the_web(server, get, tmp_path):
    server.files["other.bin"] = File(DATA, cuts=[100_000])
    server.files["model.bin"] = File(location=f"{server.url}/b/other.bin")
    assert get(**KNOWN) == SHA
    asked = [(request.path, request.range) for request in server.requests]
    assert asked == [
        ("/a/model.bin", None), ("/b/other.bin", None),
        ("/a/model.bin", "bytes=100000-"), ("/b/other.bin", "bytes=100000-"),
    ]  # fmt: skip
    (tmp_path / "model.bin").unlink()
    for location in ("file:///etc/passwd", "ftp://127.0.0.1/x", "http://[::1", f"{server.url}/a/model.bin"):
        server.files["model.bin"] = File(location=location)
        with pytest.raises(ModelError) as caught:
            get(**KNOWN)
        assert "\n" not in str(caught.value) and "127.0.0.1" in str(caught.value)
    assert names(tmp_path) == []


def test_a_redirect_that_gives_up_encryption_is_refused():
    request = urllib.request.Request("https://a.example/model.bin")
    with pytest.raises(ModelError, match=r"a\.example: redirects from https to http"):
        download._Redirects().redirect_request(request, None, 302, "Found", {}, "http://a.example/model.bin")


def test_nobody_there_and_no_web_server_there_are_one_line_each(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]

        def babble():
            for _ in range(ONCE.attempts):
                connection, _ = listening.accept()
                with connection:
                    connection.recv(4096)
                    connection.sendall(b"220 this is not the web\r\n")

        thread = Thread(target=babble)
        thread.start()
        with pytest.raises(ModelError, match="broke off"):
            fetch_file(f"http://127.0.0.1:{port}/m", tmp_path / "m", retry=ONCE)
        thread.join()
    with pytest.raises(ModelError, match="refused"):
        fetch_file(f"http://127.0.0.1:{port}/m", tmp_path / "m", retry=ONCE)
    with pytest.raises(ModelError, match=r"m: nowhere\.invalid cannot be reached"):
        fetch_file("http://nowhere.invalid/m", tmp_path / "m", retry=ONCE)
    assert names(tmp_path) == []


def test_a_file_larger_than_the_disk_is_refused_before_it_is_fetched(server, get, tmp_path):
    server.files["model.bin"] = File(DATA, longer=10**18)
    message = refusal(get)
    assert "MB are free in" in message and str(tmp_path) in message
    assert names(tmp_path) == []


def test_a_folder_that_is_none_is_refused(server, tmp_path):
    (tmp_path / "file").touch()
    server.files["model.bin"] = File(DATA)
    with pytest.raises(ModelError, match="cannot be written") as caught:
        fetch_file(f"{server.url}/model.bin", tmp_path / "file" / "model.bin", retry=ONCE)
    assert "GPEN_STREAM_MODELS" in str(caught.value)


@pytest.mark.parametrize(
    "url",
    ["", "models", "ftp://h/x", "file:///x", "http://", "http://h:x/", "http://h/a b", "http://a:secret@h/x"],
)
def test_addresses_that_cannot_be_fetched_are_refused_without_showing_a_password(url):
    with pytest.raises(ConfigError, match="not a usable address") as caught:
        check_url(url)
    assert "secret" not in str(caught.value) and "\n" not in str(caught.value)
