"""The run: pairs in, steps, checkpoints, a log, sheets; one process, or one of torchrun's."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import distributed, nn

from stream.errors import TrainError
from stream.lab.train import checkpoint, sample_sheet
from stream.lab.train.settings import TrainSettings
from stream.lab.train.step import Step
from stream.lab.train.training_pairs import Numbers, TrainingPairs, batches
from stream.models.info import ModelInfo
from stream.models.nets.loader import load_generator
from stream.pipeline.cpu_budget import available_cores

LOG = "log.jsonl"
_LOG_STEPS = 50
"""Steps whose mean losses make a line of the log."""


class Ranks:
    """The processes that share a run: torchrun's, or this one alone."""

    def __init__(self, device: torch.device) -> None:
        self.count = int(os.environ.get("WORLD_SIZE", "1"))
        self.own = int(os.environ.get("RANK", "0"))
        if self.count > 1:
            distributed.init_process_group("nccl" if device.type == "cuda" else "gloo")

    def average_gradients(self, net: nn.Module) -> None:
        """Make every process's gradients their mean: all in one message, since each costs a round trip."""
        if self.count > 1:
            gradients = [tensor.grad for tensor in net.parameters() if tensor.grad is not None]
            together = torch.cat([gradient.reshape(-1) for gradient in gradients])
            distributed.all_reduce(together)
            parts = torch.split(together / self.count, [gradient.numel() for gradient in gradients])
            for gradient, part in zip(gradients, parts, strict=True):
                gradient.copy_(part.view_as(gradient))

    def mean(self, values: dict[str, float]) -> dict[str, float]:
        """The mean of figures over the processes."""
        if self.count == 1:
            return values
        tensor = torch.tensor(list(values.values()), dtype=torch.float64)
        if torch.cuda.is_available():
            tensor = tensor.cuda()
        distributed.all_reduce(tensor)
        return dict(zip(values, (tensor / self.count).tolist(), strict=True))

    def agreed(self, wish: bool) -> bool:
        """Whether any process wishes so; all get the same answer."""
        return self.mean({"wish": float(wish)})["wish"] > 0 if self.count > 1 else wish

    def close(self) -> None:
        """Part from the others."""
        if self.count > 1:
            distributed.destroy_process_group()


def train(
    faces: Path,
    out: Path,
    start: Path,
    settings: TrainSettings,
    *,
    samples: Path | None = None,
    on_log: Callable[[dict[str, float]], None] = lambda line: None,
    stop: Callable[[], bool] = lambda: False,
) -> None:
    """Train from the weights `start` on a folder of aligned faces, into the folder `out`.

    `out` gets ``checkpoint.pt`` (what a run goes on from), ``NAME.safetensors`` (the averaged weights),
    ``log.jsonl``, ``losses.png`` and, with `samples` (another folder of faces), ``sheet.png``. A run
    whose folder holds a checkpoint goes on from it. `stop` is asked between steps; `on_log` gets the
    log's lines, in the first of several processes. Raises TrainError, also where no step of a line of the log
    had a finite gradient.
    """
    device = _device(settings.device)
    here = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    torch.set_num_threads(settings.threads or max(1, available_cores() // here))
    net, info = load_generator(start)
    if info.task != "restore" or net.size != net.in_size:
        raise TrainError(f"{start}: {info.task}, {net.in_size} to {net.size} px; only restorers are trained")
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise TrainError(f"{out}: cannot be made ({error.strerror}); name another folder") from None
    ranks = Ranks(device)
    try:
        step = Step(net, settings, device)
        if (state := checkpoint.load(out)) is not None:
            step.load(state)
        pairs = TrainingPairs(faces, net.size, settings.shares.by_level(), settings.seed)
        numbers = Numbers(step.images, settings.images, settings.batch, ranks.own, ranks.count)
        keeper = _Keeper(out, step, info, samples, first=ranks.own == 0, every_s=settings.checkpoint_s)
        sums: dict[str, list[float]] = {}
        began_s = time.monotonic()
        for damaged, clean in batches(pairs, numbers, settings.feeders):
            losses = ranks.mean(step.run(damaged, clean, ranks.average_gradients))
            step.count(len(clean) * ranks.count)
            for name, value in losses.items():
                sums.setdefault(name, []).append(value)
            if len(sums["norm"]) == _LOG_STEPS:
                if all(sums["skipped"]):
                    raise TrainError(
                        f"{out}: no gradient of the last {_LOG_STEPS} steps was finite; set precision=fp32 "
                        "or compile=false, or start anew with a lower lr"
                    )
                line = {"images": step.images, "s": round(time.monotonic() - began_s, 1)}
                line |= {name: sum(values) / len(values) for name, values in sums.items()}
                if ranks.own == 0:
                    keeper.log(line)
                    on_log(line)
                sums.clear()
            keeper.keep()
            if ranks.agreed(stop()):
                break
        keeper.keep(now=True)
    except TrainError as error:  # one of a feeder's comes with its traceback in the text
        raise TrainError(
            str(error).strip().splitlines()[-1].removeprefix("stream.errors.TrainError: ")
        ) from None
    finally:
        ranks.close()


class _Keeper:
    """Writes a run's files, in the first of its processes alone."""

    def __init__(
        self, out: Path, step: Step, info: ModelInfo, samples: Path | None, *, first: bool, every_s: float
    ) -> None:
        self._out, self._step, self._info, self._samples = out, step, info, samples
        self._first, self._every_s = first, every_s
        self._kept_s = time.monotonic()

    def log(self, line: dict[str, float]) -> None:
        with (self._out / LOG).open("a", encoding="utf-8") as file:
            file.write(json.dumps({k: round(v, 6) for k, v in line.items()}) + "\n")

    def keep(self, now: bool = False) -> None:
        if not self._first or (not now and time.monotonic() - self._kept_s < self._every_s):
            return
        checkpoint.save(self._step.state(), self._out)
        note = {"images_seen": str(self._step.images), "trained_with": self._step.settings.model_dump_json()}
        path = self._out / f"{self._info.name}.safetensors"
        checkpoint.export(self._step.average, self._info, path, note)
        sample_sheet.plot_losses(self._out / LOG, self._out / "losses.png")
        if self._samples is not None:
            sample_sheet.draw(path, self._samples, self._out / "sheet.png")
        self._kept_s = time.monotonic()


def _device(name: str) -> torch.device:
    if name == "cuda" and not torch.cuda.is_available():
        raise TrainError("device: cuda asked for, but this torch sees no GPU; set device=cpu")
    return torch.device("cuda" if name != "cpu" and torch.cuda.is_available() else "cpu")
