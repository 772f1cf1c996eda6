"""Models as a user gets them: the command in a process of its own, a server on loopback, one ledger."""

from __future__ import annotations

import hashlib
import json
import os
import sys

import pytest
import torch
from loopback import File
from published_models import DATA, FILE, NAME, SHA, checkpoint, models, network, server  # noqa: F401
from safetensors.torch import load_file

from stream.cli import models as models_command
from stream.cli.main import main
from stream.errors import ConfigError, ModelError
from stream.models import catalog, download, registry
from stream.models import ledger as model_store
from stream.models.importing import ImportOptions, import_file
from stream.models.info import read_model_info


@pytest.fixture
def run(monkeypatch, capsys):
    """The command in this process: its exit code and the lines of its two outputs."""

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["gpen-stream", *map(str, arguments)])
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            main()
        done = capsys.readouterr()
        return ended.value.code, done.out.splitlines(), done.err.splitlines()

    return run


def seen(folder):
    """The files that a user sees in a folder: no locks."""
    return sorted(p.name for p in folder.iterdir() if not p.name.startswith(".")) if folder.exists() else []


def test_a_licence_is_shown_and_accepted_once_before_anything_is_asked_for(run, server, models):
    code, _, (line,) = run("models", "fetch", NAME)
    assert code == 2 and line.startswith("error: gpen-bfr-256: its licence is not accepted yet: (c) Alibaba")
    assert "non-commercial" in line and "--accept-licence" in line and "restore.accept_licence" in line
    assert not server.requests and seen(models) == []
    code, _, said = run("models", "fetch", NAME, "--accept-licence")
    assert code == 0 and "licence: (c) Alibaba" in said[0]
    assert "nobody has published a hash" in said[1] and "trusted on first use and pinned" in said[1]
    assert SHA in said[1] and said[2].startswith(f"{NAME}: {models}") and len(said) == 3
    assert json.loads((models / "ledger.json").read_text())["licences"] == ["gpen"]
    assert [request.path for request in server.requests] == [f"/mirror/{FILE}"]
    code, _, said = run("models", "fetch", NAME)
    assert code == 0 and said[1] == f"{NAME}: is here already" and len(server.requests) == 1
    path = registry.resolve(NAME)
    assert read_model_info(path).size == 256 and read_model_info(path).licence == "gpen"
    for key, value in network().state_dict().items():
        torch.testing.assert_close(load_file(path)[key], value)


@pytest.mark.parametrize("way", ["environment", "argument"])
def test_consent_may_come_from_the_environment_or_a_setting(way, monkeypatch):
    if way == "environment":
        monkeypatch.setenv("GPEN_STREAM_ACCEPT_LICENCE", "1")
    registry.fetch(NAME, accept_licence=way == "argument")
    monkeypatch.delenv("GPEN_STREAM_ACCEPT_LICENCE", raising=False)
    assert registry.resolve(NAME).is_file()
    model_store.change_ledger(lambda ledger: ledger.licences.clear())
    info = read_model_info(registry.resolve(NAME, accept_licence=True))
    registry.require_licence_of(info)
    model_store.change_ledger(lambda ledger: ledger.licences.clear())
    with pytest.raises(ConfigError, match="its licence is not accepted"):
        registry.require_licence_of(info)
    with pytest.raises(ConfigError, match="its licence is not accepted"):
        registry.resolve(NAME)


def test_a_file_that_changes_after_it_was_pinned_is_refused(run, server, models):
    registry.fetch(NAME, accept_licence=True)
    made = registry.resolve(NAME)
    before = load_file(made)
    server.files[FILE] = File(checkpoint(seed=1))
    (models / FILE).unlink()
    made.unlink()
    code, _, said = run("models", "fetch", NAME, "--quiet")
    assert code == 1 and len(said) == 1
    assert "refused: its SHA-256 is" in said[0] and SHA[:12] in said[0]
    assert [name for name in seen(models) if "refused" in name] and FILE not in seen(models)
    assert model_store.read_ledger().pins == {FILE: SHA}
    server.files[FILE] = File(DATA)
    assert run("models", "fetch", NAME)[0] == 0
    again = load_file(registry.resolve(NAME))
    assert all(torch.equal(again[key], value) for key, value in before.items())


@pytest.mark.parametrize(
    "data, word",
    [
        (b"<html>please log in</html>" * 99, "not a whole file of torch weights"),
        (DATA[:-1000], "not a whole file of torch weights"),
        (checkpoint(size=128), "a network for 128 px, expected 256 px"),
    ],
    ids=["page", "stump", "other size"],
)
def test_the_first_use_trusts_no_file_that_is_not_the_network(data, word, run, server, models):
    server.files[FILE] = File(data)
    code, _, said = run("models", "fetch", NAME, "--accept-licence", "--quiet")
    assert (
        code == 1 and len(said) == 1 and said[0].startswith(f"error: {FILE}: refused: ") and word in said[0]
    )
    assert not model_store.read_ledger().pins
    aside = f"{FILE}.refused-{hashlib.sha256(data).hexdigest()[:12]}"
    assert (models / aside).read_bytes() == data
    assert not list(models.rglob("*.safetensors")) and not (models / FILE).exists()
    with pytest.raises(ModelError, match="models fetch gpen-bfr-256"):
        registry.resolve(NAME)


@pytest.fixture
def published(monkeypatch):
    """ParseNet's entry with the bytes and digest of a file that can be served here."""
    data = os.urandom(200_000)
    table = json.loads(json.dumps(catalog._table()))
    table["models"]["parsenet"] |= {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    monkeypatch.setattr(catalog, "_table", lambda: table)
    catalog.entries.cache_clear()
    yield data
    catalog.entries.cache_clear()


def test_a_helper_with_a_published_hash_is_fetched_and_used_as_it_is(published, server, models):
    server.files["parsing_parsenet.pth"] = File(published, cuts=[90_000])
    said = []
    path = registry.fetch("parsenet", notify=said.append)
    assert path == models / "parsing_parsenet.pth" == registry.resolve("parsenet")
    assert path.read_bytes() == published and "MIT" in said[0] and len(said) == 1
    assert server.ranges == [None, "bytes=90000-"] and not model_store.read_ledger().pins
    path.write_bytes(published[::-1])
    with pytest.raises(ModelError, match=r"parsing_parsenet\.pth: refused: its SHA-256 is"):
        registry.resolve("parsenet")
    assert registry.fetch("parsenet", notify=said.append).read_bytes() == published
    (aside,) = [name for name in seen(models) if "refused" in name]
    assert (models / aside).read_bytes() == published[::-1]


def test_a_published_helper_that_is_here_already_may_be_imported(published, tmp_path, models, server):
    path = tmp_path / "download.bin"
    path.write_bytes(published)
    models.mkdir()
    (models / "parsing_parsenet.pth").write_bytes(b"broken")
    import_file(path, ImportOptions(), accept_licence=False, notify=lambda text: None)
    assert registry.resolve("parsenet").read_bytes() == published and not server.requests
    assert [(models / n).read_bytes() for n in seen(models) if "refused" in n] == [b"broken"]


def test_a_file_is_hashed_again_only_when_it_changed(published, models, monkeypatch):
    from stream.models import licences

    models.mkdir()
    (models / "parsing_parsenet.pth").write_bytes(published)
    hashed = []
    real = licences.sha256_of
    monkeypatch.setattr(licences, "sha256_of", lambda path: hashed.append(path) or real(path))
    for _ in range(3):
        registry.resolve("parsenet")
    assert len(hashed) == 1
    os.utime(models / "parsing_parsenet.pth", ns=(1, 1))
    registry.resolve("parsenet")
    assert len(hashed) == 2


def test_a_log_sees_how_far_it_is(run, server, monkeypatch):
    monkeypatch.setattr(models_command, "_PLAIN_EVERY_S", 0.0)
    code, _, said = run("models", "fetch", NAME, "--accept-licence")
    told = [line for line in said if line.endswith(" MB")]
    assert code == 0 and told[-1] == f"{NAME}: {len(DATA) / 1e6:.1f} of {len(DATA) / 1e6:.1f} MB"


def test_list_says_what_there_is_and_what_is_here(run, server, models):
    code, printed, _ = run("models", "list")
    assert code == 0 and len(printed) == len(catalog.entries()) + 2 and printed[-1].endswith(str(models))
    assert "to be accepted" in next(line for line in printed if line.startswith("gpen-bfr-512 "))
    registry.fetch(NAME, accept_licence=True)
    code, printed, _ = run("models", "list", "--json")
    facts = {model["name"]: model for model in json.loads("\n".join(printed))}
    assert len(facts) == 12 and code == 0
    assert facts[NAME]["state"] == "imported" and facts[NAME]["pinned_sha256"] == SHA
    assert facts["gpen-lite-256"]["state"] == "bundled" and facts["parsenet"]["state"] == "absent"
    for name, model in facts.items():
        assert {"task", "size", "template", "input_range", "licence", "bytes", "sha256", "url"} <= set(model)
        assert model["licence_accepted"] and (model["url"] or name == "gpen-lite-256")
    assert facts["gpen-seg2face-512"]["input_range"] == [0.0, 1.0]
    assert facts["gpen-bfr-512-onnx"]["bytes"] == 284244491
    assert "imported, pinned" in next(
        line for line in run("models", "list")[1] if line.startswith(NAME + " ")
    )


def test_verify_hashes_anew(run, models):
    registry.fetch(NAME, accept_licence=True)
    code, good, said = run("models", "verify")
    assert code == 0 and not said and [line.split(":")[0] for line in good] == ["gpen-lite-256", NAME]
    assert f"SHA-256 {SHA} (pinned)" in good[1]
    made = registry.resolve(NAME)
    whole, status = made.read_bytes(), made.stat()
    made.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    os.utime(made, ns=(status.st_atime_ns, status.st_mtime_ns))
    code, good, (line,) = run("models", "verify", NAME)
    assert code == 1 and line.startswith(f"error: {NAME}: {made}: refused")
    made.write_bytes(whole)
    (models / FILE).write_bytes(b"other")
    code, _, (line,) = run("models", "verify", NAME)
    assert code == 1 and FILE in line
    code, _, (line,) = run("models", "verify", "parsenet")
    assert code == 1 and line == "error: parsenet: not on this machine"
    assert run("models", "verify", "nothing-such")[0] == 2


def test_a_model_of_ones_own_is_imported_and_restores(run, face, tmp_path, models):
    path = tmp_path / "mine.pth"
    torch.save(network(64).state_dict(), path)
    code, _, (line,) = run("models", "import", path, "--name", "my-gpen", "--template", "ffhq_512")
    assert code == 0 and line.startswith("my-gpen (restore, 64 px, ffhq_512): ")
    report = tmp_path / "r.json"
    code, _, said = run(
        "restore", face, tmp_path / "o.png", "--model", "my-gpen", "--report", report, "--quiet"
    )
    assert code == 0, said
    report = json.loads(report.read_text())
    assert report["model"] == "my-gpen" and report["faces_restored"] == 1
    code, good, _ = run("models", "verify", "my-gpen")
    assert code == 0 and "your own" in good[0]
    code, printed, _ = run("models", "list", "--json")
    assert json.loads("\n".join(printed))[-1]["name"] == "my-gpen"
    registry.resolve("my-gpen").unlink()
    code, _, (line,) = run("restore", face, tmp_path / "o2.png", "--model", "my-gpen")
    assert code == 1 and "is gone; import it again" in line


def test_restore_refuses_models_that_are_not_to_be_had_in_one_line(run, face, tmp_path, models):
    registry.fetch(NAME, accept_licence=True)
    model_store.change_ledger(lambda ledger: ledger.licences.clear())
    cases = [
        (["--model", "gpen-bfr-512"], 1, "run: gpen-stream models fetch gpen-bfr-512"),
        (["--model", "gpen-bfr-521"], 2, "near it: gpen-bfr-512"),
        (["--model", "none.pth"], 1, "none.pth: cannot be read"),
        (["--model", "none: [.safetensors"], 1, "none: [.safetensors"),
        (["--model", NAME], 2, "its licence is not accepted yet"),
        (
            ["--model", str(registry._find(catalog.entries()[NAME]).path)],
            2,
            "its licence is not accepted yet",
        ),
        (["--set", "detect.detector=retinaface"], 1, "gpen-stream models fetch retinaface-resnet50"),
    ]
    for arguments, expected, words in cases:
        code, out, said = run("restore", face, tmp_path / "o.jpg", *arguments)
        assert code == expected and len(said) == 1 and not out and words in said[0], said
    assert not (tmp_path / "o.jpg").exists()


def test_nothing_is_asked_for_offline(run, server, monkeypatch):
    code, _, (line,) = run("models", "fetch", NAME, "--offline", "--accept-licence", "--quiet")
    assert code == 1 and "offline" in line and FILE in line
    monkeypatch.setenv("GPEN_STREAM_OFFLINE", "1")
    assert run("models", "fetch", NAME)[0] == 1
    assert not server.requests
    monkeypatch.delenv("GPEN_STREAM_OFFLINE")
    registry.fetch(NAME)
    monkeypatch.setenv("GPEN_STREAM_OFFLINE", "1")
    code, _, said = run("models", "fetch", NAME, "--offline")
    assert code == 0 and "is here already" in said[1] and len(server.requests) == 1


def test_a_folder_that_cannot_be_made_ends_in_one_line(run, tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("GPEN_STREAM_MODELS", str(tmp_path / "file" / "models"))
    code, _, said = run("models", "fetch", "parsenet", "--quiet")
    assert code == 1 and len(said) == 1 and "cannot be written" in said[0]
    assert run("models", "list")[0] == 0 and registry.resolve("gpen-lite-256").is_file()


def test_a_damaged_ledger_is_told_and_not_overwritten(run, models):
    models.mkdir()
    for text in ("{", "[]", '{"pins": []}', '{"surplus": 1}'):
        (models / "ledger.json").write_text(text)
        code, _, (line,) = run("models", "fetch", NAME, "--accept-licence")
        assert code == 1 and "ledger.json: damaged" in line
        assert (models / "ledger.json").read_text() == text
    assert registry.resolve("gpen-lite-256").is_file(), "the bundled model asks nothing of it"


def test_a_mirror_that_is_no_address_or_nobody_is_one_line(run, monkeypatch):
    monkeypatch.setattr(download.RetryPolicy.__init__, "__defaults__", (5.0, 2, 0.0))
    for url, code, words in (
        ("ftp://host/models", 2, "GPEN_STREAM_MODELS_URL: ftp://host/models: not a usable address"),
        ("http://user:secret@host/", 2, "without a password"),
        ("https://127.0.0.1:9/", 1, f"{FILE}: 127.0.0.1"),
    ):
        monkeypatch.setenv("GPEN_STREAM_MODELS_URL", url)
        found, _, (line,) = run("models", "fetch", NAME, "--accept-licence", "--quiet")
        assert found == code and words in line and "secret" not in line


def test_a_file_put_there_by_hand_is_not_trusted_silently(models, server):
    models.mkdir()
    (models / FILE).write_bytes(DATA)
    for act in (registry.resolve, lambda name: registry.fetch(name, accept_licence=True)):
        with pytest.raises(ModelError, match=rf"run: gpen-stream models import .*{FILE}"):
            act(NAME)
    assert not server.requests
    said = []
    import_file(models / FILE, ImportOptions(), accept_licence=True, notify=said.append)
    assert registry.resolve(NAME).is_file() and "trusted on first use" in said[1]


def test_every_published_address_is_encrypted_and_every_digest_whole():
    for entry in catalog.entries().values():
        assert entry.url is None or (entry.url.startswith("https://") and entry.url.endswith(entry.file))
        assert entry.sha256 is None or (len(entry.sha256) == 64 and entry.bytes > 10**7)
        assert entry.url is None or registry.address(entry.url, entry.file).startswith("http://127.0.0.1")
    bundled = catalog.entries()["gpen-lite-256"]
    info = read_model_info(registry.resolve("gpen-lite-256"))
    assert (info.sha256, info.size, info.template) == (
        bundled.sha256,
        bundled.size,
        bundled.generator.template,
    )
