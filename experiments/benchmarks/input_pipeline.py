"""Pictures a second that the input of ImageNet gives, beside decoding alone.

    python -m experiments bench input-pipeline [--pictures=2000] [--size=224]

Pictures are JPEGs of 500x375 pixels, made of noise of all scales. They have 96 kB each
at quality 95; those of ImageNet have 117 kB in the mean (155.84 GiB, 1,431,167
pictures). At quality 90 and with less of the finest noise, 42 kB, decoding is faster
and all else takes as long as before. `decode` is the yardstick: Pillow decodes each
whole and does nothing else. The views are what a picture goes through in training and
in tests; `train_batches` and `test_batches` are all of it, with shuffling, threads that
read ahead, and normalised batches. The first three run in one thread, and are given for
a core; batches are given for a core too, over those that this process may use.
"""

import argparse
import dataclasses
import io
import os
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from PIL import Image

from experiments import data
from experiments.data import images

_WIDTH, _HEIGHT = 500, 375
_BATCH = 64


def add_options(parser: argparse.ArgumentParser) -> None:
    """Adds the options of this benchmark."""
    parser.add_argument("--pictures", type=int, default=2000, help="how many are made")
    parser.add_argument("--rounds", type=int, default=3, help="timings of each part")
    parser.add_argument("--size", type=int, default=224, help="side of the result")


def measure(options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Yields a row for each part: its rate, and that as a share of decoding."""
    cores = len(os.sched_getaffinity(0))
    with ThreadPoolExecutor(cores) as pool:
        source = _Pictures(list(pool.map(picture, range(options.pictures))))
        rates: dict[str, list[float]] = {}
        for _ in range(options.rounds):  # in turns, on a machine that may be busy
            for name, run in _parts(source, options.size, pool).items():
                begin = time.perf_counter()
                done = run()
                seconds = time.perf_counter() - begin
                rates.setdefault(name, []).append(done / seconds)
    decoding = np.array(rates["decode"])
    for name, found in rates.items():
        yield {
            "part": name,
            "pictures a second and core": round(float(np.median(found)) / cores, 1),
            "of decode": float(np.median(np.array(found) / decoding)),
            "cores": cores,
        }


def _parts(
    source: "_Pictures", size: int, pool: ThreadPoolExecutor
) -> dict[str, Callable[[], int]]:
    """What is timed: each returns how many pictures it did."""
    spec = data.dataset_spec("imagenet2012")
    dataset = data.Dataset(spec=spec, train=source, test=source)
    shape: Any = {"batch_size": _BATCH, "image_size": size}
    rng = np.random.default_rng(0)

    def each(view: Callable[[bytes], Any]) -> Callable[[], int]:
        return lambda: len(list(pool.map(view, source.encoded)))

    def train() -> int:
        batches = data.train_batches(dataset, seed=0, **shape)
        return sum(len(next(batches)["label"]) for _ in range(len(source) // _BATCH))

    def test() -> int:
        return sum(int(b["valid"].sum()) for b in data.test_batches(dataset, **shape))

    return {
        "decode": each(_decode),
        "view of training": each(lambda x: images.random_resized_crop(x, rng, size)),
        "view of tests": each(lambda x: images.centre_crop(x, size)),
        "train_batches": train,
        "test_batches": test,
    }


def picture(seed: int) -> bytes:
    """Makes a JPEG of noise of all scales, of nearly the bytes of a photograph."""
    rng = np.random.default_rng(seed)
    total = np.zeros((_HEIGHT, _WIDTH, 3), np.float32)
    for side in (4, 16, 64, 256):
        noise = rng.uniform(0, 255, (side, side, 3)).astype(np.uint8)
        layer = Image.fromarray(noise).resize(
            (_WIDTH, _HEIGHT), Image.Resampling.BICUBIC
        )
        total += np.asarray(layer, np.float32) * side**-0.2
    total *= 255 / total.max()
    file = io.BytesIO()
    Image.fromarray(total.astype(np.uint8)).save(file, "JPEG", quality=95)
    return file.getvalue()


@dataclasses.dataclass(frozen=True, eq=False)
class _Pictures:
    """A source of encoded pictures."""

    encoded: list[bytes]

    def __len__(self) -> int:
        return len(self.encoded)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return {"image": self.encoded[index], "label": index % 1000}


def _decode(encoded: bytes) -> None:
    with Image.open(io.BytesIO(encoded)) as opened:
        opened.load()
