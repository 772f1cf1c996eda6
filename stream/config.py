"""Settings: frozen models, filled from YAML. A wrong key, type or value is refused with its key's path."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, get_args

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
    """How faces are detected: by which detector, at which size and how often."""

    detector: Literal["centerface", "retinaface", "haar"] = Field(
        "centerface", description="retinaface needs weights: gpen-stream models fetch retinaface-resnet50"
    )
    weights: str | None = Field(
        None, description="path of its weights; unset: the fetched retinaface-resnet50"
    )
    interval: int = Field(10, ge=1, le=250, description="frames from one detection to the next")
    max_side: int = Field(
        960, ge=128, le=8192, description="longer side to which the picture is shrunk for the detector, px"
    )
    tile: int = Field(
        0,
        ge=0,
        le=4096,
        description="largest side of the tiles into which the picture is divided, px; 0: no tiles",
    )
    min_score: float = Field(
        0.5, ge=0.05, le=1.0, description="least score of a detection that starts a track"
    )
    keep_score: float = Field(
        0.3, ge=0.05, le=1.0, description="least score of a detection that continues a track"
    )
    sure_score: float = Field(
        0.65, ge=0.05, le=1.0, description="a new face with a lower score must be detected a second time"
    )
    refine: bool = Field(True, description="detect each face again on a crop around it")
    scene_cut: float = Field(
        0.5, ge=0.0, le=1.0, description="how easily a change of the picture counts as a scene cut; 0: never"
    )
    pyramid: tuple[Scale, ...] = Field(
        (1.0,), min_length=1, description="sizes at which the detector runs, as parts of max_side"
    )


class Track(Section):
    """How faces are tracked between detections."""

    lookahead: bool = Field(
        True, description="track from both detections, forwards and backwards; files only"
    )
    min_confidence: float = Field(
        0.4, ge=0.0, le=1.0, description="below this confidence of a track the detector runs again"
    )
    max_lost: int = Field(25, ge=0, le=1000, description="frames after which a lost track ends")


class Select(Section):
    """Which of the detected faces are restored."""

    min_size: float = Field(
        0.0, ge=0.0, le=10000.0, description="smaller faces (box height, px) are left unchanged"
    )
    max_size: float = Field(10000.0, gt=0.0, le=10000.0, description="larger faces are left unchanged, px")
    min_score: float = Field(
        0.0, ge=0.0, le=1.0, description="faces with a lower detector's score are left unchanged"
    )
    max_faces: int = Field(
        0, ge=0, le=1000, description="most faces that are restored in a frame, largest first; 0: all"
    )
    include: tuple[tuple[Fraction, Fraction, Fraction, Fraction], ...] = Field(
        (),
        description="regions as x, y, width, height in fractions of the upright picture: only faces "
        "inside are restored",
    )
    exclude: tuple[tuple[Fraction, Fraction, Fraction, Fraction], ...] = Field(
        (), description="regions in the same form: faces inside are left unchanged"
    )


class Restore(Section):
    """Which network restores faces, on which device and how strongly."""

    model: str = Field(
        "gpen-lite-256", description="a model's name (see gpen-stream models list), or its file"
    )
    engine: Literal["auto", "openvino", "torch", "torch-compile", "onnxruntime", "tensorrt"] = Field(
        "auto", description="library that runs the network; auto: torch on CUDA, else the fastest on this CPU"
    )
    device: Literal["auto", "cpu", "cuda"] = Field(
        "auto", description="device that runs the network; auto: CUDA where it is usable"
    )
    batch_size: int = Field(4, ge=1, le=64, description="most crops that run at once")
    strength: float = Field(
        1.0, ge=0.0, le=1.0, description="share of the restoration in the result; 0: the face is unchanged"
    )
    threads: int = Field(0, ge=0, le=256, description="threads for inference; 0: by the number of cores")
    accept_licence: bool = Field(
        False, description="true: you accept the licences of the models that you name"
    )
    task: Literal["auto", "restore", "colorize", "inpaint", "segment"] = Field(
        "auto", description="what the network does; auto: what the model was trained for"
    )
    inpaint_mask: str | None = Field(
        None, description="path of a picture of the upright input's size, white where to fill"
    )
    inpaint_key: str | None = Field(
        None,
        pattern="^#?[0-9A-Fa-f]{6}$",
        description="RRGGBB, the colour of the pixels to fill, such as '00ff00'",
    )
    inpaint_tolerance: int = Field(
        24,
        ge=0,
        le=255,
        description="largest difference of such a pixel from inpaint_key, in each channel of 0..255",
    )
    skip_sharp: float = Field(
        0.8,
        ge=0.0,
        le=1.0,
        description="faces sharper than this are left unchanged; at 0.5 restoring gains nothing; 1: "
        "all are restored",
    )
    interval: int = Field(
        1,
        ge=1,
        le=30,
        description="frames from one restoration of a face to the next in a video; between them the result "
        "is moved by optical flow, or restored too where the flow fails; 1: every frame",
    )
    precision: Literal["auto", "fp32", "fp16", "bf16"] = Field(
        "auto",
        description="precision of the computation; auto: half precision where the device has it (fp16 on "
        "CUDA, bf16 on newer CPUs) and its result is close enough to fp32's",
    )
    fidelity: float = Field(
        1.0,
        ge=0.0,
        le=1.0,
        description="factor of the input's features in the network; 1: the published network",
    )


class Stabilise(Section):
    """How flicker of restored faces in videos is reduced."""

    strength: float = Field(
        0.6,
        ge=0.0,
        le=1.0,
        description="how long a restored face is averaged where it does not change; 1: over six frames; "
        "0: not at all",
    )


class Compose(Section):
    """How restored faces are put back into the frame."""

    feather: float = Field(
        0.16, gt=0.0, le=0.5, description="width of the mask's soft edge, as a fraction of the crop"
    )
    label: str = Field("", max_length=80, description="text that is drawn into every frame; empty: none")
    mask: Literal["auto", "box", "parse"] = Field(
        "auto",
        description="box: a square with soft edges; parse: the face's outline by ParseNet, without hair, "
        "hands and other things in front of it; auto: parse where its weights are present",
    )
    mask_weights: str | None = Field(
        None, description="path of parsing_parsenet.pth; unset: the one in the models folder"
    )
    mask_interval: int = Field(
        24, ge=1, le=1000, description="frames after which a face is parsed again; sooner if it changes"
    )
    guard: bool = Field(
        True,
        description="keep the input where the restored face differs grossly, as where a hand covers the face "
        "or the network fails",
    )
    upscale: int = Field(1, ge=1, le=4, description="factor by which the result is wider and higher")
    upscale_weights: str | None = Field(
        None,
        description="path of the weights of a super-resolution network for the background, of any "
        "architecture that spandrel reads; unset: Lanczos. On a CPU a frame takes minutes",
    )


class Encode(Section):
    """How the result is encoded. Values that are not set follow the input."""

    codec: str | None = Field(None, description="FFmpeg's name of the encoder, such as libx264")
    crf: float | None = Field(None, ge=0, le=63, description="constant quality, on the encoder's own scale")
    effort: Literal["low", "normal", "high"] = Field(
        "normal", description="how much time any encoder spends on a small file"
    )
    preset: str | None = Field(None, description="the encoder's own speed preset, instead of the effort")
    threads: int = Field(0, ge=0, le=256, description="threads of the encoder; 0: by the number of cores")
    hardware: Literal["auto", "off"] = Field(
        "off",
        description="auto: an encoder of the graphics card, if a trial shows that it keeps the quality",
    )


class Decode(Section):
    """How the input is decoded. The pictures do not depend on it."""

    threads: int = Field(0, ge=0, le=256, description="threads of the decoder; 0: by the number of cores")
    hardware: Literal["auto", "off"] = Field(
        "off", description="auto: by the graphics card, if its pictures equal the software's bit for bit"
    )


class Config(Section):
    """All settings, by section."""

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
    """Path of a preset's YAML file, in the package or the clone. Raises ConfigError for an unknown name."""
    if name not in PRESETS:
        raise ConfigError(f"--preset {name}: unknown; choose one of {', '.join(PRESETS)}")
    installed = Path(str(resources.files("stream"))) / "presets"
    folder = installed if installed.is_dir() else installed.parent.parent / "config"  # a clone
    return folder / f"{name}.yaml"


def load_config(
    preset: str = "default", file: str | Path | None = None, overrides: Sequence[str] = ()
) -> Config:
    """The settings of a preset, changed by a YAML file and then by `key.path=value` overrides.

    Raises ConfigError for a wrong setting, with the path of its key and the values that are allowed.
    """
    return load_settings(Config, read_yaml(preset_path(preset)), file, overrides)


def load_settings(
    kind: type[Settings], data: Mapping[str, object], file: str | Path | None, overrides: Sequence[str]
) -> Settings:
    """`load_config` for settings of any kind, with `data` in place of a preset."""
    if file is not None:
        data = _merge(data, read_yaml(Path(file)))
    for text in overrides:
        data = _merge(data, _parse_override(text))
    return _parse(kind, data)


def parse_config(data: Mapping[str, object]) -> Config:
    """Validate nested settings. Raises ConfigError that names the first wrong key.

    An empty section counts as missing.
    """
    return _parse(Config, data)


def _parse(kind: type[Settings], data: Mapping[str, object]) -> Settings:
    try:
        return kind.model_validate(tuples({key: part for key, part in data.items() if part is not None}))
    except ValidationError as error:
        raise ConfigError(_explain(error, kind)) from None


class _TextKeysLoader(yaml.SafeLoader):
    """Reads every key as text. In YAML 1.1 the key `on` is the value true."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        for key, _ in node.value:
            if key.tag == "tag:yaml.org,2002:bool":
                key.tag = "tag:yaml.org,2002:str"
        return super().construct_mapping(node, deep)


def read_yaml(path: Path) -> dict[str, object]:
    """The content of a YAML file with settings, not validated. Raises ConfigError where it has none."""
    try:
        data = yaml.load(path.read_text(encoding="utf-8"), _TextKeysLoader)
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
    """The value with lists as tuples and their whole numbers as floats, as strict models require."""
    if isinstance(value, Mapping):
        return {key: tuples(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return tuple(float(v) if type(v) is int else tuples(v) for v in value)
    return value


def _explain(error: ValidationError, kind: type[BaseModel]) -> str:
    """The first error in one line: the key's path, what is allowed, and the value that was given."""
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
    """The section that a path of keys names or enters, and the setting in it that the path names."""
    for key in keys:
        field = model.model_fields.get(key)
        kind = field.annotation if field is not None else None
        if not (isinstance(kind, type) and issubclass(kind, BaseModel)):
            return model, field
        model = kind
    return model, None
