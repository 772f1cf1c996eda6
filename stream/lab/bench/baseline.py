"""Restoration of whole videos by two straightforward scripts, the baselines of `bench pipeline`.

Both scripts decode with PyAV to full RGB frames, detect faces on every frame, run the published network
in eager FP32 on one crop, blend the face into the whole frame in floating point, and convert the frame
back for x264. The encoder's settings are those that the product chooses for the same clip.

- fair: CenterFace, once, at the product's own size.
- recipe: RetinaFace-ResNet50 at scales 0.5, 1.0 and 1.5 with random weights; the true landmarks are used in
  place of those it finds. Pictures are prepared as in `naive.py`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction

import av
import cv2
import numpy as np
import torch
from av.container import OutputContainer

from stream.config import Detect, Encode
from stream.faces.detect.detectors import CenterFace
from stream.lab.bench import naive
from stream.lab.bench.bench_models import PublishedModel
from stream.lab.bench.material import rgb_frame
from stream.lab.bench.recipe_job import retinaface_finder
from stream.media import codecs, quality_trial
from stream.media.probe import probe
from stream.picture import geometry
from stream.picture.face import Detection

FindFaces = Callable[[np.ndarray, int], list[np.ndarray]]
"""A function from RGB u8[h,w,3] and the frame's number to the landmarks f64[5,2] of each face."""


@dataclass(frozen=True, slots=True)
class BaselineFacts:
    """The result of a run."""

    frames: int


class BaselineJob:
    """One baseline on a clip, or on its first `frames` frames. `landmarks`, f64[n,5,2], are the true ones."""

    def __init__(
        self, kind: str, model: str, clip: str, out: str, landmarks: np.ndarray, threads: int,
        retinaface: str, frames: int = 0,
    ) -> None:  # fmt: skip
        torch.set_num_threads(threads)
        cv2.setNumThreads(threads)
        self._recipe = kind == "recipe"
        self._model, self._clip, self._out = model, clip, out
        self._truth, self._threads, self._frames = landmarks, threads, frames
        self._find = self._retinaface(retinaface) if self._recipe else self._centerface()
        info = probe(clip)
        self._rate = Fraction(info.rate)
        self._plan = quality_trial.settle(
            info, codecs.recipe(info, Encode(effort="low")), threads, (None, None)
        )

    def run(self) -> BaselineFacts:
        """Restore the clip. This includes loading the network, as a run of the product does."""
        network = PublishedModel(self._model)
        template = geometry.template(network.model.template, network.model.size)
        with av.open(self._clip) as source, av.open(self._out, "w") as target:
            stream = self._video(target, source.streams.video[0].codec_context)
            done = 0
            for frame in source.decode(video=0):
                rgb = frame.to_ndarray(format="rgb24")
                for landmarks in self._find(rgb, done):
                    to_frame = geometry.similarity(template, landmarks)
                    rgb = self._restored(network, rgb, to_frame)
                picture = av.VideoFrame.from_ndarray(rgb, "rgb24").reformat(format="yuv420p")
                picture.pts, picture.time_base = done, 1 / self._rate
                target.mux(stream.encode(picture))
                done += 1
                if done == self._frames:
                    break
            target.mux(stream.encode())
        return BaselineFacts(done)

    def _restored(self, network: PublishedModel, rgb: np.ndarray, to_frame: np.ndarray) -> np.ndarray:
        size = network.model.size
        if self._recipe:
            bgr = cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR)
            face = naive.finish(network(naive.prepare(bgr, to_frame, size)))
            return cv2.cvtColor(naive.paste(bgr, face, to_frame), cv2.COLOR_BGR2RGB)
        crop = geometry.warp(rgb, to_frame, (size, size), cv2.BORDER_REFLECT_101)
        x = torch.from_numpy(crop).permute(2, 0, 1)[None] / 127.5 - 1
        face = (network(x)[0].permute(1, 2, 0) * 127.5 + 127.5).clamp(0, 255).round().byte().numpy()
        return naive.paste(rgb, face, to_frame)

    def _video(self, target: OutputContainer, like: av.VideoCodecContext) -> av.VideoStream:
        plan = self._plan
        stream = target.add_stream(plan.encoder, rate=self._rate)
        assert isinstance(stream, av.VideoStream), plan.encoder
        stream.width, stream.height, stream.pix_fmt = like.width, like.height, plan.pix_fmt
        stream.time_base = 1 / self._rate
        stream.codec_context.options = plan.options | {"crf": f"{plan.quality:g}"}
        stream.codec_context.gop_size = round(3 * self._rate)
        stream.codec_context.thread_count = self._threads
        return stream

    def _centerface(self) -> FindFaces:
        """CenterFace on the whole frame, reduced to the product's size."""
        settings = Detect()
        detector = CenterFace(settings.min_score, self._threads)

        def find(rgb: np.ndarray, _index: int) -> list[np.ndarray]:
            scale = min(1.0, settings.max_side / max(rgb.shape[:2]))
            size = round(rgb.shape[1] * scale), round(rgb.shape[0] * scale)
            small = cv2.resize(rgb, size, interpolation=cv2.INTER_AREA).astype(np.float32) / 255
            hits: list[Detection] = detector.detect(small)
            return [hit.landmarks / scale for hit in hits]

        return find

    def _retinaface(self, weights: str) -> FindFaces:
        """RetinaFace for its time; the landmarks are the true ones.

        The time to load it is not counted, because it would dominate the few frames.
        """
        finder = retinaface_finder(weights, self._threads)

        def find(rgb: np.ndarray, index: int) -> list[np.ndarray]:
            finder(rgb_frame(rgb))
            return [self._truth[index]]

        return find
