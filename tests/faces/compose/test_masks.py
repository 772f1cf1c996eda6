"""Masks: ParseNet on real files, when a crop is parsed, and which pixels stay unchanged.

The published weights are not in the repository. Stand-in weights of the same names and shapes make the
network classify bright places as skin and dark ones as background, in blocks of 16 px.
"""

from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch
from drawn_faces import face_at, frame, luma
from facexlib.parsing.parsenet import ParseNet as FacexlibParseNet
from PIL import Image

from stream import load_config, restore_file
from stream.config import Compose
from stream.errors import ModelError
from stream.faces.compose.compose_stage import ComposeStage
from stream.faces.compose.masks import MaskStage, face_parser, soft_mask
from stream.models import catalog
from stream.models.engines.parsenet import CLASSES, FACE, ParseNet
from stream.models.info import sha256_of
from stream.picture.face import Crop, FrameWork, Patch
from stream.picture.frame import View

SIDE = 64  # no layer of ParseNet depends on the size, and 512 px take 64 times as long


def stand_in() -> dict[str, torch.Tensor]:
    """Weights that classify a pixel as skin if its mean of RGB is above 0.35, else as background."""
    state = FacexlibParseNet(in_size=512, out_size=512, parsing_ch=len(CLASSES)).state_dict()
    for name, tensor in state.items():
        if name.endswith("conv2.norm.weight") or ".shortcut_func." in name or name.startswith("out_mask"):
            tensor.zero_()  # no residual branches; the short cuts are set below
        if name.endswith("bias"):
            tensor.zero_()
        if name.endswith("shortcut_func.conv2d.weight"):
            tensor[0, 0, 1, 1] = 1
    state["encoder.0.conv2d.weight"].zero_()[0, :, 1, 1] = 1 / 3
    state["out_mask_conv.conv2d.weight"][1, 0, 1, 1] = 20
    state["out_mask_conv.conv2d.weight"][0, 0, 1, 1] = -20
    # The network doubles its features. 20 * 2 * (2 * mean - 1) + 12 is therefore 0 at a mean of 0.35.
    state["out_mask_conv.conv2d.bias"][:2] = torch.tensor([-12.0, 12.0])
    return state


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    path = tmp_path_factory.mktemp("models") / "parsing_parsenet.pth"
    torch.save(stand_in(), path)
    return path


@pytest.fixture(scope="module")
def parser(weights, cache_folder):
    return ParseNet(weights, 2, SIDE)


def test_random_weights_give_what_facexlibs_class_gives(tmp_path, cache_folder):
    torch.manual_seed(1)
    net = FacexlibParseNet(in_size=512, out_size=512, parsing_ch=len(CLASSES)).eval()
    net.out_mask_conv.conv2d.weight.data *= 1000  # else all classes are nearly as likely
    torch.save(net.state_dict(), tmp_path / "random.pth")
    image = np.random.default_rng(0).random((SIDE, SIDE, 3), np.float32)
    with torch.inference_mode():
        labels = net(torch.from_numpy(image).permute(2, 0, 1)[None] * 2 - 1)[0].softmax(1)[0]
    expected = sum(labels[i] for i in FACE).numpy()
    assert expected.std() > 0.01
    for _ in range(2):  # converted, then from the cache
        np.testing.assert_allclose(ParseNet(tmp_path / "random.pth", 2, SIDE)(image), expected, atol=1e-4)


def test_the_face_is_skin_features_and_glasses_but_not_hair_or_what_is_worn():
    outside = {CLASSES[i] for i in range(len(CLASSES)) if i not in FACE}
    assert outside == {"background", "hair", "hat", "earring", "necklace", "neck", "cloth"}


def test_known_weights_find_the_bright_face(parser):
    image = np.full((SIDE, SIDE, 3), 0.8, np.float32)
    image[:, :32] = 0.2
    share = parser(image)
    assert share[:, 40:].min() > 0.99 and share[:, :24].max() < 0.01
    with pytest.raises(ValueError, match="expected f32"):
        parser(image[:32])


def test_files_that_are_not_parsenets_weights_are_refused_in_one_line(tmp_path):
    torch.save({"conv.weight": torch.zeros(3)}, tmp_path / "other.pth")
    (tmp_path / "text.pth").write_text("hello")
    torch.save(torch.nn.Linear(1, 1), tmp_path / "object.pth")
    for name, reason in {
        "other.pth": "other weights than ParseNet's",
        "text.pth": "not a file of torch weights",
        "object.pth": "not a file of torch weights",
        "none.pth": "cannot be read",
    }.items():
        with pytest.raises(ModelError, match=reason) as error:
            ParseNet(tmp_path / name, 2, SIDE)
        assert name in str(error.value) and "\n" not in str(error.value)


def test_a_masks_edge_lies_inside_the_face():
    share = np.zeros((128, 128), np.float32)
    share[:, 64:] = 1
    mask = soft_mask(share, 256)
    assert mask.dtype == np.float32 and mask.shape == (256, 256)
    assert mask[:, :126].max() == 0 and mask[:, 144:].min() > 0.99
    assert np.all(np.diff(mask[100]) >= 0) and np.diff(mask[100]).max() < 0.25


def crop_of(track_id=0, hand=0, light=0.8, dark=0.2) -> Crop:
    """A bright face, with a dark hand over its lowest `hand` px."""
    image = np.full((SIDE, SIDE, 3), light, np.float32)
    image[SIDE - hand :] = dark
    face = None if track_id is None else face_at(0, 0, SIDE, track_id)
    return Crop(face, image, np.eye(2, 3), View(SIDE, SIDE))


def run(stage, crops_by_frame):
    stage.open()
    blank = np.zeros((16, 16, 3), np.uint8)
    for index, crops in enumerate(crops_by_frame):
        patches = tuple(Patch(crop, np.full((SIDE, SIDE, 3), 0.02, np.float32)) for crop in crops)
        (done,) = stage.process(FrameWork(frame(blank, index), patches=patches))
        yield [patch.mask for patch in done.patches]


def test_a_track_is_parsed_every_so_many_frames(parser):
    stage = MaskStage(lambda: parser, interval=10, guard=False)
    masks = list(run(stage, [[crop_of(0), crop_of(1)]] * 25))
    assert stage.faces_parsed == 2 * 3
    assert all(mask.min() > 0.99 for pair in masks for mask in pair)


def test_a_hand_that_comes_or_goes_is_seen_at_once(parser):
    stage = MaskStage(lambda: parser, interval=100, guard=False)
    masks = [m for (m,) in run(stage, [[crop_of(hand=h)] for h in (0, 0, 32, 32, 32, 0, 0)])]
    assert stage.faces_parsed == 3
    for index in (2, 3, 4):
        assert masks[index][40:].max() == 0 and masks[index][:16].min() > 0.99
    for index in (0, 1, 5, 6):
        assert masks[index].min() > 0.99


def test_small_changes_ease_in(parser):
    stage = MaskStage(lambda: parser, interval=2, guard=False)
    crops = [crop_of(hand=h, light=0.42, dark=0.3) for h in [0] * 2 + [32] * 12]
    edge = [float(mask[-1, 30]) for (mask,) in run(stage, [[crop] for crop in crops])]
    assert edge[1] > 0.99 > edge[2] > edge[3] > edge[5] > 0 and edge[-1] < 0.05


def test_crops_without_a_track_or_a_change_are_not_parsed(parser):
    stage = MaskStage(lambda: parser, guard=True)
    assert list(run(stage, [[crop_of(None)]])) == [[None]]
    still = Patch(crop_of(0), np.zeros((SIDE, SIDE, 3), np.float32))
    (done,) = stage.process(FrameWork(frame(np.zeros((16, 16, 3), np.uint8)), patches=(still,)))
    assert done.patches == (still,) and stage.faces_parsed == 0


def test_forgotten_tracks_take_no_memory(parser):
    stage = MaskStage(lambda: parser, guard=False)
    list(run(stage, [[crop_of(i)] for i in range(3)] + [[]] * 260))
    assert not stage._tracks


def test_the_guard_and_the_parser_work_together(parser):
    stage = MaskStage(lambda: parser, guard=True)
    stage.open()
    crop = crop_of(hand=32)
    broken = Patch(crop, np.zeros((SIDE, SIDE, 3), np.float32))
    broken.residual[8:24, 8:24] = 0.6
    (done,) = stage.process(FrameWork(frame(np.zeros((16, 16, 3), np.uint8)), patches=(broken,)))
    mask = done.patches[0].mask
    assert stage.faces_guarded == stage.faces_parsed == 1
    assert mask[10:22, 10:22].max() < 0.05 and mask[40:].max() == 0 and mask[8:20, 50:].min() > 0.95


def test_compose_writes_only_where_the_mask_lets_it():
    canvas = np.full((96, 96, 3), 100, np.uint8)
    to_stored = np.array([[1.0, 0, 16], [0, 1.0, 16]])
    crop = Crop(face_at(16, 16, 64), np.zeros((64, 64, 3), np.float32), to_stored, View(96, 96))
    mask = np.zeros((64, 64), np.float32)
    mask[20:44, 20:30] = 1
    patch = Patch(crop, np.full((64, 64, 3), 0.2, np.float32), mask=mask)
    (done,) = ComposeStage(0.1).process(FrameWork(frame(canvas), patches=(patch,)))
    changed = luma(done) != luma(FrameWork(frame(canvas)))
    assert changed[36:60, 36:46].all()
    changed[35:61, 35:47] = False
    assert not changed.any()


def test_parsing_is_asked_for_taken_where_it_can_be_or_left(tmp_path, weights, monkeypatch):
    monkeypatch.setenv("GPEN_STREAM_MODELS", str(tmp_path))
    assert face_parser(Compose(), 2) is None
    with pytest.raises(ModelError, match="gpen-stream models fetch parsenet"):
        face_parser(Compose(mask="parse"), 2)
    with pytest.raises(ModelError, match=r"elsewhere\.pth"):
        face_parser(Compose(mask_weights=str(tmp_path / "elsewhere.pth")), 2)
    assert face_parser(Compose(mask_weights=str(weights), mask="box"), 2) is None
    assert face_parser(Compose(mask_weights=str(weights)), 2) is not None
    (tmp_path / weights.name).write_bytes(weights.read_bytes())  # under the published file's name
    assert face_parser(Compose(mask="box"), 2) is None
    for mask in ("auto", "parse"):
        with pytest.raises(ModelError, match=r"parsing_parsenet\.pth: refused: its SHA-256"):
            face_parser(Compose(mask=mask), 2)
    meant = replace(catalog.entries()["parsenet"], sha256=sha256_of(weights))
    monkeypatch.setattr(catalog, "entries", lambda: {"parsenet": meant})
    assert face_parser(Compose(), 2) is not None


@pytest.fixture(scope="module")
def scene(tmp_path_factory, face):
    """A damaged portrait with a dark bar in front of it, and the bar's position."""
    canvas = np.full((400, 500, 3), 90, np.uint8)
    canvas[60:348, 100:388] = np.asarray(Image.open(face).convert("RGB"))
    canvas[230:270, 160:330] = 25
    noise = np.random.default_rng(0).normal(0, 9, canvas.shape)
    canvas = np.uint8(np.clip(cv2.GaussianBlur(canvas, (0, 0), 1.2) + noise, 0, 255))
    path = tmp_path_factory.mktemp("scene") / "scene.png"
    Image.fromarray(canvas).save(path)
    return path, (slice(238, 262), slice(170, 320))


def test_a_run_leaves_what_stands_before_a_face_bit_exact(tmp_path, scene, weights):
    path, bar = scene
    before = np.asarray(Image.open(path)).astype(int)
    boxed = restore_file(path, tmp_path / "box.png", load_config(overrides=["compose.mask=box"]))
    settings = load_config(overrides=[f"compose.mask_weights={weights}"])
    parsed = restore_file(path, tmp_path / "parsed.png", settings)
    assert (boxed.report["faces_parsed"], parsed.report["faces_parsed"]) == (0, 1)
    box, mask = (np.asarray(Image.open(o.path)).astype(int) - before for o in (boxed, parsed))
    assert np.abs(box[bar]).mean() > 1 and not mask[bar].any()
    skin = cv2.erode(np.uint8(cv2.blur(before / 255.0, (9, 9)).min(axis=2) > 0.45), np.ones((25, 25)))
    skin[:, :190] = skin[:, 300:] = skin[220:] = 0
    assert skin.sum() > 300
    assert np.abs(mask[skin > 0]).mean() > 0.8 * np.abs(box[skin > 0]).mean() > 1


def test_a_run_that_must_parse_and_cannot_says_how_to_get_the_weights(tmp_path, scene, monkeypatch):
    monkeypatch.setenv("GPEN_STREAM_MODELS", str(tmp_path))
    with pytest.raises(ModelError, match="models fetch parsenet"):
        restore_file(scene[0], tmp_path / "out.png", load_config(overrides=["compose.mask=parse"]))
    assert not (tmp_path / "out.png").exists()
