"""`gpen-stream serve --on` as a user runs it: over Ray's client port, with its dashboard, and its errors."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from dashboard_client import Client, served
from fleets import CORES, camera, is_gone, new_cluster
from servers import free_port
from waiting import until

pytestmark = pytest.mark.timeout(300)


@pytest.fixture(scope="module")
def addresses():
    """The addresses of a cluster of one machine: that of its head, and that for clients from outside."""
    port = free_port()
    cluster = new_cluster(num_cpus=CORES, ray_client_server_port=port, node_name="alone")
    try:
        yield cluster.address, f"ray://127.0.0.1:{port}"
    finally:
        cluster.shutdown()


def cameras_file(folder: Path) -> Path:
    path = folder / "cameras.yaml"
    settings = camera("door").model_dump(mode="json", exclude_defaults=True)
    path.write_text(
        yaml.safe_dump({"server": {"port": 0, "data": str(folder / "data")}, "cameras": {"door": settings}})
    )
    return path


def live(client: Client) -> dict:
    """The camera, once its report has come through."""

    def found() -> dict | None:
        answer = client.get("/api/cameras/door").json
        return answer if answer["report"].get("state") == "live" else None

    return until(found)


def test_cameras_run_on_the_cluster_outlive_the_command_and_end_when_asked(addresses, tmp_path, run_cli):
    path = str(cameras_file(tmp_path))
    inside, address = addresses
    with served("--config", path, "--on", address, cwd=tmp_path) as server:
        client = Client(server.port())
        first = live(client)
        assert first["node"] == "alone" and first["words"] == "live"
        (node,) = client.get("/api/nodes").json
        assert node["name"] == "alone" and node["cameras"] == ["door"] and node["state"] == "up"
        assert client.get("/api/server").json["cores"] == CORES
        picture = client.get("/api/cameras/door/snapshot.jpg")
        assert picture.status == 200 and picture.body[:2] == b"\xff\xd8"
        metrics = client.get("/metrics").body.decode()
        assert 'gpen_stream_node_up{node="alone"} 1.0' in metrics
        assert 'gpen_stream_camera_node{camera="door",node="alone"} 1.0' in metrics
        assert "gpen_stream_restorer_up 1.0" in metrics
        recording = until(lambda: client.get("/api/cameras/door/segments").json)[0]
        assert recording["name"].endswith("Z-L1.mp4")
        assert client.ask("POST", "/api/cameras/door/change", {"strength": 0.5}).json["report"]
        assert server.stop() == 0
        assert f"the cameras run on; to end them: gpen-stream serve --on {address} --end" in server.output
    with served("--config", path, "--on", inside, cwd=tmp_path) as server:
        second = live(Client(server.port()))
        assert second["pid"] == first["pid"] and second["settings"]["set"]["restore.strength"] == 0.5
    done = run_cli("serve", "--config", path, "--on", inside, "--end", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    until(lambda: is_gone(first["pid"]))
    done = run_cli("serve", "--config", path, "--on", inside, "--end", cwd=tmp_path)
    assert done.returncode == 1 and done.stderr.endswith("no fleet of cameras runs in this cluster\n")


def test_a_local_cluster_begins_and_ends_with_the_command(tmp_path):
    with served("--config", str(cameras_file(tmp_path)), "--on", "local", cwd=tmp_path) as server:
        pid = live(Client(server.port()))["pid"]
        assert server.stop() == 0
    until(lambda: is_gone(pid))
    assert "the cameras run on" not in server.output


@pytest.mark.parametrize(
    ("address", "words"),
    [
        ("ray://127.0.0.1:1", "cannot be reached (connection refused); does ray start --head run there?"),
        ("http://127.0.0.1", "is no address of a cluster; write ray://HOST:10001, HOST:6379 or auto"),
    ],
)
def test_a_cluster_that_cannot_be_reached_is_named_in_one_line(tmp_path, run_cli, address, words):
    done = run_cli("serve", "--data", tmp_path, "--port", "0", "--on", address, cwd=tmp_path)
    assert done.returncode == 1 and done.stderr.splitlines()[-1].endswith(f"serve: --on {address}: {words}")


NO_RAY = """
import importlib.util
import sys
found = importlib.util.find_spec
importlib.util.find_spec = lambda name, *rest: None if name == "ray" else found(name, *rest)
sys.argv = ["gpen-stream", "serve", "--data", sys.argv[1], "--port", "0", "--on", "auto"]
from stream.cli.main import main
main()
"""


def test_without_ray_one_line_says_what_to_install(tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", NO_RAY, tmp_path], capture_output=True, text=True, cwd=tmp_path
    )
    assert done.returncode == 1
    line = "serve: --on needs Ray; install it with pip install 'gpen-stream[cluster]'"
    assert done.stderr.splitlines()[-1].endswith(line)
