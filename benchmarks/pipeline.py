"""Photographs per second from files to batches: our stream and PyTorch's DataLoader, measured in turns in one run.

python -m benchmarks.pipeline [--folder=FOLDER] [--augmentations=inception,scale] [--workers=0,1,2,4] [--batch=32]
    [--turn_images=512] [--rounds=5] [--output=FILE.csv]

Photographs are decoded, cropped at random to 224x224, flipped at random and batched. "pytorch" does the same work as
ours: its batches are uint8, since we normalise on the device. "pytorch, float32" is the usual recipe with ToTensor and
Normalize. Both have as many processes as ours, of one thread each. Where ours uses threads only, they have the number
of processes at which they were fastest. The files are those of the class folders in --folder, or 256 random ones of
ImageNet's usual size and compression. They are read once beforehand, so that they come from memory. CPU time is that of
all processes; it matters where cores are shared. Takes about 5 minutes on 2 cores.
"""

import dataclasses
import importlib.util
import os
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from absl import flags

from benchmarks import options
from resnet_flax import command
from resnet_flax.paths import expanded

if TYPE_CHECKING:
    from resnet_flax.data.photographs import Photographs
    from resnet_flax.data.streaming import Pipeline
    from resnet_flax.measurements.timing import Spread

_SIDE, _RESIZE = 224, 256
_MADE = 256  # random files
_AUGMENTATIONS = ("inception", "scale")
_PEERS = {"pytorch": False, "pytorch, float32": True}  # whether batches are float32
_ENDLESS = 2**31  # steps
_TICK = 0.01  # resolution of CPU time, in seconds

_FOLDER = flags.DEFINE_string("folder", None, "Folder of photographs, with a folder per class. Default: random images.")
_CHOSEN = flags.DEFINE_list("augmentations", list(_AUGMENTATIONS), "Ways of cropping: inception, scale.")
_WORKERS = flags.DEFINE_list("workers", None, "Decoding processes; 0: threads. Default: 0,1,2,4,... up to the cores.")
_BATCH = flags.DEFINE_integer("batch", 32, "Images per batch.", lower_bound=1)
_TURN_IMAGES = flags.DEFINE_integer("turn_images", 512, "Least number of images in a turn.", lower_bound=1)

_HEADER = ("crops", "who", "workers", "images/s", "least", "most", "ours over it", "CPU ms an image", "its over ours")


@dataclasses.dataclass(frozen=True)
class _Contestant:
    """An input pipeline that is measured.

    Attributes:
      workers: Number of processes; 0 for threads.
      start: Starts the pipeline and returns its endless batches, an iterator with a method ``close``.
    """

    workers: int
    start: Callable[[], Any]

    def seconds_an_image(self) -> tuple[float, float]:
        """Measures a turn; returns the seconds per image, of the clock and of all processes' CPU time.

        The first batches do not count, since they were computed while other processes were still starting.
        """
        count = -(-_TURN_IMAGES.value // _BATCH.value)
        with closing(self.start()) as batches:
            for _ in range(1 + 2 * self.workers):
                next(batches)
            start, used = time.perf_counter(), _cpu_seconds()
            for _ in range(count):
                next(batches)
            seconds = time.perf_counter() - start, max(_cpu_seconds() - used, _TICK)
            return seconds[0] / (count * _BATCH.value), seconds[1] / (count * _BATCH.value)


def main() -> None:
    """Measures every augmentation and number of workers, and prints the table."""
    from resnet_flax.data import photograph_sets

    augmentations = options.choices(_CHOSEN, _AUGMENTATIONS)
    workers = _numbers_of_workers()
    torch = importlib.util.find_spec("torch") is not None
    if not torch:
        print("PyTorch is not installed, so only our pipeline is measured", file=sys.stderr)
    rows = []
    with tempfile.TemporaryDirectory() as made:
        if _FOLDER.value is None:
            _make_photographs(Path(made))
        photographs = photograph_sets.of_folder(expanded(_FOLDER.value or made)).train
        for photo in photographs:
            with photo.open() as file:
                file.read()
        for augmentation in augmentations:
            rows += _measure(photographs, augmentation, workers, torch)
    options.print_and_write(_HEADER, rows, ("grain", "pillow", *(["torch"] if torch else [])))


def _numbers_of_workers() -> list[int]:
    """Returns the numbers of workers, with 0 last: the others show how many processes are fastest for the peers."""
    if _WORKERS.value is None:
        return [*(2**i for i in range((os.cpu_count() or 1).bit_length())), 0]
    return sorted(options.numbers(_WORKERS, least=0), key=lambda count: (count == 0, count))


def _measure(photographs: "Photographs", augmentation: str, workers: list[int], torch: bool) -> list[tuple[str, ...]]:
    """Returns a row for each number of workers and each contestant."""
    from resnet_flax.runtime.progress import Progress

    fastest: dict[str, tuple[float, int]] = {}
    rows, peers = [], _PEERS if torch else {}
    title = f"{augmentation}, {len(photographs)} photographs"
    with Progress(len(workers) * (1 + len(peers)) * options.ROUNDS.value, title, "turns") as progress:
        for count in workers:
            contestants = {"ours": _ours(photographs, augmentation, count)}
            for who, floats in peers.items():
                processes = count or fastest.get(who, (0.0, os.cpu_count() or 1))[1]
                contestants[who] = _peer(photographs, augmentation, processes, floats)
            times, used = _time_in_turns(contestants, lambda who: progress.update(1, who))
            for who, spread in times.items():
                rate = 1 / spread.median
                fastest[who] = max(fastest.get(who, (0.0, 0)), (rate, contestants[who].workers))
                rates = (1 / seconds for seconds in (spread.median, spread.most, spread.least))
                ratio = spread.over(times["ours"]).text()
                name = str(contestants[who].workers or "0 (threads)")
                cpu = f"{1e3 * used[who].median:.3g}", used[who].over(used["ours"]).text()
                rows.append((augmentation, who, name, *(f"{r:.4g}" for r in rates), ratio, *cpu))
                progress.write("  ".join(rows[-1]))
    return rows


def _time_in_turns(
    contestants: dict[str, _Contestant], done: Callable[[str], None]
) -> tuple[dict[str, "Spread"], dict[str, "Spread"]]:
    """Measures the contestants in turns; returns the seconds per image, of the clock and of CPU time."""
    from resnet_flax.measurements.timing import Spread

    measured: dict[str, list[tuple[float, float]]] = {who: [] for who in contestants}
    for i in range(options.ROUNDS.value):
        for who in list(contestants)[:: 1 if i % 2 == 0 else -1]:
            measured[who].append(contestants[who].seconds_an_image())
            done(who)
    clock, used = ({who: Spread(tuple(m[i] for m in of)) for who, of in measured.items()} for i in (0, 1))
    return clock, used


def _cpu_seconds() -> float:
    """Returns the CPU time of this process and of those that it started."""
    import psutil

    here = psutil.Process()
    times = [process.cpu_times() for process in (here, *here.children(recursive=True))]
    return sum(t.user + t.system for t in times)


def _pipeline(augmentation: str, workers: int = 0, threads: int = 0) -> "Pipeline":
    from resnet_flax.data.streaming import Pipeline

    return Pipeline(_SIDE, _RESIZE, augmentation=augmentation, workers=workers, threads=threads)


def _ours(photographs: "Photographs", augmentation: str, workers: int) -> _Contestant:
    pipeline, batch = _pipeline(augmentation, workers, threads=min(1, workers)), _BATCH.value
    return _Contestant(workers, lambda: pipeline.train(photographs, 0, batch, np.arange(batch), 0, _ENDLESS))


def _peer(photographs: "Photographs", augmentation: str, workers: int, floats: bool) -> _Contestant:
    from benchmarks.peers import pytorch_loader

    transform = {
        "inception": pytorch_loader.RandomResizedCrop(_SIDE),
        "scale": pytorch_loader.RandomScaleCrop(_SIDE, _pipeline(augmentation).scales),
    }[augmentation]
    files = [str(photo) for photo in photographs]
    dataset = pytorch_loader.Photographs(files, photographs.labels.tolist(), transform, floats)
    return _Contestant(workers, lambda: pytorch_loader.batches(dataset, _BATCH.value, workers))


def _make_photographs(folder: Path) -> None:
    """Makes JPEG files of 500x375 pixels and about 100 KB, a third of them upright: clouds of 3 sizes, and noise."""
    from PIL import Image

    rng = np.random.default_rng(0)
    for name in ("a", "b"):
        (folder / name).mkdir()
    for i in range(_MADE * 5 // 4):  # a fifth of them becomes the test split
        width, height = (500, 375) if i % 3 else (375, 500)
        pixels = rng.normal(0, 7, (height, width, 3))
        for side, strength in ((4, 50), (16, 30), (64, 15)):
            clouds = Image.fromarray(rng.integers(0, 256, (side, side, 3), np.uint8))
            pixels += (
                (np.asarray(clouds.resize((width, height), Image.Resampling.BICUBIC), float) - 128) * strength / 64
            )
        image = Image.fromarray(np.clip(pixels + 128, 0, 255).astype(np.uint8))
        image.save(folder / "ab"[i % 2] / f"{i}.jpg", quality=92)


if __name__ == "__main__":
    command.run(main)
