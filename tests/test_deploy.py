"""The files of deploy/ and docs/operators.md, read as systemd, Docker and Prometheus read them."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import zipfile
from fnmatch import fnmatch
from functools import cache
from pathlib import Path

import pytest
import typer
import yaml
from dashboard import report
from prometheus_client.parser import text_string_to_metric_families
from servers import free_port, wait_for
from waiting import LIMIT_S
from webhook_receiver import Receiver

from stream.cli.main import app
from stream.config import Config
from stream.live.session.degradation import LEVELS
from stream.live.session.live_settings import LiveSettings
from stream.live.status import ConnectionState
from stream.server.camera_config import CameraSettings, CamerasFile, load_cameras
from stream.server.dashboard.jobs import JobQueue
from stream.server.dashboard.metrics import exposition
from stream.server.events import Events
from stream.server.restorer_service.restorer_messages import RestorerReport
from stream.server.supervisor.camera_status import CameraStatus, RestorerStatus
from stream.server.supervisor.supervisor import Supervisor

ROOT = Path(__file__).parent.parent
DEPLOY = ROOT / "deploy"
UNIT = DEPLOY / "gpen-stream.service"
GUIDE = (ROOT / "docs" / "operators.md").read_text()
BLOCKS = re.findall(r"```(\w+)\n(.*?)```", GUIDE, re.S)
PATIENCE_S = LIMIT_S


def unit():
    """The unit's settings, a list for each key: it may come up several times."""
    settings = {}
    for line in UNIT.read_text().splitlines():
        if line and line[0] not in "#[":
            key, _, value = line.partition("=")
            settings.setdefault(key, []).append(value)
    return settings


@cache
def dockerfile():
    """Its instructions, as pairs of name and argument, lines joined."""
    text = re.sub(r"\\\n", " ", re.sub(r"(?m)^#.*\n", "", (DEPLOY / "Dockerfile").read_text()))
    return [tuple(line.split(maxsplit=1)) for line in text.splitlines() if line.strip()]


def instructions(name):
    return [value for key, value in dockerfile() if key == name]


def compose():
    return yaml.safe_load((DEPLOY / "compose.yaml").read_text())["services"]["gpen-stream"]


def options(arguments):
    """The parsed options of `gpen-stream ARGUMENTS`; raises for one that does not exist."""
    command = typer.main.get_command(app)
    name, *rest = arguments
    return command.commands[name].make_context(name, list(rest)).params


def test_systemd_accepts_the_unit_without_a_word(tmp_path):
    copy = tmp_path / UNIT.name
    copy.write_text(UNIT.read_text().replace("/opt/gpen-stream/bin/gpen-stream", sys.executable))
    done = subprocess.run(["systemd-analyze", "verify", copy], capture_output=True, text=True)
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


def test_systemd_rates_the_unit_as_hardened(tmp_path):
    command = ["systemd-analyze", "security", "--offline=yes", "--threshold=20", "--no-pager", UNIT]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout  # an exposure of 2.0 of 10 at most


def test_the_unit_runs_as_its_own_user_and_gives_cameras_the_time_to_flush():
    settings = unit()
    assert settings["User"] == ["gpen-stream"] and settings["NoNewPrivileges"] == ["yes"]
    assert settings["KillMode"] == ["mixed"] and int(settings["TimeoutStopSec"][0]) > 10
    arguments = settings["ExecStart"][0].split()[1:]
    assert options(arguments)["data"] == Path("/var/lib") / settings["StateDirectory"][0]
    folders = " ".join(settings["Environment"])
    assert "GPEN_STREAM_MODELS=/var/lib/" in folders and "GPEN_STREAM_CACHE=/var/cache/" in folders


def test_everything_that_the_image_copies_is_there_and_is_not_ignored():
    rules = (DEPLOY / "Dockerfile.dockerignore").read_text().split()
    sources = [
        source
        for value in instructions("COPY")
        if not value.startswith("--from")
        for source in value.split()[:-1]
    ]
    assert {"pyproject.toml", "stream", "config"} <= set(sources)
    for source in sources:
        assert (ROOT / source).exists(), source
        decisive = [rule for rule in rules if fnmatch(source, rule.lstrip("!"))][-1]
        assert decisive.startswith("!"), f"{source} is kept out by {decisive}"


def test_what_the_image_copies_is_enough_to_build_the_package(tmp_path):
    for value in instructions("COPY"):
        for source in value.split()[:-1] if not value.startswith("--from") else ():
            if (ROOT / source).is_dir():
                skipped = shutil.ignore_patterns("__pycache__")
                shutil.copytree(ROOT / source, tmp_path / source, ignore=skipped)
            else:
                shutil.copy(ROOT / source, tmp_path)
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel"]
    subprocess.run(command, cwd=tmp_path, check=True, capture_output=True)
    (wheel,) = (tmp_path / "dist").iterdir()
    names = zipfile.ZipFile(wheel).namelist()
    assert {"stream/server/dashboard/static/index.html", "stream/presets/fast.yaml"} <= set(names)


def test_the_image_is_built_on_the_named_python_and_names_no_registry():
    assert {value.split()[0] for value in instructions("FROM")} == {"python:3.11-slim"}
    for file in DEPLOY.iterdir():
        assert "://" not in file.read_text().replace("http://127.0.0.1:", ""), file.name


def test_the_image_runs_as_somebody_who_is_not_root_and_has_a_health_check():
    assert instructions("USER") == ["10001:10001"]
    assert [key for key, _ in dockerfile()].index("USER") > [key for key, _ in dockerfile()].index("RUN")
    assert "/healthz" in instructions("HEALTHCHECK")[0]


def test_the_composition_builds_from_the_clone_locked_down():
    service = compose()
    context = DEPLOY / service["build"]["context"]
    assert context.resolve() == ROOT and (context / service["build"]["dockerfile"]).is_file()
    assert service["user"] == "10001:10001" and service["read_only"] is True
    assert service["cap_drop"] == ["ALL"] and service["security_opt"] == ["no-new-privileges:true"]
    assert int(service["stop_grace_period"].rstrip("s")) > 10
    assert all(port.startswith("127.0.0.1:") for port in service["ports"])
    volumes = json.loads(instructions("VOLUME")[0])
    assert sorted(mount.split(":")[1] for mount in service["volumes"]) == sorted(volumes)


def test_the_example_of_the_environment_is_what_systemd_and_docker_both_read():
    lines = [line for line in (DEPLOY / "environment.example").read_text().splitlines() if line[0] != "#"]
    assert lines and all(re.fullmatch(r"[A-Z][A-Z0-9_]*=[^\s'\"]+", line) for line in lines)
    assert "deploy/environment" in (ROOT / ".gitignore").read_text().split()


def test_the_images_command_serves_passes_its_health_check_tells_its_webhook_and_ends(tmp_path):
    data, receiver, port = tmp_path / "data", Receiver(), str(free_port())
    data.mkdir()
    (data / "cameras.yaml").write_text(
        "server: {webhook: {url: 'http://127.0.0.1:${HOOK}', secret_env: SECRET, kinds: [source_refused]}}\n"
        "cameras: {door: {source: 'rtsp://${LOGIN}@127.0.0.1:1/live', preset: fast}}\n"
    )
    arguments = json.loads(instructions("CMD")[0])
    assert options(arguments)["host"] == "0.0.0.0"
    here = {"/data": str(data), "8080": port, "0.0.0.0": "127.0.0.1"}
    command = [sys.executable, "-m", "stream.cli", *(here.get(part, part) for part in arguments)]
    environment = os.environ | {
        "HOME": "/nonexistent",  # as in the container: only its folders can be written
        "GPEN_STREAM_CACHE": str(tmp_path / "cache"), "GPEN_STREAM_MODELS": str(data / "models"),
        "MPLCONFIGDIR": str(tmp_path / "cache/matplotlib"), "PYTHONPATH": str(ROOT),
        "HOOK": str(receiver.port), "SECRET": "hunter3", "LOGIN": "viewer:hunter2",
    }  # fmt: skip
    check = json.loads(instructions("HEALTHCHECK")[0].partition("CMD ")[2])
    check = [sys.executable, *(part.replace("8080", port) for part in check[1:])]
    log = tmp_path / "log"
    assert subprocess.run(check, capture_output=True).returncode != 0  # there is no server yet
    with log.open("w") as stream:
        server = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=stream, stderr=stream)
    try:
        wait_for(lambda: "dashboard: " in log.read_text(), PATIENCE_S)
        assert subprocess.run(check, capture_output=True).returncode == 0
        wait_for(lambda: receiver.requests, PATIENCE_S)
        server.send_signal(signal.SIGTERM)
        assert server.wait(PATIENCE_S) == 0  # tests/bench/bench_stop.py measures the time
    finally:
        server.kill()
        server.wait()
        receiver.close()
    _, headers, event, _ = receiver.requests[0]
    assert (event["camera"], event["kind"]) == ("door", "source_refused")
    assert headers["X-Gpen-Stream-Secret"] == "hunter3"
    line = next(line for line in log.read_text().splitlines() if "source_refused" in line)
    assert "WARNING door source_refused: " in line and event["text"] in line
    assert "hunter" not in log.read_text() and "hunter" not in json.dumps(event)


# --- the guide ------------------------------------------------------------------------------------


def blocks(language, containing):
    return [text for kind, text in BLOCKS if kind == language and containing in text]


def test_the_guides_cameras_are_ten_and_are_accepted(tmp_path, monkeypatch):
    for line in (DEPLOY / "environment.example").read_text().splitlines():
        if not line.startswith("#"):
            monkeypatch.setenv(*line.split("=", 1))
    (text,) = blocks("yaml", "\ncameras:")
    path = tmp_path / "cameras.yaml"
    path.write_text(text)
    file = load_cameras(path)
    assert len(file.cameras) == 10 and file.server.webhook is not None
    supervisor = Supervisor(file, None, Events())  # it also refuses two cameras in one folder
    supervisor.stop()


def test_nginx_accepts_the_guides_proxy(tmp_path):
    (location,) = blocks("nginx", "location /")
    (outside,) = re.findall(r"`(map [^`]*\})`", GUIDE)
    (tmp_path / "nginx.conf").write_text(
        f"error_log stderr; pid {tmp_path}/pid; events {{}}\n"
        f"http {{ access_log off; {outside} server {{ listen 127.0.0.1:{free_port()}; {location} }} }}\n"
    )
    done = subprocess.run(
        ["nginx", "-t", "-p", tmp_path, "-c", tmp_path / "nginx.conf"], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


@pytest.fixture
def metric_names(tmp_path):
    """Every name that /metrics can show, by a server all of whose parts report."""

    class Reporting(Supervisor):
        def cameras(self):
            door = CameraSettings(source="test:")
            return [CameraStatus("door", door, "running", "live", pid=1, restarts=0, nice=0, report=report())]

        def restorer(self):
            restored = RestorerReport(
                cameras=1, calls=1, crops={"door": 1}, load=0.5, models=(), engine="openvino-cpu",
                delay={"median_ms": 1.0, "p95_ms": 1.0},
            )  # fmt: skip
            return RestorerStatus(pid=1, restarts=0, report=restored)

    supervisor = Reporting(CamerasFile.model_validate({"server": {"data": str(tmp_path)}}), None, Events())
    families = list(text_string_to_metric_families(exposition(supervisor, JobQueue(tmp_path), 0).decode()))
    supervisor.stop()
    return {sample.name for family in families for sample in family.samples}


def test_the_guides_alerts_name_only_metrics_that_there_are(metric_names):
    (text,) = blocks("yaml", "groups:")
    rules = [rule for group in yaml.safe_load(text)["groups"] for rule in group["rules"]]
    assert len(rules) >= 10 and len({rule["alert"] for rule in rules}) == len(rules)
    for rule in rules:
        assert {"alert", "expr", "labels", "annotations"} <= set(rule) and "summary" in rule["annotations"]
        expression = rule["expr"]
        assert expression.count("(") == expression.count(")")
        named = re.findall(r"\bgpen_stream_\w+", expression)
        assert set(named) <= metric_names, expression
        assert named or expression.startswith("up{"), expression


def test_every_metric_that_the_guide_names_is_there(metric_names):
    named = set(re.findall(r"gpen_stream_[a-z_]+", GUIDE))
    assert named <= metric_names, named - metric_names


def test_every_word_of_a_status_and_every_level_is_explained():
    for state in ConnectionState:
        assert f"| {state.value}" in GUIDE, state
    for number, level in enumerate(LEVELS):
        assert f"| {number} | {level.words} |" in GUIDE


def test_every_kind_of_event_is_explained():
    source = "".join(path.read_text() for path in (ROOT / "stream").rglob("*.py"))
    kinds = set(re.findall(r"(?:on_event|on_trouble)\(\s*\"([a-z_]+)\"", source))
    kinds |= set(re.findall(r"\b(?:event|kind)(?:: str)? ?= ?\"([a-z]+_[a-z_]+)\"", source))
    kinds |= set(re.findall(r"add\(\"\", \"([a-z_]+)\"", source))
    assert {"camera_up", "disk_low", "sink_failed", "webhook_failed"} <= kinds
    for kind in kinds:
        assert f"| `{kind}` |" in GUIDE, kind


def test_settings_that_the_guide_names_exist(tmp_path):
    text = "".join(
        f" {name}" for name in re.findall(r"`((?:source|latency|motion|live|record)\.\w+)`", GUIDE)
    )

    config = Config()
    for name in text.split():
        section, key = name.split(".")
        assert hasattr(getattr(config, section), key), name


def test_what_the_dashboard_changes_live_is_what_the_guide_says():
    (sentence,) = re.findall(r"(Strength, [^.]*)change without a\s+break", GUIDE)
    words = re.sub(r"\([^)]*\)", "", sentence).lower().replace(" and ", ", ")
    assert {word.strip() for word in words.split(",")} == set(LiveSettings.model_fields)


# --- clusters -----------------------------------------------------------------------------------


def test_ray_accepts_the_file_for_ray_up():
    from ray.autoscaler._private.util import prepare_config, validate_config

    cluster = yaml.safe_load((DEPLOY / "cluster.yaml").read_text())
    validate_config(prepare_config(cluster))
    start = " ".join(cluster["head_start_ray_commands"] + cluster["worker_start_ray_commands"])
    assert start.count("RAY_AUTH_MODE=token") == start.count("ray start") == 2


def test_the_kubernetes_cluster_asks_for_a_token_and_keeps_its_object_store_small():
    cluster = yaml.safe_load((DEPLOY / "kuberay.yaml").read_text())
    assert (cluster["apiVersion"], cluster["kind"]) == ("ray.io/v1", "RayCluster")
    groups = [cluster["spec"]["headGroupSpec"], *cluster["spec"]["workerGroupSpecs"]]
    for group in groups:
        (container,) = group["template"]["spec"]["containers"]
        names = {variable["name"] for variable in container["env"]}
        assert {"RAY_AUTH_MODE", "RAY_AUTH_TOKEN"} <= names
        assert {mount["name"] for mount in container["volumeMounts"]} <= {
            volume["name"] for volume in group["template"]["spec"]["volumes"]
        }
        assert int(group["rayStartParams"]["object-store-memory"]) <= 256 * 2**20
    assert groups[0]["rayStartParams"]["num-cpus"] == "0"  # the head restores nothing


def test_the_commands_of_the_cluster_page_are_rays_own():
    page = (ROOT / "docs" / "cluster.md").read_text()
    used = re.findall(r"^RAY_AUTH_MODE=token ray (start .*)", page, re.M)
    assert len(used) >= 2
    command = [sys.executable, "-m", "ray.scripts.scripts", "start", "--help"]
    help_text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    for option in {word.partition("=")[0] for line in used for word in line.split() if word[:2] == "--"}:
        assert option in help_text, option
