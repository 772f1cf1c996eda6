"""The guard does not change ordinary restoration, and keeps the input where the output cannot be the face."""

import cv2
import numpy as np
import pytest

from stream.faces.compose.occlusion import agreement
from stream.models.engines import create_engine
from stream.models.info import bundled_model_path
from stream.picture.geometry import feather_mask

SIDE = 256
BOX = feather_mask(SIDE, 0.16)[..., None]


def damaged(clean, blur, shrink, noise, quality, light=1.0):
    """A clean face with the blur, low resolution, noise and compression of old video."""
    rng = np.random.default_rng(3)
    small = cv2.GaussianBlur(clean * light, (0, 0), blur)
    small = cv2.resize(small, (int(SIDE / shrink),) * 2, interpolation=cv2.INTER_AREA)
    small = np.clip(small + rng.normal(0, noise / 255, small.shape), 0, 1)
    coded = cv2.imencode(".jpg", np.uint8(small * 255), [cv2.IMWRITE_JPEG_QUALITY, quality])[1]
    image = cv2.resize(cv2.imdecode(coded, 1), (SIDE, SIDE), interpolation=cv2.INTER_CUBIC)
    return image.astype(np.float32) / 255


HEAVY = (3.0, 5, 15, 20)
DAMAGE = {
    "heavy": HEAVY,
    "beyond repair": (4.0, 7, 25, 10),
    "noise": (0.3, 1, 45, 90),
    "dark": (1.0, 2, 8, 40, 0.18),
    "nearly black": (0.5, 1.5, 6, 60, 0.07),
}


def psnr(one, two, weight=None):
    error = (one - two) ** 2
    return -10 * np.log10(error.mean() if weight is None else (error * weight).sum() / (3 * weight.sum()))


@pytest.fixture(scope="module")
def faces(face):
    images = [cv2.imread(str(path))[16:272, 16:272] for path in sorted(face.parent.glob("*.jpg"))]
    return [image.astype(np.float32) / 255 for image in images]


@pytest.fixture(scope="module")
def restore():
    engine = create_engine("openvino", bundled_model_path(), threads=2)
    yield lambda image: np.clip(engine.restore(np.ascontiguousarray(image[None]))[0], 0, 1)
    engine.close()


def weight_of(image, answer):
    weight = agreement(image, answer - image)
    return np.ones((SIDE, SIDE, 1), np.float32) if weight is None else weight[..., None]


@pytest.mark.parametrize("level", DAMAGE)
def test_ordinary_restoration_is_left_alone(faces, restore, level):
    for clean in faces:
        image = damaged(clean, *DAMAGE[level])
        residual = (restore(image) - image) * BOX
        kept = residual * weight_of(image, restore(image))
        assert psnr(image + residual, clean) - psnr(image + kept, clean) < 0.05


def test_the_clean_face_itself_is_a_credible_answer_to_a_heavily_damaged_one(faces):
    assert all(agreement(image := damaged(clean, *HEAVY), clean - image) is None for clean in faces)


def occluders():
    """Name, coverage f32[S,S,1] and colour of objects in front of a face."""
    rng = np.random.default_rng(0)
    microphone, hand, text, screen = (np.zeros((SIDE, SIDE), np.float32) for _ in range(4))
    cv2.circle(microphone, (150, 190), 26, 1.0, -1)
    cv2.line(microphone, (150, 190), (190, 256), 1.0, 16)
    cv2.ellipse(hand, (90, 180), (48, 34), 30, 0, 360, 1.0, -1)
    cv2.putText(text, "BREAKING", (20, 150), cv2.FONT_HERSHEY_SIMPLEX, 1.4, 1.0, 5)
    screen[90:154, 100:164] = 1
    tiles = cv2.resize(rng.random((32, 32, 3), np.float32), (SIDE, SIDE), interpolation=cv2.INTER_NEAREST)
    for name, shape, colour in (
        ("microphone", microphone, np.float32(0.12)),
        ("hand", hand, np.array([0.5, 0.6, 0.8], np.float32)),
        ("text", text, np.float32(1)),
        ("texture", screen, tiles),
    ):
        yield name, cv2.GaussianBlur(shape, (0, 0), 1.0)[..., None], colour


@pytest.mark.parametrize("occluder", list(occluders()), ids=lambda item: item[0])
def test_what_stands_before_a_face_is_not_painted_over(faces, restore, occluder):
    """The worst network restores the face behind the occluder. A hand over a face differs least from it."""
    name, cover, colour = occluder
    gains, inside = [], []
    for clean in faces:
        truth = clean * (1 - cover) + colour * cover
        image, answer = damaged(truth, *HEAVY), restore(damaged(clean, *HEAVY))
        residual = (answer - image) * BOX
        kept = residual * weight_of(image, answer)
        gains.append(psnr(image + kept, truth) - psnr(image + residual, truth))
        inside.append(psnr(image + kept, truth, cover) - psnr(image, truth, cover))
    assert np.mean(gains) > 0.5 and min(gains) > 0
    assert np.mean(inside) > (-3 if name == "hand" else -0.8), "what stands there looks nearly as before"


def failures(answer):
    """Outputs of broken networks, by name. Skin in place of other skin would differ too little."""
    rng = np.random.default_rng(1)
    y, x = np.mgrid[:SIDE, :SIDE]
    glow = np.exp(-((x - 120) ** 2 + (y - 140) ** 2) / 1800)[..., None]
    moved = answer.copy()
    moved[100:160, 100:160] = answer[40:100, 10:70]
    return {
        "a wrong patch": moved,
        "a colour that blows up": np.clip(answer + glow * (0.5, -0.4, 0.9), 0, 1).astype(np.float32),
        "one colour": np.full_like(answer, 0.7),
        "the mean colour": np.full_like(answer, answer.mean()),
        "black": np.zeros_like(answer),
        "noise": rng.random(answer.shape, np.float32),
        "far too bright": np.clip(answer * 2.2, 0, 1),
    }


def test_a_failing_network_does_little_harm(faces, restore):
    for clean in faces:
        image = damaged(clean, *HEAVY)
        for name, answer in failures(restore(image)).items():
            weight = weight_of(image, answer)
            harmed, kept = image + (answer - image) * BOX, image + (answer - image) * BOX * weight
            harm = psnr(image, clean) - psnr(harmed, clean)
            left = psnr(image, clean) - psnr(kept, clean)
            assert left < 0.5 and left < 0.2 * max(harm, 2.5), name
            if name in ("one colour", "the mean colour", "black", "noise"):
                assert not weight.any(), f"{name}: nothing of it may be used"


def test_weights_are_smooth_and_the_same_at_every_size(faces, restore):
    image = damaged(faces[0], *HEAVY)
    answer = failures(restore(image))["a colour that blows up"]
    weight = agreement(image, answer - image)
    assert weight.shape == (SIDE, SIDE) and weight.dtype == np.float32
    assert weight.min() == 0 and weight.max() == 1
    assert np.abs(np.diff(weight, axis=0)).max() < 0.12 and np.abs(np.diff(weight, axis=1)).max() < 0.12
    large = [cv2.resize(i, (512, 512), interpolation=cv2.INTER_CUBIC) for i in (image, answer)]
    again = cv2.resize(agreement(large[0], large[1] - large[0]), (SIDE, SIDE), interpolation=cv2.INTER_AREA)
    assert np.abs(again - weight).max() < 0.05
