"""A training run: pairs, steps, checkpoints, the log and the contact sheet.

It runs in one process, or in each of the processes that torchrun starts.
"""

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
from stream.lab.train.training_pairs import PairNumbers, TrainingPairs, batches
from stream.models.info import ModelInfo
from stream.models.nets import GPEN, load_generator
from stream.pipeline.cpu_budget import available_cores

LOG = "log.jsonl"
_LOG_STEPS = 50
"""The log gets one line, of mean losses, for this many steps."""


class TrainProcesses:
    """The processes that share a run: torchrun's, or this one alone."""

    def __init__(self, device: torch.device) -> None:
        self.count = int(os.environ.get("WORLD_SIZE", "1"))
        self.rank = int(os.environ.get("RANK", "0"))
        if self.count > 1:
            distributed.init_process_group("nccl" if device.type == "cuda" else "gloo")

    def average_gradients(self, net: nn.Module) -> None:
        """Replace the gradients in every process by their mean over the processes.

        All gradients go in one message, since each message costs a round trip.
        """
        if self.count > 1:
            gradients = [tensor.grad for tensor in net.parameters() if tensor.grad is not None]
            together = torch.cat([gradient.reshape(-1) for gradient in gradients])
            distributed.all_reduce(together)
            parts = torch.split(together / self.count, [gradient.numel() for gradient in gradients])
            for gradient, part in zip(gradients, parts, strict=True):
                gradient.copy_(part.view_as(gradient))

    def mean(self, values: dict[str, float]) -> dict[str, float]:
        """The mean of each value over the processes."""
        if self.count == 1:
            return values
        tensor = torch.tensor(list(values.values()), dtype=torch.float64)
        if torch.cuda.is_available():
            tensor = tensor.cuda()
        distributed.all_reduce(tensor)
        return dict(zip(values, (tensor / self.count).tolist(), strict=True))

    def any(self, condition: bool) -> bool:
        """Whether the condition holds in at least one process; every process gets the same answer."""
        return self.mean({"any": float(condition)})["any"] > 0 if self.count > 1 else condition

    def close(self) -> None:
        """Leave the process group."""
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

    `out` gets ``checkpoint.pt``, from which a run continues, ``NAME.safetensors`` with the averaged
    weights, ``log.jsonl``, ``losses.png`` and, if `samples` names another folder of faces, ``sheet.png``.
    A run continues from the checkpoint in `out` if there is one. `stop` is called after each step and
    ends the run by returning True. `on_log` gets each line of the log, in the first process only.

    Raises TrainError, also if no step of a log line had a finite gradient.
    """
    device = _device(settings.device)
    local_count = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    torch.set_num_threads(settings.threads or max(1, available_cores() // local_count))
    net, info = _restorer(start)
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise TrainError(f"{out}: cannot be made ({error.strerror}); name another folder") from None
    processes = TrainProcesses(device)
    try:
        step = Step(net, settings, device)
        if (state := checkpoint.load(out)) is not None:
            step.load(state)
        files = _RunFiles(out, step, info, samples) if processes.rank == 0 else None
        pairs = TrainingPairs(faces, net.size, settings.shares.by_level(), settings.seed)
        numbers = PairNumbers(step.images, settings.images, settings.batch, processes.rank, processes.count)
        means = _LossMeans(out)
        for damaged, clean in batches(pairs, numbers, settings.feeders):
            losses = processes.mean(step.run(damaged, clean, processes.average_gradients))
            step.count(len(clean) * processes.count)
            line = means.add(losses, step.images)
            if files is not None and line is not None:
                files.log(line)
                on_log(line)
            if files is not None:
                files.save_if_due()
            if processes.any(stop()):
                break
        if files is not None:
            files.save()
    except TrainError as error:  # a loader process puts its whole traceback into the text
        raise TrainError(
            str(error).strip().splitlines()[-1].removeprefix("stream.errors.TrainError: ")
        ) from None
    finally:
        processes.close()


class _LossMeans:
    """Averages the losses of `_LOG_STEPS` steps into one line of the log."""

    def __init__(self, out: Path) -> None:
        self._out = out
        self._values: dict[str, list[float]] = {}
        self._began_s = time.monotonic()

    def add(self, losses: dict[str, float], images: int) -> dict[str, float] | None:
        """Add one step, after which `images` pairs have been seen; the line once enough steps are in.

        Raises TrainError if no step of the line had a finite gradient.
        """
        for name, value in losses.items():
            self._values.setdefault(name, []).append(value)
        if len(self._values["norm"]) < _LOG_STEPS:
            return None
        if all(self._values["skipped"]):
            raise TrainError(
                f"{self._out}: no gradient of the last {_LOG_STEPS} steps was finite; set precision=fp32 "
                "or compile=false, or start anew with a lower lr"
            )
        line = {"images": images, "s": round(time.monotonic() - self._began_s, 1)}
        line |= {name: sum(values) / len(values) for name, values in self._values.items()}
        self._values.clear()
        return line


class _RunFiles:
    """Writes the files of a run."""

    def __init__(self, out: Path, step: Step, info: ModelInfo, samples: Path | None) -> None:
        self._out, self._step, self._info, self._samples = out, step, info, samples
        self._saved_s = time.monotonic()

    def log(self, line: dict[str, float]) -> None:
        """Append a line to the log, rounded to six decimals."""
        with (self._out / LOG).open("a", encoding="utf-8") as file:
            file.write(json.dumps({key: round(value, 6) for key, value in line.items()}) + "\n")

    def save_if_due(self) -> None:
        """Save if the last checkpoint is older than the setting `checkpoint_s`."""
        if time.monotonic() - self._saved_s >= self._step.settings.checkpoint_s:
            self.save()

    def save(self) -> None:
        """Write checkpoint, weights, plot and contact sheet."""
        checkpoint.save(self._step.state(), self._out)
        note = {"images_seen": str(self._step.images), "trained_with": self._step.settings.model_dump_json()}
        path = self._out / f"{self._info.name}.safetensors"
        checkpoint.export(self._step.average, self._info, path, note)
        sample_sheet.plot_losses(self._out / LOG, self._out / "losses.png")
        if self._samples is not None:
            sample_sheet.draw(path, self._samples, self._out / "sheet.png")
        self._saved_s = time.monotonic()


def _restorer(start: Path) -> tuple[GPEN, ModelInfo]:
    """The network to train. Raises TrainError if its output is not the input, restored, at its size."""
    net, info = load_generator(start)
    if info.task != "restore" or net.size != net.in_size:
        raise TrainError(f"{start}: {info.task}, {net.in_size} to {net.size} px; only restorers are trained")
    return net, info


def _device(name: str) -> torch.device:
    if name == "cuda" and not torch.cuda.is_available():
        raise TrainError("device: cuda asked for, but this torch sees no GPU; set device=cpu")
    return torch.device("cuda" if name != "cpu" and torch.cuda.is_available() else "cpu")
