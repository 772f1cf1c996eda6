"""Settings: frozen models over YAML; an unknown key, a wrong type or value is refused by name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Annotated, Literal, TypeVar, get_args

import yaml
from pydantic import BaseModel, Field, ValidationError
from pydantic.fields import FieldInfo

from stream.config_live import (
    LatencySettings,
    LiveEncodingSettings,
    MotionSettings,
    RecordSettings,
    Section,
    SourceSettings,
)
from stream.errors import ConfigError

Preset = Literal["default", "fast", "quality", "surveillance"]
PRESETS: tuple[Preset, ...] = get_args(Preset)

Fraction = Annotated[float, Field(ge=0.0, le=1.0)]
Scale = Annotated[float, Field(ge=0.1, le=4.0)]
Settings = TypeVar("Settings", bound=Section)


class Detect(Section):
    """Which detector finds faces, at which size and how often."""

    detector: Literal["centerface", "retinaface", "haar"] = Field(
        "centerface", description="retinaface needs weights: gpen-stream models fetch retinaface-resnet50"
    )
    weights: str | None = Field(
        None, description="a file of weights for it; unset: the fetched retinaface-resnet50"
    )
    interval: int = Field(10, ge=1, le=250, description="frames from keyframe to keyframe")
    max_side: int = Field(
        960, ge=128, le=8192, description="longer side of the picture that the detector sees, px"
    )
    tile: int = Field(
        0, ge=0, le=4096, description="largest side of tiles in which detection works, px; 0: one picture"
    )
    min_score: float = Field(0.5, ge=0.05, le=1.0, description="lower scores start no track")
    keep_score: float = Field(
        0.3, ge=0.05, le=1.0, description="a face already followed may score as low as this"
    )
    sure_score: float = Field(
        0.65, ge=0.05, le=1.0, description="a new face below it waits for a second detection"
    )
    refine: bool = Field(True, description="second pass on a crop round each face")
    scene_cut: float = Field(
        0.5, ge=0.0, le=1.0, description="how easily a change counts as a scene cut; 0: never"
    )
    pyramid: tuple[Scale, ...] = Field(
        (1.0,), min_length=1, description="sizes of the picture that the detector sees, as parts of max_side"
    )


class Track(Section):
    """How faces are followed between keyframes."""

    lookahead: bool = Field(True, description="run tracks from both keyframes; files only")
    min_confidence: float = Field(
        0.4, ge=0.0, le=1.0, description="below it a track is doubtful: the detector runs again"
    )
    max_lost: int = Field(25, ge=0, le=1000, description="frames after which a lost track is forgotten")


class Select(Section):
    """Which of the faces found are restored."""

    min_size: float = Field(
        0.0, ge=0.0, le=10000.0, description="smaller faces (box height, px) are left alone"
    )
    max_size: float = Field(10000.0, gt=0.0, le=10000.0, description="larger ones likewise, px")
    min_score: float = Field(0.0, ge=0.0, le=1.0, description="detector's score")
    max_faces: int = Field(0, ge=0, le=1000, description="at most so many, largest first; 0: all")
    include: tuple[tuple[Fraction, Fraction, Fraction, Fraction], ...] = Field(
        (), description="x, y, width, height of upright regions, as fractions: faces inside only"
    )
    exclude: tuple[tuple[Fraction, Fraction, Fraction, Fraction], ...] = Field(
        (), description="regions, likewise: faces inside are left alone"
    )


class Restore(Section):
    """Which network restores the crops, on what and how strongly."""

    model: str = Field("gpen-lite-256", description="a model's name (gpen-stream models list) or file")
    engine: Literal["auto", "openvino", "torch", "torch-compile", "onnxruntime", "tensorrt"] = Field(
        "auto", description="what runs it; auto: torch on CUDA, else the fastest on this CPU"
    )
    device: Literal["auto", "cpu", "cuda"] = Field("auto", description="where")
    batch_size: int = Field(4, ge=1, le=64, description="crops in one call")
    strength: float = Field(1.0, ge=0.0, le=1.0, description="0 leaves the face as it is")
    threads: int = Field(0, ge=0, le=256, description="for inference; 0: by the cores at hand")
    accept_licence: bool = Field(False, description="you keep to the licence of the models that you name")
    task: Literal["auto", "restore", "colorize", "inpaint", "segment"] = Field(
        "auto", description="what to do; auto: what the model was trained for"
    )
    inpaint_mask: str | None = Field(
        None, description="path of a picture as large as the upright input, white where to fill"
    )
    inpaint_key: str | None = Field(
        None, pattern="^#?[0-9A-Fa-f]{6}$", description="RRGGBB, the colour to fill, such as '00ff00'"
    )
    inpaint_tolerance: int = Field(
        24, ge=0, le=255, description="how far from the key, in each channel of 0..255, a pixel may be"
    )
    skip_sharp: float = Field(
        0.8,
        ge=0.0,
        le=1.0,
        description="faces sharper than this are left alone; 0.5: restoring would gain nothing; 1: none are",
    )
    interval: int = Field(
        1,
        ge=1,
        le=30,
        description="frames from restoration to restoration of a face in a video, carried on optical "
        "flow between; 1: every frame; what the flow cannot explain is restored all the same",
    )
    precision: Literal["auto", "fp32", "fp16", "bf16"] = Field(
        "auto",
        description="auto: half precision where the device computes in it (fp16 on CUDA, bf16 on newer "
        "CPUs) and comes close enough to fp32",
    )
    fidelity: float = Field(
        1.0,
        ge=0.0,
        le=1.0,
        description="how much of the input's features the network sees; 1: the published network",
    )


class Stabilise(Section):
    """How restored faces are kept from flickering in videos."""

    strength: float = Field(
        0.6,
        ge=0.0,
        le=1.0,
        description="how long a restored face is remembered where it does not change: 1: for six frames; "
        "0: each frame stands alone",
    )


class Compose(Section):
    """How restored faces are put back."""

    feather: float = Field(
        0.16, gt=0.0, le=0.5, description="width of the mask's soft edge, as a part of the crop"
    )
    label: str = Field("", max_length=80, description="text drawn into the picture; empty: none")
    mask: Literal["auto", "box", "parse"] = Field(
        "auto",
        description="box: a soft square; parse: the face's own outline by ParseNet, without hair, hands "
        "and what else is before it; auto: parse where its weights are present",
    )
    mask_weights: str | None = Field(
        None, description="path of parsing_parsenet.pth; unset: the one in the models folder"
    )
    mask_interval: int = Field(
        24, ge=1, le=1000, description="frames after which a face is parsed again; sooner where it changes"
    )
    guard: bool = Field(
        True,
        description="where restored and input face disagree grossly, as before a hand or after a failure "
        "of the network, the input stays",
    )
    upscale: int = Field(1, ge=1, le=4, description="how many times as wide and high the result is")
    upscale_weights: str | None = Field(
        None,
        description="weights of a Real-ESRGAN-class network for the background, in any architecture that "
        "spandrel reads; unset: Lanczos. On a CPU it takes minutes for a frame",
    )


class Encode(Section):
    """How the result is encoded; unset values follow the input."""

    codec: str | None = Field(None, description="FFmpeg's encoder, such as libx264")
    crf: float | None = Field(None, ge=0, le=63, description="constant quality, encoder's scale")
    effort: Literal["low", "normal", "high"] = Field(
        "normal", description="how hard the encoder works for a small file, whichever encoder it is"
    )
    preset: str | None = Field(None, description="encoder's own speed preset, in place of the effort")
    threads: int = Field(0, ge=0, le=256, description="of the encoder; 0: by the cores at hand")
    hardware: Literal["auto", "off"] = Field(
        "off",
        description="auto: an encoder of the graphics card, where a trial shows that it keeps the quality",
    )


class Decode(Section):
    """How the input is decoded; the pictures are the same either way."""

    threads: int = Field(0, ge=0, le=256, description="of the decoder; 0: by the cores at hand")
    hardware: Literal["auto", "off"] = Field(
        "off", description="auto: by the graphics card, where its pictures are bit for bit the software's"
    )


class Config(Section):
    """Everything that can be set."""

    detect: Detect = Detect()
    track: Track = Track()
    select: Select = Select()
    restore: Restore = Restore()
    stabilise: Stabilise = Stabilise()
    compose: Compose = Compose()
    encode: Encode = Encode()
    decode: Decode = Decode()
    source: SourceSettings = SourceSettings()
    latency: LatencySettings = LatencySettings()
    motion: MotionSettings = MotionSettings()
    live: LiveEncodingSettings = LiveEncodingSettings()
    record: RecordSettings = RecordSettings()


def preset_path(name: str) -> Path:
    """Path of a preset's YAML, in the package or the clone; ConfigError for an unknown name."""
    if name not in PRESETS:
        raise ConfigError(f"--preset {name}: unknown; choose one of {', '.join(PRESETS)}")
    installed = Path(str(resources.files("stream"))) / "presets"
    folder = installed if installed.is_dir() else installed.parent.parent / "config"  # a clone
    return folder / f"{name}.yaml"


def load_config(
    preset: str = "default", file: str | Path | None = None, overrides: Sequence[str] = ()
) -> Config:
    """Merge, later ones winning: preset, YAML file, `key.path=value` overrides.

    Raises ConfigError with one line that names the key's path and what is allowed.
    """
    return load_settings(Config, read_yaml(preset_path(preset)), file, overrides)


def load_settings(
    kind: type[Settings], data: Mapping[str, object], file: str | Path | None, overrides: Sequence[str]
) -> Settings:
    """`load_config` for settings of any kind, over `data`."""
    if file is not None:
        data = _merge(data, read_yaml(Path(file)))
    for text in overrides:
        data = _merge(data, _parse_override(text))
    return _parse(kind, data)


def parse_config(data: Mapping[str, object]) -> Config:
    """Validate nested settings; ConfigError names the first key that is wrong.

    A section that is there but empty counts as left out.
    """
    return _parse(Config, data)


def _parse(kind: type[Settings], data: Mapping[str, object]) -> Settings:
    try:
        return kind.model_validate(tuples({key: part for key, part in data.items() if part is not None}))
    except ValidationError as error:
        raise ConfigError(_explain(error, kind)) from None


def read_yaml(path: Path) -> dict[str, object]:
    """A file of settings as it stands; ConfigError where it is none."""
    try:
        data = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror}); check --config") from None
    except UnicodeDecodeError:
        raise ConfigError(f"{path}: not a text file; --config takes YAML") from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f" at line {mark.line + 1}" if mark else ""
        raise ConfigError(f"{path}: broken YAML{where}; mend it or leave out --config") from None
    if data is None:
        return {}
    if not isinstance(data, dict):
        raise ConfigError(f"{path}: holds no settings; write sections such as 'detect:'")
    return data


def _parse_override(text: str) -> dict[str, object]:
    key, equals, written = text.partition("=")
    if not equals or not key.strip():
        raise ConfigError(f"--set {text}: write key.path=value, such as detect.interval=5")
    try:
        value: object = yaml.safe_load(written)
    except yaml.YAMLError:
        raise ConfigError(f"--set {text}: the value is not valid YAML") from None
    section, *inner = key.strip().split(".")
    for part in reversed(inner):
        value = {part: value}
    return {section: value}


def _merge(base: Mapping[str, object], over: Mapping[str, object]) -> dict[str, object]:
    merged = dict(base)
    for key, value in over.items():
        old = merged.get(key)
        if isinstance(old, Mapping) and isinstance(value, Mapping):
            merged[key] = _merge(old, value)
        else:
            merged[key] = value
    return merged


def tuples(value: object) -> object:
    """YAML's lists as the tuples, and whole numbers as the floats, that strict models take."""
    if isinstance(value, Mapping):
        return {key: tuples(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return tuple(float(v) if type(v) is int else tuples(v) for v in value)
    return value


def _explain(error: ValidationError, kind: type[BaseModel]) -> str:
    """The first error in one line: the key's path, what is allowed there, what was given."""
    first = error.errors(include_url=False)[0]
    keys = [str(part) for part in first["loc"]]
    path, given = ".".join(keys), repr(first["input"])
    given = given if len(given) < 60 else given[:57] + "..."
    model, field = _resolve(keys, kind)
    if first["type"] in ("extra_forbidden", "invalid_key"):
        return f"{path}: unknown setting; known there: {', '.join(model.model_fields)}"
    if first["type"] == "model_type":
        return f"{path}: holds settings ({', '.join(model.model_fields)}), got {given}"
    message = first["msg"][0].lower() + first["msg"][1:]
    meaning = f" ({field.description})" if field is not None and field.description else ""
    return f"{path}: {message}, got {given}{meaning}"


def _resolve(keys: Sequence[str], model: type[BaseModel]) -> tuple[type[BaseModel], FieldInfo | None]:
    """The section of `model` that a path leads to or into, and the setting in it that the path names."""
    for key in keys:
        field = model.model_fields.get(key)
        kind = field.annotation if field is not None else None
        if not (isinstance(kind, type) and issubclass(kind, BaseModel)):
            return model, field
        model = kind
    return model, None
