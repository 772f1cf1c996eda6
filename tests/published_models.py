"""A training file like the official ones, a server that has it, and an empty models folder."""

from __future__ import annotations

import hashlib
import io

import pytest
import torch
from loopback import File, serve

from stream.models.nets import GPEN


def network(size=256, **options):
    """Random weights with the official tensor names, as deep as the real network, 8 channels wide."""
    torch.manual_seed(0)
    figures = {"channel_multiplier": 1, "narrow": 1 / 64, "style_dim": 16, "n_mlp": 2} | options
    return GPEN(size, **figures).eval()


NAME, FILE = "gpen-bfr-256", "GPEN-BFR-256.pth"


def checkpoint(seed=0, **options):
    """Bytes of a training file with random weights of the right shapes for a 256 px GPEN."""
    net = network(**options)
    with torch.no_grad():
        next(net.parameters()).add_(seed)
    data = io.BytesIO()
    torch.save({"g_ema": net.state_dict()}, data)
    return data.getvalue()


DATA = checkpoint()
SHA = hashlib.sha256(DATA).hexdigest()


@pytest.fixture
def server():
    with serve() as running:
        running.files[FILE] = File(DATA)
        yield running


@pytest.fixture(autouse=True)
def models(tmp_path, monkeypatch, server):
    """An empty models folder, the server as the mirror, and nothing accepted."""
    folder = tmp_path / "models"
    for variable in ("GPEN_STREAM_ACCEPT_LICENCE", "GPEN_STREAM_OFFLINE"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("GPEN_STREAM_MODELS", str(folder))
    monkeypatch.setenv("GPEN_STREAM_MODELS_URL", f"{server.url}/mirror/")
    return folder
