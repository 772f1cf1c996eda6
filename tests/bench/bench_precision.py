"""The loss of quality by precision and fidelity on damaged faces, against the clean picture.

    python tests/bench/bench_precision.py --faces DIR [--train DIR] [--count 24] [--int8] [--json]

DIR holds aligned faces of 288 px. Each is cropped to 256 px, blurred, reduced, given noise and compressed
(medium damage), and restored by gpen-lite-256 with each precision and fidelity. Figures are means over the
faces of the PSNR to the clean crop and of its loss against FP32; a precision may lose 0.12 dB. `--int8`
quantises by NNCF, which is not a dependency, with the faces of `--train`: the whole network, and with the
decoder's last levels and RGB layers left in FP32.
"""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import numpy as np

from stream.lab.damage import compression
from stream.models.engines import create_engine
from stream.models.engines.openvino_engine import network_folder, offered_precisions
from stream.models.engines.openvino_runtime import cached_network, cpu_config, openvino_core
from stream.models.info import bundled_model_path, read_model_info

ALLOWED_DB = 0.12
"""Largest mean loss of PSNR."""
Restore = Callable[[np.ndarray], np.ndarray]
SIDE = 256
KEPT_IN_FP32 = {
    "int8": (),
    "int8, RGB in FP32": (r".*to_rgb.*",),
    "int8, RGB and 128 px up in FP32": (r".*to_rgb.*", r".*convs\.(8|9|10|11).*", r".*ecd[012]\..*"),
    "int8, 16 to 32 px alone": (
        r".*to_rgb.*",
        r".*convs\.([6-9]|10|11).*",
        r".*ecd[0123]\..*",
        r".*(style|linear|modulation).*",
    ),
}


def clean_crop(path: Path) -> np.ndarray:
    """The middle 256 px of a face, RGB f32[256,256,3] in 0..1."""
    picture = cv2.cvtColor(cv2.imread(str(path)), cv2.COLOR_BGR2RGB)
    edge = (picture.shape[0] - SIDE) // 2
    return picture[edge : edge + SIDE, edge : edge + SIDE].astype(np.float32) / 255


def damaged(clean: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """The crop after medium damage: blur, reduction, noise, JPEG at the small size, enlargement."""
    small = cv2.GaussianBlur(clean, (0, 0), random.uniform(0.6, 1.4))
    side = int(SIDE / random.uniform(2.0, 3.5))
    small = cv2.resize(small, (side, side), interpolation=cv2.INTER_AREA)
    small = small + random.standard_normal(small.shape) * random.uniform(0.005, 0.03)
    levels = np.clip(small * 255, 0, 255).round().astype(np.uint8)
    small = compression.jpeg(levels, int(random.integers(45, 80)))
    large = cv2.resize(small, (SIDE, SIDE), interpolation=cv2.INTER_CUBIC)
    return large.astype(np.float32) / 255


def pairs(folder: Path, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Clean and damaged crops of `count` faces, evenly spaced in the folder."""
    paths = sorted(folder.glob("*.jpg"))
    paths = [paths[i] for i in np.linspace(0, len(paths) - 1, min(count, len(paths))).astype(int)]
    clean = np.stack([clean_crop(path) for path in paths])
    random = np.random.default_rng(4)
    return clean, np.stack([damaged(crop, random) for crop in clean])


def psnr_db(clean: np.ndarray, restored: np.ndarray) -> np.ndarray:
    """PSNR of each crop, dB."""
    error = np.square(np.clip(restored, 0, 1) - clean).mean((1, 2, 3))
    return -10 * np.log10(error)


def quantised(calibration: np.ndarray, kept: tuple[str, ...], threads: int) -> Restore:
    """A function that restores crops by the network quantised by NNCF."""
    import nncf

    core, info = openvino_core(), read_model_info(bundled_model_path())
    create_engine("openvino", bundled_model_path(), threads=threads).close()  # fills the cache
    network = cached_network(network_folder(info))
    names = [op.get_friendly_name() for op in network.get_ordered_ops()]
    patterns = [p for p in kept if any(re.fullmatch(p, name) for name in names)]
    data = nncf.Dataset(list(calibration), lambda crop: crop[None])
    network = nncf.quantize(
        network,
        data,
        subset_size=len(calibration),
        preset=nncf.QuantizationPreset.MIXED,
        ignored_scope=nncf.IgnoredScope(patterns=patterns) if patterns else None,
    )
    request = core.compile_model(network, "CPU", cpu_config(threads)).create_infer_request()
    return lambda crops: np.concatenate([request.infer([crop[None]])[0] for crop in crops])


def measure(arguments: argparse.Namespace) -> Iterator[dict[str, object]]:
    """One row for each variant of the network, as soon as it is measured; FP32 comes first."""
    clean, given = pairs(arguments.faces, arguments.count)
    yield {"way": "input", "psnr_db": round(float(psnr_db(clean, given).mean()), 3)}
    reference = None
    for name, restore in variants(arguments):
        restored = restore(given)
        psnr = psnr_db(clean, restored)
        if reference is None:
            reference, exact = psnr, restored
        loss = reference - psnr
        yield {
            "way": name,
            "psnr_db": round(float(psnr.mean()), 3),
            "loss_db": round(float(loss.mean()), 4),
            "largest_loss_db": round(float(loss.max()), 4),
            "within_0.12_db": bool(loss.mean() <= ALLOWED_DB),
            "mean_abs_to_fp32": float(f"{np.abs(restored - exact).mean():.2e}"),
        }


def variants(arguments: argparse.Namespace) -> Iterator[tuple[str, Restore]]:
    """Every variant of the network: its name, and a function that restores crops."""
    settings: dict[str, tuple[str, dict]] = {"fp32": ("openvino", {})}
    settings |= {p: ("openvino", {"precision": p}) for p in offered_precisions() if p != "fp32"}
    settings |= {f"fidelity {value}": ("openvino", {"fidelity": value}) for value in (0.9, 0.7, 0.5)}
    settings["fp16 arithmetic (torch)"] = ("torch", {"precision": "fp16"})
    for name, (kind, extra) in settings.items():
        engine = create_engine(kind, bundled_model_path(), device="cpu", threads=arguments.threads, **extra)
        yield name, engine.restore
        engine.close()
    if arguments.int8:
        calibration = pairs(arguments.train, arguments.calibrate)[1]
        for name, kept in KEPT_IN_FP32.items():
            yield name, quantised(calibration, kept, arguments.threads)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--faces", type=Path, required=True, help="aligned faces of 288 px to measure on")
    parser.add_argument("--train", type=Path, help="other faces, for the calibration of INT8")
    parser.add_argument("--count", type=int, default=24)
    parser.add_argument("--calibrate", type=int, default=100, help="number of faces for the calibration")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--int8", action="store_true")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    if arguments.int8 and arguments.train is None:
        parser.error("--int8 needs --train DIR")
    if arguments.json:
        print(json.dumps(list(measure(arguments)), indent=1))
        return
    columns = ("way", "psnr_db", "loss_db", "largest_loss_db", "mean_abs_to_fp32")
    print("| " + " | ".join(columns) + " |\n" + "|---" * len(columns) + "|")
    for row in measure(arguments):
        print("| " + " | ".join(str(row.get(column, "")) for column in columns) + " |", flush=True)


if __name__ == "__main__":
    main()
