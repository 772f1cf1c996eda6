"""The options of `restore`, shared with `plan`: arguments -> settings and run options."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from stream.config import PRESETS, Config, load_config
from stream.errors import ConfigError

if TYPE_CHECKING:  # loading it takes a second, which `--help` does without
    from stream.job.interface import Options

_PART, _HOW, _OUT, _PLAN = "What to restore", "How", "Output", "Long videos"


@dataclass(frozen=True, slots=True)
class RestorePaths:
    """INPUT and OUTPUT, by their place or by name."""

    source: Annotated[
        Path | None, typer.Argument(metavar="INPUT", help="A video, a picture, or a folder of either.")
    ] = None
    target: Annotated[
        Path | None, typer.Argument(metavar="OUTPUT", help="The file to write; a folder if INPUT is one.")
    ] = None
    input_path: Annotated[Path | None, typer.Option("--input", "--input_dir", help="Same as INPUT.")] = None
    output_path: Annotated[Path | None, typer.Option("--output", "--output_dir", help="Same as OUTPUT.")] = (
        None
    )

    def paths(self, command: str) -> tuple[Path, Path]:
        """INPUT and OUTPUT; ConfigError where one is missing or given twice. `command`: its name."""
        usage = f"write: gpen-stream {command} INPUT OUTPUT"
        if (self.source and self.input_path) or (self.target and self.output_path):
            raise ConfigError(f"INPUT or OUTPUT is given twice; {usage}")
        source, target = self.source or self.input_path, self.target or self.output_path
        if source is None or target is None:
            raise ConfigError(f"{'INPUT' if source is None else 'OUTPUT'} is missing; {usage}")
        return source, target


@dataclass(frozen=True, slots=True)
class RestorePart:
    """The frames to restore, and the faces in them."""

    aligned: Annotated[
        bool, typer.Option("--aligned", help="INPUT already is aligned face crops.", rich_help_panel=_PART)
    ] = False
    start: Annotated[
        float | None, typer.Option(min=0, help="Begin here, seconds.", rich_help_panel=_PART)
    ] = None
    duration: Annotated[
        float | None, typer.Option(min=0.001, help="Length of the part, seconds.", rich_help_panel=_PART)
    ] = None
    include: Annotated[
        list[str] | None,
        typer.Option(
            metavar="X,Y,W,H", help="Only faces in this region (fractions 0..1).", rich_help_panel=_PART
        ),
    ] = None
    exclude: Annotated[
        list[str] | None,
        typer.Option(metavar="X,Y,W,H", help="Leave faces in this region alone.", rich_help_panel=_PART),
    ] = None

    def overrides(self) -> list[str]:
        """The regions as settings."""
        found = []
        for key, regions in (("include", self.include), ("exclude", self.exclude)):
            if regions:
                found.append(f"select.{key}=[{', '.join(_region(key, text) for text in regions)}]")
        return found


@dataclass(frozen=True, slots=True)
class RestoreMethod:
    """How faces are restored."""

    preset: Annotated[str, typer.Option(help=", ".join(PRESETS) + ".", rich_help_panel=_HOW)] = "default"
    config: Annotated[
        Path | None, typer.Option(metavar="FILE", help="YAML settings over the preset.", rich_help_panel=_HOW)
    ] = None
    assign: Annotated[
        list[str] | None,
        typer.Option(
            "--set", metavar="KEY=VALUE", help="One setting, e.g. restore.strength=0.7.", rich_help_panel=_HOW
        ),
    ] = None
    model: Annotated[
        str | None,
        typer.Option(
            metavar="NAME|PATH", help="Which model restores; see `models list`.", rich_help_panel=_HOW
        ),
    ] = None
    batch_size: Annotated[
        int | None,
        typer.Option(
            "--batch-size", "--batch_size", metavar="N", help="Crops in one call.", rich_help_panel=_HOW
        ),
    ] = None
    strength: Annotated[
        float | None, typer.Option(metavar="0..1", help="How far faces are changed.", rich_help_panel=_HOW)
    ] = None
    task: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="restore, colorize, inpaint or segment; otherwise what the model was trained for.",
            rich_help_panel=_HOW,
        ),
    ] = None
    inpaint_mask: Annotated[
        str | None,
        typer.Option(
            metavar="FILE", help="A picture as large as INPUT, white where to fill.", rich_help_panel=_HOW
        ),
    ] = None
    inpaint_key: Annotated[
        str | None,
        typer.Option(
            metavar="RRGGBB",
            help="Fill all pixels of this colour, within 24 of 255 in each channel.",
            rich_help_panel=_HOW,
        ),
    ] = None
    fidelity: Annotated[
        float | None,
        typer.Option(
            "--fidelity-weight",
            "--fidelity_weight",
            metavar="0..1",
            help="How much of the input's features the network sees; below 1 it invents more. "
            "Also --fidelity_weight.",
            rich_help_panel=_HOW,
        ),
    ] = None

    def overrides(self) -> list[str]:
        """The options as settings, after those of `--set`."""
        names = ("model", "batch_size", "fidelity", "strength", "task", "inpaint_mask", "inpaint_key")
        given = {name: value for name in names if (value := getattr(self, name)) is not None}
        # JSON is YAML too; quoted, a colour such as 102030 stays a text.
        texts = [f"restore.{key}={json.dumps(value, ensure_ascii=False)}" for key, value in given.items()]
        return [*(self.assign or []), *texts]


@dataclass(frozen=True, slots=True)
class RestoreOutput:
    """The outputs, and the messages."""

    upscale: Annotated[
        int | None,
        typer.Option(
            min=1, max=4, metavar="N", help="Enlarge the picture N times, 1 to 4.", rich_help_panel=_OUT
        ),
    ] = None
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace OUTPUT if it exists.", rich_help_panel=_OUT)
    ] = False
    allow_loss: Annotated[
        bool,
        typer.Option("--allow-loss", help="Drop streams that OUTPUT cannot hold.", rich_help_panel=_OUT),
    ] = False
    report: Annotated[
        Path | None, typer.Option(metavar="FILE.json", help="Write counts and timings.", rich_help_panel=_OUT)
    ] = None
    quiet: Annotated[bool, typer.Option("--quiet", help="Print errors only.", rich_help_panel=_OUT)] = False


@dataclass(frozen=True, slots=True)
class RestorePlan:
    """How a long video is divided, and continued by a later run."""

    segment: Annotated[
        float | None,
        typer.Option(
            metavar="SECONDS",
            min=0,
            help="Longest segment; a killed run is continued segment by segment. 60 for videos longer than "
            "that; 0: no segments.",
            rich_help_panel=_PLAN,
        ),
    ] = None
    restart: Annotated[
        bool,
        typer.Option("--restart", help="Throw away what an earlier run left.", rich_help_panel=_PLAN),
    ] = False
    keep_segments: Annotated[
        bool,
        typer.Option(
            "--keep-segments", help="Keep the folder of segments at the end.", rich_help_panel=_PLAN
        ),
    ] = False
    verify: Annotated[
        str,
        typer.Option(
            metavar="quick|full",
            help="Before continuing, compare samples of the input, or all of it.",
            rich_help_panel=_PLAN,
        ),
    ] = "quick"

    on: Annotated[
        str | None,
        typer.Option(
            metavar="ray|auto|ADDRESS",
            help="Have a Ray cluster restore the segments: one on this machine (ray), the one that this "
            "machine belongs to (auto), or ray://HOST:PORT.",
            rich_help_panel=_PLAN,
        ),
    ] = None
    worker_cores: Annotated[
        int,
        typer.Option(min=1, metavar="N", help="Cores of each process of the cluster.", rich_help_panel=_PLAN),
    ] = 1
    allow_mixed: Annotated[
        bool,
        typer.Option(
            "--allow-mixed",
            help="Let machines take part whose results differ in some bits.",
            rich_help_panel=_PLAN,
        ),
    ] = False

    @property
    def verify_input(self) -> bool:
        """Whether all of the input is compared. Raises ConfigError."""
        if self.verify not in ("quick", "full"):
            raise ConfigError(f"--verify {self.verify}: write quick or full")
        return self.verify == "full"


def settings_of(part: RestorePart, method: RestoreMethod, output: RestoreOutput) -> Config:
    """The settings that the options lead to. Raises ConfigError."""
    overrides = method.overrides()
    if output.upscale is not None:
        overrides.append(f"compose.upscale={output.upscale}")
    return load_config(method.preset, method.config, [*overrides, *part.overrides()])


def options_of(part: RestorePart, output: RestoreOutput, plan: RestorePlan) -> Options:
    """What concerns this run only. Raises ConfigError."""
    from stream.job.interface import Options

    return Options(
        part.aligned,
        part.start,
        part.duration,
        output.overwrite,
        output.allow_loss,
        segment_s=plan.segment,
        restart=plan.restart,
        keep_segments=plan.keep_segments,
        on=plan.on,
        worker_cores=plan.worker_cores,
        allow_mixed=plan.allow_mixed,
        verify_input=plan.verify_input,
    )


def _region(key: str, text: str) -> str:
    try:
        numbers = [float(part) for part in text.split(",")]
    except ValueError:
        numbers = []
    if len(numbers) != 4 or not all(0 <= n <= 1 for n in numbers):
        raise ConfigError(f"--{key} {text}: write X,Y,WIDTH,HEIGHT as fractions, such as 0.5,0,0.5,1")
    return str(numbers)
