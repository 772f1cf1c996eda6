"""The cores that a process has, and how its pools share them."""

from __future__ import annotations

import json
import os
from fractions import Fraction

import av
import pytest

from stream.pipeline.cpu_budget import ThreadBudget, available_cores, budget, cpu_quota, ordinary_priority

V2_MOUNT = "30 23 0:26 / /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw\n"
V1_MOUNT = "32 31 0:29 {top} /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct\n"
SET_MOUNT = "33 31 0:30 / /sys/fs/cgroup/cpuset rw - cgroup cgroup rw,cpuset\n"

# Path of the process's own group, mounts, files, and the quota that follows.
TREES = {
    "no cgroups": ("", "", {}, None),
    "v2, no quota": ("0::/app", V2_MOUNT, {"app/cpu.max": "max 100000"}, None),
    "v2, own quota": ("0::/app", V2_MOUNT, {"app/cpu.max": "250000 100000"}, 2.5),
    "v2, tighter above": (
        "0::/slice/app/job",
        V2_MOUNT,
        {"slice/cpu.max": "50000 100000", "slice/app/cpu.max": "max 100000", "slice/app/job/cpu.max": "4 2"},
        0.5,
    ),
    "v2, a container's own root": ("0::/", V2_MOUNT, {"cpu.max": "300000 100000"}, 3.0),
    "v1": (
        "4:cpuset:/\n3:cpuacct,cpu:/app/job",
        SET_MOUNT + V1_MOUNT.format(top="/"),
        {
            "cpu,cpuacct/app/cpu.cfs_quota_us": "150000",
            "cpu,cpuacct/app/cpu.cfs_period_us": "100000",
            "cpu,cpuacct/app/job/cpu.cfs_quota_us": "-1",
            "cpu,cpuacct/app/job/cpu.cfs_period_us": "100000",
        },
        1.5,
    ),
    "v1, a path of the host's": (
        "3:cpu,cpuacct:/docker/4f2a",
        V1_MOUNT.format(top="/docker/4f2a"),
        {"cpu,cpuacct/cpu.cfs_quota_us": "20000", "cpu,cpuacct/cpu.cfs_period_us": "10000"},
        2.0,
    ),
    "v1, a path outside the mount": (
        "3:cpu,cpuacct:/elsewhere",
        V1_MOUNT.format(top="/docker/4f2a"),
        {"cpu,cpuacct/cpu.cfs_quota_us": "20000", "cpu,cpuacct/cpu.cfs_period_us": "10000"},
        2.0,
    ),
    "both": (
        "3:cpu:/a\n0::/b",
        V2_MOUNT.replace("/sys/fs/cgroup ", "/sys/fs/cgroup/unified ")
        + V1_MOUNT.format(top="/").replace("cpu,cpuacct", "cpu"),
        {
            "cpu/a/cpu.cfs_quota_us": "700000",
            "cpu/a/cpu.cfs_period_us": "100000",
            "unified/b/cpu.max": "600000 100000",
        },
        6.0,
    ),
}


def plant(root, own, mounts, files):
    (root / "proc/self").mkdir(parents=True)
    if own:
        (root / "proc/self/cgroup").write_text(own + "\n")
        (root / "proc/self/mountinfo").write_text("22 1 8:1 / / rw - ext4 /dev/sda1 rw\n" + mounts)
    for name, text in files.items():
        path = root / "sys/fs/cgroup" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text + "\n")
    return root


@pytest.mark.parametrize("name", TREES)
def test_the_tightest_quota_of_a_group_and_those_above_it_counts(tmp_path, name):
    *tree, quota = TREES[name]
    assert cpu_quota(plant(tmp_path, *tree)) == quota


@pytest.mark.parametrize(("quota", "cores"), [(0.2, 1), (1.0, 1), (1.2, 2), (2.0, 2), (2.5, 3), (900.0, 8)])
def test_part_of_a_core_counts_as_one_and_a_quota_never_adds_any(tmp_path, monkeypatch, quota, cores):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)), raising=False)
    tree = plant(tmp_path, "0::/app", V2_MOUNT, {"app/cpu.max": f"{round(quota * 100000)} 100000"})
    assert available_cores(tree) == cores


@pytest.mark.parametrize("cores", [1, 2, 3, 4, 6, 8, 12, 16, 32, 64, 192])
def test_no_pool_is_empty_and_together_they_stay_sensible(cores):
    shared = budget(cores)
    assert shared.inference == cores and shared.cv2 == 1
    assert min(shared.detector, shared.decoder, shared.encoder) >= 1
    assert shared.decoder <= shared.detector <= shared.encoder <= min(16, cores)
    everything = shared.inference + shared.detector + shared.decoder + shared.encoder
    assert everything <= max(4, 3 * cores)


def test_the_users_own_numbers_stay():
    assert budget(4, inference=3, decoder=7, encoder=9) == ThreadBudget(3, 2, 7, 9)


@pytest.mark.parametrize("cores", [1, 2, 8, 64])
def test_a_live_detector_has_every_core_that_helps_unless_the_user_keeps_some_back(cores):
    assert budget(cores).for_live().detector == min(8, cores)
    assert budget(cores, inference=1).for_live().detector == budget(cores).detector


REAL = """
import json, os, sys
cores, source, target, *settings = sys.argv[1:]
if cores == "1":
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
import cv2
import stream.models.engines, openvino as ov
from stream.job import api
from stream.job.interface import Options
from stream.media import decode, encoder_setup
from stream.config import load_config

compiled, encoders, decoders = [], [], []

def noting(function, into, result=True):
    def call(*arguments, **named):
        answer = function(*arguments, **named)
        into.append(answer if result else arguments[0])
        return answer
    return call

ov.Core.compile_model = noting(ov.Core.compile_model, compiled)
encoder_setup.configure = noting(encoder_setup.configure, encoders, result=False)
decode.FileSource._open = noting(decode.FileSource._open, decoders)
opened = decode.FileSource._open
def threads_of_decoder(source):
    container = opened(source)
    decoders[-1] = decode.video_stream(container).codec_context.thread_count
    return container
decode.FileSource._open = threads_of_decoder
options = Options(duration_s=0.2)
report = api.restore_file(source, target, load_config(overrides=settings), options=options).report
torch = sys.modules.get("torch")
print(json.dumps({
    "cores": report["cores"],
    "threads": report["threads"],
    "openvino": [net.get_property("INFERENCE_NUM_THREADS") for net in compiled],
    "torch": torch.get_num_threads() if torch else None,
    "cv2": cv2.getNumThreads(),
    "encoders": [context.thread_count for context in encoders],
    "decoders": decoders,
    "faces": report["faces_restored"],
}))
"""


def measured(run_cli, portrait, target, cores, *settings):
    done = run_cli(cores, portrait, target, *settings, code=REAL)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="no affinity here")
def test_a_process_held_to_one_core_has_one_thread_in_every_pool(run_cli, portrait, tmp_path):
    seen = measured(run_cli, portrait, tmp_path / "out.mp4", "1")
    assert seen["cores"] == 1 and set(seen["threads"].values()) == {1} and seen["faces"] > 0
    assert len(seen["openvino"]) >= 2 and set(seen["openvino"]) == {1}
    assert seen["cv2"] == 1
    assert set(seen["encoders"]) == set(seen["decoders"]) == {1}


def test_threads_that_are_set_reach_the_real_pools(run_cli, portrait, tmp_path):
    settings = ["restore.threads=1", "encode.threads=3", "decode.threads=2", "restore.engine=torch"]
    seen = measured(run_cli, portrait, tmp_path / "out.mp4", "all", *settings)
    assert seen["threads"] == {
        "inference": 1, "detector": budget(seen["cores"]).detector, "decoder": 2, "encoder": 3, "cv2": 1,
    }  # fmt: skip
    assert set(seen["openvino"]) == {seen["threads"]["detector"]}, "the detector alone runs on it here"
    assert seen["encoders"] and set(seen["encoders"]) == {3} and set(seen["decoders"]) == {2}
    assert seen["torch"] == 1


def test_retinaface_takes_the_detectors_share_of_torch(run_cli, tmp_path):
    """The test needs a process of its own, because torch's pool belongs to the whole process."""
    code = (
        "import sys, torch, numpy as np\n"
        "from facexlib.detection.retinaface import RetinaFace as Net\n"
        "from stream.config import Detect\n"
        "from stream.faces.detect.finder import FaceFinder\n"
        "torch.save(Net(network_name='resnet50', device='cpu').state_dict(), sys.argv[1])\n"
        "FaceFinder(Detect(detector='retinaface', weights=sys.argv[1]), threads=3)\n"
        "print(torch.get_num_threads())\n"
    )
    done = run_cli(tmp_path / "weights.pth", code=code)
    assert done.stdout.split() == ["3"], done.stderr


@pytest.mark.skipif(not hasattr(os, "sched_getscheduler"), reason="no scheduling classes here")
def test_an_av1_encoder_run_as_root_leaves_no_thread_in_the_real_time_class():
    encoder = av.CodecContext.create("libsvtav1", "w")
    encoder.width, encoder.height, encoder.pix_fmt = 64, 64, "yuv420p"
    encoder.time_base = Fraction(1, 25)
    encoder.open()
    ordinary_priority()
    policies = {os.sched_getscheduler(int(task)) for task in os.listdir("/proc/self/task")}
    assert policies == {os.SCHED_OTHER}
