"""Pictures a second that the input of ImageNet gives, beside decoding alone.

    python -m experiments bench input-pipeline [--pictures=2000] [--size=224]

Pictures are JPEGs of 500x375 pixels, made of noise of all scales so that they compress
as photographs do. `decode` is what no loader can beat: Pillow decodes each whole and
does nothing else. The views are what a picture goes through in training and in tests;
`train_batches` and `test_batches` are all of it, with shuffling, threads that read
ahead, and normalised batches. The first three run in one thread, and are given for a
core; batches are given for a core too, over those that this process may use.
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
    parser.add_argument("--size", type=int, default=224, help="side of the result")


def measure(options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Yields a row for each part: its rate, and that as a share of decoding."""
    cores = len(os.sched_getaffinity(0))
    with ThreadPoolExecutor(cores) as pool:
        source = _Pictures(list(pool.map(picture, range(options.pictures))))

        def threads(view: Callable[[bytes], Any]) -> float:
            return _rate(lambda: list(pool.map(view, source.encoded)), len(source))

        rng = np.random.default_rng(0)
        rates = {
            "decode": threads(_decode),
            "view of training": threads(
                lambda x: images.random_resized_crop(x, rng, options.size)
            ),
            "view of tests": threads(lambda x: images.centre_crop(x, options.size)),
        }
    spec = data.dataset_spec("imagenet2012")
    dataset = data.Dataset(spec=spec, train=source, test=source)
    size = {"batch_size": _BATCH, "image_size": options.size}
    train = data.train_batches(dataset, seed=0, **size)
    test = data.test_batches(dataset, **size)
    count = options.pictures // _BATCH
    rates["train_batches"] = _rate(
        lambda: [next(train) for _ in range(count)], count * _BATCH
    )
    rates["test_batches"] = _rate(lambda: list(test), len(source))
    for name, rate in rates.items():
        yield {
            "part": name,
            "pictures a second and core": round(rate / cores, 1),
            "of decode": rate / rates["decode"],
            "cores": cores,
        }


def picture(seed: int) -> bytes:
    """Makes a JPEG of noise of all scales, of about the bytes of a photograph."""
    rng = np.random.default_rng(seed)
    total = np.zeros((_HEIGHT, _WIDTH, 3), np.float32)
    for side in (4, 16, 64, 256):
        noise = rng.uniform(0, 255, (side, side, 3)).astype(np.uint8)
        layer = Image.fromarray(noise).resize(
            (_WIDTH, _HEIGHT), Image.Resampling.BICUBIC
        )
        total += np.asarray(layer, np.float32) * side**-0.5
    total *= 255 / total.max()
    file = io.BytesIO()
    Image.fromarray(total.astype(np.uint8)).save(file, "JPEG", quality=90)
    return file.getvalue()


@dataclasses.dataclass(frozen=True, eq=False)
class _Pictures:
    """A source of encoded pictures."""

    encoded: list[bytes]

    def __len__(self) -> int:
        return len(self.encoded)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return {"image": self.encoded[index], "label": index % 1000}


def _decode(encoded: bytes) -> np.ndarray:
    with Image.open(io.BytesIO(encoded)) as opened:
        return np.asarray(opened.convert("RGB"))


def _rate(run: Callable[[], Any], count: int) -> float:
    begin = time.perf_counter()
    run()
    return count / (time.perf_counter() - begin)
