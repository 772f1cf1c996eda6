"""Make the sample clips and their truth: `python samples/make_samples.py [portrait|group]`.

The script needs scikit-image, for its public-domain astronaut picture, and Pillow beside the project's
own packages. Everything is seeded: the same packages give the same pixels. README.md describes the clips
and the format of the truth.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
import scenery
from av.video.reformatter import ColorRange, Colorspace
from clip import FPS, Actor, Clip, filmed, frame_truth, render, write_truth
from cutout import Layer, fill, person, polygon_matte, premultiplied, smooth
from PIL import Image
from skimage import data
from sound import SAMPLE_RATE_HZ, chord_music
from warps import FaceAxes, Pose

HERE = Path(__file__).resolve().parent

# Landmarks of the clean pictures, in pixels (pixel i covers [i, i + 1)): eye on the picture's left,
# eye on its right, nose tip, left and right corner of the mouth. They are medians of CenterFace's
# results over 10 scales (8 for the portraits) from 0.4 to 2 and the mirrored pictures, checked by eye.
ASTRONAUT = [[203.15, 102.58], [247.29, 105.1], [223.48, 125.61], [203.78, 143.44],
             [242.02, 145.61]]  # fmt: skip
# name, landmarks, jacket, shirt or neckline, tie (see cutout.person)
CONGRESS = {
    "W000815": ("Brad Wenstrup",
        [[113.89, 134.78], [176.2, 136.27], [140.03, 170.84], [118.19, 198.73], [172.75, 199.4]],
        (28, 30, 40), ((118, 205), (225, 222, 212)), ((136, 166), (150, 98, 48))),
    "K000382": ("Ann McLane Kuster",
        [[113.91, 132.99], [178.56, 134.32], [142.54, 167.09], [118.46, 196.72], [174.55, 198.3]],
        (34, 30, 34), ((104, 222), (205, 150, 130)), None),
    "S000185": ("Bobby Scott",
        [[110.29, 139.6], [174.79, 137.52], [146.13, 173.59], [115.8, 203.19], [172.44, 201.83]],
        (62, 57, 52), ((105, 192), (200, 190, 180)), ((158, 182), (130, 35, 40))),
    "U000039": ("Tom Udall",
        [[111.82, 135.57], [174.27, 136.49], [140.91, 170.98], [114.88, 198.8], [170.01, 199.75]],
        (40, 40, 46), ((94, 200), (140, 165, 210)), ((134, 160), (150, 45, 42))),
    "L000035": ("Blanche Lincoln",
        [[112.75, 136.77], [178.06, 135.71], [144.84, 171.81], [116.95, 201.06], [174.0, 200.88]],
        (44, 50, 120), ((104, 190), (205, 150, 128)), None),
    "C001092": ("Chris Collins",
        [[112.49, 137.02], [176.62, 134.99], [147.47, 172.26], [116.58, 201.35], [173.15, 199.66]],
        (36, 36, 40), ((82, 186), (225, 225, 232)), ((122, 150), (70, 84, 130))),
}  # fmt: skip


# --- motion -----------------------------------------------------------------------------------


def ease(t: float, start: float, end: float) -> float:
    """A smooth step from 0 at `start` to 1 at `end`, with slope 0 at both."""
    x = min(1.0, max(0.0, (t - start) / (end - start)))
    return x * x * (3 - 2 * x)


def pulse(t: float, start: float, end: float) -> float:
    """A smooth pulse: 0 at `start`, 1 midway, 0 at `end`."""
    x = min(1.0, max(0.0, (t - start) / (end - start)))
    return float(np.sin(np.pi * x) ** 2)


def swing(t: float, start: float, end: float, cycles: float) -> float:
    """A sine of `cycles` cycles between -1 and 1 that starts and ends at 0."""
    x = min(1.0, max(0.0, (t - start) / (end - start)))
    return float(np.sin(2 * np.pi * cycles * x) * (1 - (2 * x - 1) ** 4))


def blinks(t: float, *starts: float) -> float:
    """Closure of the eyes, 0..1. A blink takes 9 frames, of which the eyes are shut for two or three."""
    return min(1.0, 1.35 * max(pulse(t, s, s + 9) for s in starts))


def placement(scale: float, picture_xy: np.ndarray, frame_xy: tuple, angle_rad: float = 0.0) -> np.ndarray:
    """The similarity (2, 3) that maps a point of the picture to a point of the frame."""
    cos, sin = np.cos(angle_rad) * scale, np.sin(angle_rad) * scale
    linear = np.array([[cos, -sin], [sin, cos]])
    return np.column_stack([linear, np.asarray(frame_xy) - linear @ picture_xy])


# --- file -------------------------------------------------------------------------------------


def encode(clip: Clip, path: Path, crf: int, roots_hz: list[float]) -> list[list[dict]]:
    """Draw and encode the clip; returns the truth of every frame."""
    rng, truth = np.random.default_rng(20210601), []
    with av.open(str(path), "w", options={"movflags": "+faststart"}) as container:
        video = container.add_stream("libx264", rate=FPS)
        video.width, video.height = clip.size
        video.pix_fmt, video.time_base = "yuv420p", Fraction(1, FPS)
        video.options = {"crf": str(crf), "preset": "slow", "bf": "3", "g": "125", "threads": "2"}
        context = video.codec_context
        context.color_range, context.colorspace = ColorRange.MPEG, Colorspace.ITU709
        context.color_primaries = context.color_trc = 1  # BT.709
        audio = container.add_stream("aac", rate=SAMPLE_RATE_HZ, layout="stereo")
        audio.bit_rate = 64_000
        for index in range(clip.frames):
            picture, cover = render(clip, index)
            truth.append(frame_truth(clip, index, cover))
            rgb = av.VideoFrame.from_ndarray(filmed(clip, picture, rng), "rgb24")
            frame = rgb.reformat(
                format="yuv420p",
                src_colorspace=Colorspace.ITU709,
                dst_colorspace=Colorspace.ITU709,
                src_color_range=ColorRange.JPEG,
                dst_color_range=ColorRange.MPEG,
            )
            frame.pts, frame.time_base = index, Fraction(1, FPS)
            container.mux(video.encode(frame))
        container.mux(video.encode())
        music = chord_music(clip.frames / FPS, roots_hz)
        for start in range(0, music.shape[1], 1024):
            block = np.ascontiguousarray(music[:, start : start + 1024])
            sound = av.AudioFrame.from_ndarray(block, "fltp", "stereo")
            sound.sample_rate, sound.pts = SAMPLE_RATE_HZ, start
            sound.time_base = Fraction(1, SAMPLE_RATE_HZ)
            container.mux(audio.encode(sound))
        container.mux(audio.encode())
    return truth


# --- the portrait -----------------------------------------------------------------------------

HEAD = [
    (231, 16), (245, 17), (258, 22), (270, 29), (282, 38), (291, 48), (297, 60), (300, 72),
    (302, 86), (299, 100), (296, 110), (288, 122), (279, 130), (276, 135), (270, 137),
    (267, 140), (265, 148), (259, 160), (256, 172), (255, 180), (256, 190), (262, 205),
    (266, 225), (262, 240), (225, 246), (190, 240), (178, 218), (176, 198), (184, 184),
    (186, 176), (186, 158), (184, 148), (183, 140), (181, 132), (176, 131), (172, 126),
    (169, 119), (163, 112), (157, 102), (154, 85), (153, 70), (156, 60), (163, 52), (172, 45),
    (182, 38), (189, 34), (193, 30), (202, 24), (212, 20), (222, 17),
]  # fmt: skip
"""Outline of head and neck in pixels of the astronaut picture, drawn by hand."""
SUIT = [
    (20, 512), (24, 380), (25, 345), (31, 328), (38, 305), (44, 285), (55, 262), (72, 243),
    (90, 229), (107, 214), (113, 206), (112, 190), (120, 178), (125, 170), (134, 160),
    (148, 151), (165, 147), (187, 147), (220, 140), (256, 172), (270, 181), (285, 195),
    (295, 209), (302, 224), (306, 237), (318, 243), (332, 253), (342, 268), (349, 285),
    (356, 308), (360, 330), (368, 348), (390, 346), (430, 344), (512, 400), (512, 512),
]  # fmt: skip
"""Outline of the suit and its neck ring."""
PORTRAIT_PHASES = [("still", 0, 55), ("sway", 55, 90), ("blink", 90, 111), ("mouth", 111, 137),
                   ("turn", 137, 175), ("light", 175, 195), ("fast", 195, 215)]  # fmt: skip
PORTRAIT_SCALE = 1.36


def portrait_pose(t: float) -> Pose:
    return Pose(
        tilt_rad=0.085 * swing(t, 55, 90, 1.5) + 0.05 * swing(t, 195, 215, 1),
        shift=(0.22 * swing(t, 55, 90, 1), 0.06 * swing(t, 55, 90, 2)),
        zoom=1 + 0.05 * pulse(t, 55, 90),
        yaw_rad=np.radians(19.0) * swing(t, 137, 175, 1),
        pitch_rad=np.radians(7.0) * swing(t, 141, 173, 0.5),
        blink=blinks(t, 91, 101),
        mouth=0.8 * pulse(t, 111, 123) + pulse(t, 122, 137),
    )


def portrait() -> Clip:
    """The astronaut: a head on a leaning body in front of a still, soft backdrop."""
    picture = data.astronaut().astype(np.float32) / 255
    shape = picture.shape[:2]
    row = np.arange(512, dtype=np.float32)[:, None]
    head = polygon_matte(shape, HEAD, 0.9)
    suit = polygon_matte(shape, SUIT, 0.9)
    everyone = cv2.dilate(np.maximum(head, suit), np.ones((5, 5)), iterations=3)
    backdrop = cv2.GaussianBlur(fill(picture, smooth(everyone, 0.02, 0.0)), (0, 0), 1.8)
    behind_head = cv2.dilate(head * smooth(row, 202, 188), np.ones((3, 3)))
    bare = fill(picture, suit * smooth(behind_head, 0.05, 0.0))
    face = Layer(premultiplied(picture, head) * smooth(row, 236, 212)[..., None])
    body = Layer(np.dstack([bare * suit[..., None], suit]))

    axes, size = FaceAxes(np.array(ASTRONAUT)), (640, 480)
    base = placement(PORTRAIT_SCALE, np.array([228.0, -6.0]), (320.0, 0.0))
    inverse = cv2.invertAffineTransform(base)
    # OpenCV puts pixel centres at whole numbers; here they are at + 0.5.
    inverse[:, 2] += inverse[0, 0] / 2 - 0.5
    still = cv2.warpAffine(
        backdrop,
        inverse,
        size,
        flags=cv2.INTER_CUBIC | cv2.WARP_INVERSE_MAP,
        borderMode=cv2.BORDER_REPLICATE,
    )

    def lean_px(t: float) -> float:
        return 26.0 * swing(t, 195, 215, 2)

    def bend(t: float, points: np.ndarray) -> np.ndarray:
        """The body leans from the hips: the motion is largest at the neck and smaller below."""
        weight = 1 - 0.6 * np.clip((points[..., 1] - 265) / 130, 0, 1)
        return points - np.stack([lean_px(t) / PORTRAIT_SCALE * weight, 0 * weight], axis=-1)

    def place(t: float) -> np.ndarray:
        return base + [[0, 0, lean_px(t)], [0, 0, 0]]

    def side(t: float) -> float:
        return 0.4 * swing(t, 175, 195, 1)

    actors = [
        Actor(body, lambda t: base, axes, light=side, bend=bend),
        Actor(face, place, axes, portrait_pose, person_id=0, light=side),
    ]
    people = [{"id": 0, "name": "Eileen Collins", "source": "skimage.data.astronaut (NASA)"}]
    return Clip(
        size,
        PORTRAIT_PHASES[-1][2],
        people,
        PORTRAIT_PHASES,
        lambda frame: (lambda t: still, actors),
        gain=lambda t: 1 - 0.4 * pulse(t, 175, 195),
        noise=0.035,
    )


# --- the group --------------------------------------------------------------------------------

CUT = 167
GROUP_PHASES = [
    ("library", 0, CUT), ("entry", 36, 45), ("crossing", 55, 79), ("far crossing", 89, 102),
    ("occlusion", 104, 116), ("behind", 113, 136), ("exit", 150, 158), ("office", CUT, 250),
]  # fmt: skip
"""An event begins with the first frame in which `visible` of a concerned person is below 1, and ends after
the last one."""


def actor_of(code: str, scale: float, path: Callable, pose: Callable) -> Actor:
    """A congress portrait. The point between the eyes follows `path` (frame time to x, y in pixels)."""
    _, landmarks, cloth, front, tie = CONGRESS[code]
    axes = FaceAxes(np.array(landmarks))
    rgb = np.asarray(Image.open(HERE / "faces" / f"congress_{code}_0.jpg").convert("RGB"))
    return Actor(
        person(rgb, cloth, front, tie),
        lambda t: placement(scale, axes.origin, path(t)),
        axes,
        pose,
        person_id=list(CONGRESS).index(code),
    )


def library_scene() -> list[Actor]:
    """The frames before the cut: one person close, one at a table, one far away, one who walks through."""
    deg = np.radians
    far = actor_of(
        "S000185",
        0.2,
        lambda t: (468 + 5 * swing(t, 0, 170, 2), 238 + 1.5 * swing(t, 20, 150, 3)),
        lambda t: Pose(tilt_rad=0.06 * swing(t, 0, 170, 3), yaw_rad=deg(14) * swing(t, 40, 150, 1)),
    )
    seated = actor_of(
        "K000382",
        0.53,
        lambda t: (228 + 6 * swing(t, 5, 165, 1.5), 246 + 2 * swing(t, 0, 160, 4)),
        lambda t: Pose(
            tilt_rad=0.07 * swing(t, 8, 120, 2),
            shift=(0.12 * swing(t, 8, 100, 1), 0.0),
            yaw_rad=deg(15) * swing(t, 12, 62, 1) + deg(12) * swing(t, 122, 166, 1),
            blink=blinks(t, 22, 88, 141),
            mouth=0.6 * pulse(t, 84, 97),
        ),
    )
    walker = actor_of(
        "U000039",
        0.64,
        lambda t: (-60 + 8.5 * (t - 33), 214 + 3.5 * np.sin(2 * np.pi * t / 13)),
        lambda t: Pose(
            tilt_rad=0.03 * np.sin(2 * np.pi * t / 26),
            pitch_rad=deg(3),
            yaw_rad=deg(11) - deg(16) * pulse(t, 60, 110),
            blink=blinks(t, 54, 101, 139),
        ),
    )
    close = actor_of(
        "W000815",
        0.9,
        lambda t: (704 + 9 * swing(t, 0, 167, 2), 204 + 3 * swing(t, 0, 167, 3)),
        lambda t: Pose(
            tilt_rad=0.06 * swing(t, 0, 160, 2.5),
            shift=(0.1 * swing(t, 10, 160, 2), 0.0),
            yaw_rad=deg(13) * swing(t, 15, 78, 1),
            pitch_rad=deg(5) * swing(t, 90, 150, 1),
            blink=blinks(t, 33, 92, 147),
            mouth=0.6 * pulse(t, 80, 94) + 0.8 * pulse(t, 96, 112),
        ),
    )

    def lift(t: float) -> np.ndarray:
        up = ease(t, 99, 106) * (1 - ease(t, 113, 120))
        return placement(0.56, np.array([130.0, 160.0]), (236.0, 640 - 372 * up), 0.12 - 0.1 * up)

    still = np.eye(2, 3)
    rear = scenery.counter(312, (0.4, 0.3, 0.22))
    front = scenery.counter(452, (0.33, 0.22, 0.15))
    return [
        far,
        Actor(rear, lambda t: still),
        seated,
        walker,
        Actor(scenery.folder(), lift),
        Actor(front, lambda t: still),
        close,
    ]


def pan_px(t: float, nearness: float) -> float:
    """The office's camera turns slowly; near objects move more."""
    return (20 - 40 * ease(t, CUT - 10, 262)) * nearness


def office_scene() -> list[Actor]:
    """The frames from the cut on: two new people and one from the library."""
    deg = np.radians
    far = actor_of(
        "W000815",
        0.26,
        lambda t: (556 + pan_px(t, 1.0) + 4 * swing(t, 160, 255, 2), 236.0),
        lambda t: Pose(tilt_rad=0.05 * swing(t, 160, 255, 2), yaw_rad=deg(12) * swing(t, 190, 250, 1)),
    )
    seated = actor_of(
        "L000035",
        0.5,
        lambda t: (742 + pan_px(t, 1.2), 236 + 3 * swing(t, 160, 255, 3)),
        lambda t: Pose(
            tilt_rad=0.07 * swing(t, 160, 255, 2),
            yaw_rad=deg(15) * swing(t, 202, 248, 1),
            blink=blinks(t, 188, 233),
            mouth=0.7 * pulse(t, 174, 188) + 0.5 * pulse(t, 190, 202),
        ),
    )
    close = actor_of(
        "C001092",
        0.96,
        lambda t: (300 + pan_px(t, 1.6) + 8 * swing(t, 160, 255, 1), 212.0),
        lambda t: Pose(
            tilt_rad=0.05 * swing(t, 160, 255, 1.5),
            yaw_rad=deg(14) * swing(t, 178, 232, 1),
            pitch_rad=deg(4) * swing(t, 170, 250, 1),
            blink=blinks(t, 176, 217),
        ),
    )
    rear = scenery.counter(318, (0.46, 0.48, 0.5))
    front = scenery.counter(430, (0.34, 0.36, 0.4))
    shift = np.array([[0, 0, 1.0], [0, 0, 0]])
    return [
        far,
        Actor(rear, lambda t: np.eye(2, 3) + shift * pan_px(t, 1.1)),
        seated,
        Actor(front, lambda t: np.eye(2, 3) + shift * pan_px(t, 1.4)),
        close,
    ]


def group() -> Clip:
    """The group: two rooms, six people."""
    library, office = scenery.library(), scenery.office()
    before, after = library_scene(), office_scene()
    width, height = scenery.SIZE

    def panned(t: float) -> np.ndarray:
        move = np.array([[1, 0, pan_px(t, 0.8) - 40], [0, 1, -10]])
        return cv2.warpAffine(office, move, (width, height), flags=cv2.INTER_LINEAR)

    people = [
        {"id": i, "name": CONGRESS[code][0], "source": f"faces/congress_{code}_0.jpg"}
        for i, code in enumerate(CONGRESS)
    ]
    return Clip(
        (width, height),
        250,
        people,
        GROUP_PHASES,
        lambda frame: (lambda t: library, before) if frame < CUT else (panned, after),
        gain=lambda t: 1 - 0.12 * pulse(t, 20, 150),
        cuts=[CUT],
        noise=0.026,
        lens_px=0.7,
    )


CLIPS = {
    "portrait": (portrait, 29, [130.81, 110.0, 87.31, 98.0]),
    "group": (group, 28, [146.83, 110.0, 123.47, 98.0, 110.0]),
}
"""The builder of each clip, x264's constant rate factor, and the roots of the chords."""


def main(names: list[str]) -> None:
    """Make the named clips, or all."""
    cv2.setNumThreads(1)
    for name in names or list(CLIPS):
        build, crf, roots_hz = CLIPS[name]
        clip = build()
        truth = encode(clip, HERE / f"{name}.mp4", crf, roots_hz)
        write_truth(clip, truth, HERE / f"{name}.truth.json")


if __name__ == "__main__":
    main(sys.argv[1:])
