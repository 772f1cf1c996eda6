"""Test of the sharpness measure on aligned faces at four levels of damage: whether it skips the right ones.

    python tests/bench/bench_sharpness.py --faces DIR [--draws 1] [--json FILE] [--chart FILE.png]
    python tests/bench/bench_sharpness.py --faces DIR [--draws 1] --calibrate [--more DIR]

DIR holds aligned faces of 288 px: the FFHQ template at 256 px with a margin of 16 px. Each is scaled to 64,
128, 256 and 512 px and damaged at each level, randomly but with fixed seeds: by blur, reduction, noise, and
JPEG or H.264, or by one of these alone. "mixed" faces have any size and any mixture of damage. The
product's own crop, network and compositor process each picture. PSNR is measured inside the face's mask, at
the picture's own size, against the undamaged picture.

The half of the people on which models are chosen is used for calibration, together with every eighth face
of the folder `--more`, since 48 people are too few; `--calibrate` writes
`stream/weights/sharpness.safetensors`. The other half is used for the report: `--json` and `--chart` wrote
`docs/bench/sharpness.json` and `docs/img/sharpness.png`.
"""

from __future__ import annotations

import argparse
import hashlib
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
from safetensors.numpy import save_file

from stream.config import Restore
from stream.faces.compose.compose_stage import ComposeStage
from stream.faces.restore import sharpness
from stream.faces.restore.crop import cut
from stream.lab.bench.machine import machine
from stream.lab.bench.report import BenchReport, Row, Table, markdown
from stream.lab.damage import compression
from stream.lab.quality.portraits import split
from stream.models.engines import create_engine
from stream.models.info import bundled_model_path
from stream.picture import geometry
from stream.picture.colour import Colour
from stream.picture.face import Crop, Face, FrameWork, Patch
from stream.picture.frame import Frame, Timestamp, View

SIZES = (64, 128, 256, 512)
"""Sides of the face's crop in px of the picture."""
FEATHER = 0.16
FLOOR_DB = 45.0
"""PSNR that the undamaged pictures, which are JPEGs themselves, are assumed to have. Without it the loss of
a picture without damage would be infinite."""


@dataclass(frozen=True)
class Level:
    """Ranges of random values: blur and shrink in px of a 256 px face, noise in levels of 0..255."""

    blur: tuple[float, float]
    shrink: tuple[float, float]
    noise: tuple[float, float]
    jpeg: tuple[int, int]
    crf: tuple[int, int]


LEVELS = {
    "near-clean": Level((0.0, 0.45), (1.0, 1.0), (0.0, 1.5), (88, 97), (15, 20)),
    "mild": Level((0.4, 1.0), (1.0, 1.5), (1.0, 4.0), (60, 85), (22, 27)),
    "medium": Level((0.8, 1.8), (1.5, 3.0), (3.0, 8.0), (35, 65), (28, 34)),
    "heavy": Level((1.5, 3.0), (3.0, 6.0), (6.0, 14.0), (15, 40), (34, 40)),
}
MIXED = Level((0.0, 2.0), (1.0, 4.0), (0.0, 16.0), (5, 97), (15, 44))
"""Any mixture of any strength; each kind of damage is there in two of three pictures."""


@dataclass(frozen=True)
class Sample:
    """One damaged face: the measure's features, and PSNR in dB before and after restoration.

    `restored` is the PSNR after full restoration, `product` that with `skip_sharp`.
    """

    picture: int
    level: str
    size: int
    features: np.ndarray
    before: float
    restored: float
    product: float
    sharp: float

    @property
    def gain(self) -> float:
        """Gain by full restoration, dB."""
        return self.restored - self.before


def damage(rng: np.random.Generator, rgb: np.ndarray, name: str, size: int) -> np.ndarray:
    """The damaged picture, RGB u8[h,w,3]. Blur and reduction scale with the face; noise and blocks do not.

    Three of four pictures have all kinds of damage of the level, the fourth has only one. Of the mixed
    pictures, every other has only one.
    """
    level = LEVELS.get(name, MIXED)
    height, width = rgb.shape[:2]
    parts = dict.fromkeys(("blur", "shrink", "noise", "blocks"), True)
    if name == "mixed":
        parts = {part: rng.random() < 0.67 for part in parts}
    if rng.random() < (0.5 if name == "mixed" else 0.25):
        parts = dict.fromkeys([str(rng.choice(list(parts)))], True)
    image = rgb.astype(np.float32)
    blur, shrink = rng.uniform(*level.blur) * size / 256, rng.uniform(*level.shrink) * max(size, 128) / 256
    if parts.get("blur") and blur > 0.15:
        image = cv2.GaussianBlur(image, (0, 0), blur)
    if parts.get("shrink") and shrink > 1.05:
        small = max(8, round(width / shrink)), max(8, round(height / shrink))
        image = cv2.resize(image, small, interpolation=cv2.INTER_AREA)
    noise = rng.uniform(*level.noise) if parts.get("noise") else 0.0
    grey, grain = rng.random(), rng.uniform(0, 0.8)

    def noisy(picture: np.ndarray) -> np.ndarray:
        """Add sensor noise: partly common to all channels, stronger in the dark, new in each picture."""
        drawn = rng.normal(0, 1, (*picture.shape[:2], 4)).astype(np.float32)
        if grain > 0.3:
            drawn = cv2.GaussianBlur(drawn, (0, 0), grain)
        drawn = np.sqrt(grey) * drawn[..., :1] + np.sqrt(1 - grey) * drawn[..., 1:]
        sigma = noise * (1.25 - 0.5 * picture / 255) / max(float(drawn.std()), 1e-6)
        return np.clip(np.rint(picture + drawn * sigma), 0, 255).astype(np.uint8)

    if parts.get("blocks") and rng.random() < 0.6 and min(image.shape[:2]) >= 32:
        shots = [
            noisy(cv2.warpAffine(image, np.float32([[1, 0, x], [0, 1, 0]]), image.shape[1::-1],
                                 borderMode=cv2.BORDER_REFLECT_101))
            for x in (-3, -2, -1, 0)
        ]  # fmt: skip
        picture = through_h264(shots, round(rng.uniform(*level.crf)))
    else:
        picture = noisy(image)
        if parts.get("blocks"):
            picture = compression.jpeg(picture, int(rng.uniform(*level.jpeg)))
    if picture.shape != rgb.shape:
        picture = cv2.resize(picture, (width, height), interpolation=cv2.INTER_CUBIC)
    return np.ascontiguousarray(picture)


def through_h264(shots: list[np.ndarray], crf: int) -> np.ndarray:
    """The last of some pictures u8[h,w,3] after compression by x264; an odd row or column stays unchanged."""
    height, width = (side // 2 * 2 for side in shots[0].shape[:2])
    encoder = av.CodecContext.create("libx264", "w")
    encoder.width, encoder.height, encoder.pix_fmt = width, height, "yuv420p"
    encoder.time_base, encoder.max_b_frames = Fraction(1, 25), 0
    encoder.options = {"crf": str(crf), "preset": "veryfast", "threads": "1"}
    packets = []
    for index, shot in enumerate(shots):
        picture = av.VideoFrame.from_ndarray(np.ascontiguousarray(shot[:height, :width]), format="rgb24")
        picture = picture.reformat(format="yuv420p", dst_colorspace=1)
        picture.pts, picture.time_base = index, Fraction(1, 25)
        packets += encoder.encode(picture)
    packets += encoder.encode(None)
    decoder = av.CodecContext.create("h264", "r")
    decoder.extradata = encoder.extradata
    pictures = [picture for packet in (*packets, None) for picture in decoder.decode(packet)]
    result = shots[-1].copy()
    result[:height, :width] = pictures[-1].reformat(format="rgb24", src_colorspace=1).to_ndarray()
    return result


def placed(rng: np.random.Generator, size: int, side: int) -> np.ndarray:
    """Affine f64[2,3] from a crop to a picture of `side` px: its middle, slightly rotated and shifted."""
    angle, scale = np.deg2rad(rng.uniform(-10, 10)), rng.uniform(0.95, 1.06) * size / 256
    turn = scale * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    centre = np.array([side / 2, side / 2]) + rng.uniform(-8, 8, 2) * size / 256
    return np.hstack([turn, (centre - turn @ [128, 128])[:, None]])


def frame_of(rgb: np.ndarray) -> Frame:
    """The picture RGB u8[h,w,3] as a frame."""
    picture = av.VideoFrame.from_ndarray(np.ascontiguousarray(rgb), format="rgb24")
    return Frame(0, Timestamp(0, Fraction(1, 25)), picture, View(*rgb.shape[1::-1]), Colour(0, 1, 1, True))


def psnr(one: np.ndarray, two: np.ndarray, mask: np.ndarray) -> float:
    """PSNR inside the mask in dB, with the error of `FLOOR_DB` added."""
    error = ((one.astype(np.float32) - two)[mask] ** 2).mean() / 255**2
    return float(-10 * np.log10(error + 10 ** (-FLOOR_DB / 10)))


def sample(engine, picture: int, image: np.ndarray, name: str, size: int, draw: int, limit: float) -> Sample:
    """Damage one face and restore it, fully and with the product's `limit`."""
    rng = np.random.default_rng([picture, [*LEVELS, "mixed"].index(name), size, draw])
    size = size or int(np.exp(rng.uniform(np.log(48), np.log(600))))
    side = round(288 * size / 256)
    kind = cv2.INTER_AREA if size < 256 else cv2.INTER_CUBIC
    clean = cv2.resize(image, (side, side), interpolation=kind)
    bad = damage(rng, clean, name, size)
    to_stored = placed(rng, size, side)
    face = Face(0, np.zeros(4), np.zeros((5, 2)), 1.0, coasted=False, confidence=1.0)
    frame = frame_of(bad)
    crop = Crop(face, cut(frame, to_stored, 256), to_stored, frame.view)
    residual = np.clip(engine.restore(crop.image[None])[0], 0, 1) - crop.image
    mask = np.dstack([geometry.feather_mask(256, FEATHER)] * 3)
    mask = geometry.warp(mask, geometry.invert(to_stored), (side, side), cv2.BORDER_CONSTANT)[..., 0] > 0.5
    scale = geometry.scale_of(to_stored)
    sharp = sharpness.sharpness_of_gain(sharpness.predicted_gain(crop.image, scale))

    def result(weight: float) -> float:
        work = FrameWork(frame_of(bad), patches=(Patch(crop, residual * np.float32(weight)),))
        (done,) = ComposeStage(FEATHER).process(work)
        return psnr(done.frame.picture.to_ndarray(format="rgb24"), clean, mask)

    restored, weight = result(1.0), sharpness.restoration_weight(sharp, limit)
    return Sample(
        picture, name, size, sharpness.features(crop.image, scale), psnr(bad, clean, mask), restored,
        restored if weight == 1 else result(weight), sharp,
    )  # fmt: skip


def gather(files: list[Path], draws: int, mixed: int, limit: float) -> list[Sample]:
    """Samples of each aligned face: every level at every size `draws` times, and `mixed` mixed ones."""
    engine = create_engine("openvino", bundled_model_path())
    kinds = [(name, size, n) for name in LEVELS for size in SIZES for n in range(draws)]
    kinds += [("mixed", 0, n) for n in range(mixed)]
    return [
        sample(engine, number, cv2.imread(str(path))[..., ::-1], *kind, limit)
        for number, path in enumerate(files)
        for kind in kinds
    ]


def half(folder: Path, which: str) -> list[Path]:
    """The faces of one half of the people, "choose" or "report" (`stream.lab.quality.portraits.split`)."""
    files = {path.stem: path for path in folder.glob("*.jpg")}
    return [files[name] for name in split(files, which)]


def calibrate(samples: list[Sample], networks: int = 6) -> dict[str, np.ndarray]:
    """Fit the gain, limited to -2..1 dB, by the mean of some networks with 16 hidden units each.

    A single network depends on the order of its samples: the sharpness of a borderline face varies by 0.2.
    """
    fits = [fit(samples, seed) for seed in range(networks)]
    joined = {name: np.concatenate([one[name] for one in fits]) for name in ("inner", "inner_bias")}
    outer = np.concatenate([one["outer"] for one in fits]) / networks
    return joined | {"outer": outer, "outer_bias": np.mean([one["outer_bias"] for one in fits], axis=0)}


def fit(samples: list[Sample], seed: int) -> dict[str, np.ndarray]:
    """Fit one network to the standardised features with a little noise."""
    import torch
    from torch import nn

    torch.manual_seed(seed)
    torch.set_num_threads(1)
    x = np.array([s.features for s in samples])
    gain = torch.tensor(np.clip([s.gain for s in samples], -2, 1), dtype=torch.float32)
    mean, spread = x.mean(axis=0), x.std(axis=0) + 1e-9
    z = torch.tensor((x - mean) / spread, dtype=torch.float32)
    net = nn.Sequential(nn.Linear(z.shape[1], 16), nn.ReLU(), nn.Linear(16, 1))
    steps = 1500
    adam = torch.optim.AdamW(net.parameters(), 1e-2, weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(adam, steps)
    for _ in range(steps):
        adam.zero_grad()
        predicted = net(z + 0.1 * torch.randn_like(z))[:, 0]
        nn.functional.smooth_l1_loss(predicted, gain).backward()
        adam.step()
        schedule.step()
    inner, bias, outer, last = (p.detach().numpy().astype(np.float64) for p in net.parameters())
    inner = inner / spread
    return {"inner": inner, "inner_bias": bias - inner @ mean, "outer": outer[0], "outer_bias": last}


def roc(samples: list[Sample]) -> tuple[np.ndarray, np.ndarray, float]:
    """False and true positive rates of predicting a loss from sharpness, and the area under the curve."""
    order = sorted(samples, key=lambda s: -s.sharp)
    loses = np.array([s.gain < 0 for s in order])
    true = np.concatenate([[0], np.cumsum(loses) / max(loses.sum(), 1)])
    false = np.concatenate([[0], np.cumsum(~loses) / max((~loses).sum(), 1)])
    return false, true, float(np.trapezoid(true, false))


COLUMNS = {
    "face": "face",
    "level": "damage",
    "input": "input, dB",
    "restored": "gain of restoring in full, dB",
    "product": "gain with `skip_sharp`, dB",
    "worst": "its worst tenth, dB",
    "alone": "left alone, %",
}


def tables(samples: list[Sample]) -> list[Table]:
    """Mean PSNR by size and level with and without the measure, and the area under the ROC curve."""
    rows: list[Row] = []
    for size in (*SIZES, "all"):
        for name in [*LEVELS, "mixed"] if size == "all" else LEVELS:
            some = [s for s in samples if s.level == name and size in (s.size, "all")]
            gains = [s.product - s.before for s in some]
            rows.append(
                {
                    "face": "all sizes" if size == "all" else f"{size} px",
                    "level": name,
                    "input": float(np.mean([s.before for s in some])),
                    "restored": float(np.mean([s.gain for s in some])),
                    "product": float(np.mean(gains)),
                    "worst": float(np.percentile(gains, 10)),
                    "alone": 100 * float(np.mean([s.product == s.before for s in some])),
                }
            )
    areas: list[Row] = [
        {"face": f"{n} px", "area": roc([s for s in samples if s.size == n])[2]} for n in SIZES
    ]
    areas.append({"face": "all sizes", "area": roc(samples)[2]})
    faces = len({s.picture for s in samples})
    return [
        Table("levels", f"PSNR over the face's mask, means over {faces} faces", COLUMNS, rows),
        Table("roc", "Area under the ROC curve", {"face": "face", "area": "area"}, areas),
    ]


def draw(samples: list[Sample], path: Path) -> None:
    """Draw the gain over sharpness, and the ROC curve."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    limit = Restore().skip_sharp
    figure, (left, right) = pyplot.subplots(1, 2, figsize=(11, 4.6))
    for name in [*LEVELS, "mixed"]:
        some = [s for s in samples if s.level == name]
        left.scatter([s.sharp for s in some], [max(s.gain, -4) for s in some], s=5, alpha=0.5, label=name)
    x = np.linspace(0, 1, 201)
    weight = left.twinx()
    weight.plot(x, [sharpness.restoration_weight(v, limit) for v in x], "k-", lw=1)
    weight.set_ylabel("weight of the restoration (line)")
    left.axhline(0, color="grey", lw=0.5)
    left.set(xlabel="sharpness", ylabel="gain of restoring in full, dB (cut at -4)")
    left.legend(loc="lower left")
    for size in SIZES:
        false, true, area = roc([s for s in samples if s.size == size])
        right.plot(false, true, label=f"{size} px: {area:.2f}")
    right.plot([0, 1], [0, 1], "k:", lw=0.5)
    right.set(xlabel="left alone though restoring gains", ylabel="left alone where restoring loses")
    right.legend(title="face, area", loc="lower right")
    figure.tight_layout()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=90)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--faces", type=Path, required=True)
    parser.add_argument("--more", type=Path, help="other faces, to calibrate with too")
    parser.add_argument("--draws", type=int, default=1)
    parser.add_argument("--calibrate", action="store_true", help="fit the weights anew")
    parser.add_argument("--json", type=Path, help="file for the figures")
    parser.add_argument("--chart", type=Path, help="PNG for the chart")
    arguments = parser.parse_args()
    cv2.setNumThreads(1)
    limit = Restore().skip_sharp
    draws = arguments.draws
    if arguments.calibrate:
        samples = gather(half(arguments.faces, "choose"), draws, 48 * draws, limit)
        if arguments.more:
            samples += gather(sorted(arguments.more.glob("*.jpg"))[::8], draws, 12 * draws, limit)
        save_file(calibrate(samples), sharpness.WEIGHTS)
        return
    samples = gather(half(arguments.faces, "report"), draws, 8 * draws, limit)
    digest = hashlib.sha256(sharpness.WEIGHTS.read_bytes()).hexdigest()
    options = {"draws": draws, "skip_sharp": limit, "sharpness_sha256": digest}
    report = BenchReport("sharpness", machine(1), options, None, tables(samples))
    if arguments.json is not None:
        arguments.json.write_text(report.to_json() + "\n", encoding="utf-8")
    if arguments.chart is not None:
        draw(samples, arguments.chart)
    print("\n\n".join(markdown(table) for table in report.tables))


if __name__ == "__main__":
    main()
