"""Images and labels for the experiments, read from TFDS without TensorFlow.

`load` opens a prepared TFDS directory through `as_data_source` (ArrayRecord), and
prepares it first where that is possible; `train_batches` and `test_batches` turn it
into batches of NumPy arrays with Grain:

    dataset = load("digits", data_dir="data")
    batches = train_batches(dataset, batch_size=64, seed=0)
    batch = next(batches)  # image float32 (64, 8, 8, 1), label int32 (64,)

Pixels are stored as uint8 and normalised per channel in float32,
`(pixel / 255 - mean) / std`, with the constants of the `DatasetSpec`. Small sets are
decoded once into memory; ImageNet is decoded as it is read.

With several processes, process p of P takes elements p, p + P, ... of one global
stream. So the union of the P batches of b examples is the batch of P * b examples which
one process would see, augmentation included.
"""

# ruff: noqa: PT028 (`test_batches` is not a test)

import contextlib
import dataclasses
import difflib
import functools
import io
import math
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Protocol

import grain
import numpy as np
import tensorflow_datasets as tfds
from absl import logging
from PIL import Image

from experiments import digits

Batch = dict[str, np.ndarray]
Example = Mapping[str, Any]  # numbers, uint8 images or encoded files


class Source(Protocol):
    """Examples by position: mappings with at least `image` and `label`."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Example: ...


@dataclasses.dataclass(frozen=True, eq=False)
class ArraySource:
    """Examples in memory.

    Attributes:
        images: uint8, shape (N, H, W, C).
        labels: int32, shape (N,).
    """

    images: np.ndarray
    labels: np.ndarray

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> Example:
        return {"image": self.images[index], "label": self.labels[index]}


@dataclasses.dataclass(frozen=True, eq=False)
class Subset:
    """Some examples of a source.

    Attributes:
        source: The source.
        indices: Which examples, int, shape (N,).
    """

    source: Source
    indices: np.ndarray

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, index: int) -> Example:
        return self.source[int(self.indices[index])]


def upsample(image: np.ndarray, size: int) -> np.ndarray:
    """Enlarges an image by repeating pixels (nearest neighbour).

    Args:
        image: uint8, shape (H, H, C).
        size: Side of the result, at least H.

    Returns:
        uint8, shape (size, size, C).
    """
    side = image.shape[0]
    if size == side:
        return image
    nearest = np.arange(size) * side // size
    return image[nearest[:, None], nearest]


def crop_and_flip(image: np.ndarray, rng: np.random.Generator, size: int) -> np.ndarray:
    """Shifts by up to 4 pixels (zeros move in), mirrors every second image.

    Args:
        image: uint8, shape (H, H, C).
        rng: Source of the shift and of the coin.
        size: Side of the result, at least H.

    Returns:
        uint8, shape (size, size, C).
    """
    side, pad = image.shape[0], 4
    top, left = rng.integers(2 * pad + 1, size=2)
    padded = np.zeros((side + 2 * pad, side + 2 * pad, image.shape[2]), image.dtype)
    padded[pad : pad + side, pad : pad + side] = image
    cropped = padded[top : top + side, left : left + side]
    if rng.random() < 0.5:
        cropped = cropped[:, ::-1]
    return upsample(cropped, size)


def random_resized_crop(
    encoded: bytes, rng: np.random.Generator, size: int
) -> np.ndarray:
    """Decodes a random part of a picture, and mirrors every second one.

    The part has 8 to 100 % of the area and an aspect ratio between 3/4 and 4/3
    (log-uniform); if ten draws do not fit, the largest centred square is taken.

    Args:
        encoded: A JPEG or PNG file.
        rng: Source of the part and of the coin.
        size: Side of the result.

    Returns:
        uint8, shape (size, size, 3).
    """
    with Image.open(io.BytesIO(encoded)) as picture:
        width, height = picture.size
        box = _centred_square(width, height, fraction=1.0)
        for _ in range(10):
            area = width * height * rng.uniform(0.08, 1.0)
            ratio = math.exp(rng.uniform(math.log(3 / 4), math.log(4 / 3)))
            wide, high = math.sqrt(area * ratio), math.sqrt(area / ratio)
            if wide <= width and high <= height:
                left = rng.uniform(0, width - wide)
                top = rng.uniform(0, height - high)
                box = (left, top, left + wide, top + high)
                break
        pixels = _resize(picture, box, size)
    return pixels[:, ::-1] if rng.random() < 0.5 else pixels


def centre_crop(encoded: bytes, size: int) -> np.ndarray:
    """Decodes the central square of a picture, 7/8 of its shorter side.

    For size 224 this is the usual "shorter side to 256, central 224", in one step.

    Args:
        encoded: A JPEG or PNG file.
        size: Side of the result.

    Returns:
        uint8, shape (size, size, 3).
    """
    with Image.open(io.BytesIO(encoded)) as picture:
        return _resize(picture, _centred_square(*picture.size, fraction=7 / 8), size)


def _centred_square(
    width: int, height: int, *, fraction: float
) -> tuple[float, float, float, float]:
    side = fraction * min(width, height)
    left, top = (width - side) / 2, (height - side) / 2
    return left, top, left + side, top + side


def _resize(
    picture: Image.Image, box: tuple[float, float, float, float], size: int
) -> np.ndarray:
    rgb = picture.convert("RGB")
    return np.asarray(rgb.resize((size, size), Image.Resampling.BILINEAR, box=box))


@dataclasses.dataclass(frozen=True, kw_only=True)
class DatasetSpec:
    """What is known of a dataset before it is read.

    Attributes:
        name: Name in TFDS.
        num_classes: Labels are in [0, num_classes).
        image_shape: Shape (H, H, C) of an image when no `image_size` is asked for.
        mean: Mean of each channel of `pixel / 255`, length C.
        std: Standard deviation of each channel, length C.
        test_split: Name of the split that serves as test set.
        in_memory: Whether images are decoded once, at `load`. Otherwise `Source` gives
            encoded files, and the two views below decode them.
        train_view: `(image, rng, size)` to an augmented image of side `size`, or `None`
            to train on the view of the test.
        test_view: `(image, size)` to an image of side `size`.
        manual_files: Files that TFDS cannot download.
    """

    name: str
    num_classes: int
    image_shape: tuple[int, int, int]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    test_split: str = "test"
    in_memory: bool = True
    train_view: Callable[[Any, np.random.Generator, int], np.ndarray] | None = None
    test_view: Callable[[Any, int], np.ndarray] = upsample
    manual_files: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Dataset:
    """A dataset that was opened.

    `dataclasses.replace` with a shorter source makes a subset of it, for instance to
    hold out validation examples.

    Attributes:
        spec: What is known of it.
        train: Training examples.
        test: Test examples.
    """

    spec: DatasetSpec
    train: Source
    test: Source

    @property
    def train_size(self) -> int:
        """Number of training examples."""
        return len(self.train)

    @property
    def test_size(self) -> int:
        """Number of test examples."""
        return len(self.test)


_SPECS = {
    spec.name: spec
    for spec in (
        DatasetSpec(
            name="digits",
            num_classes=10,
            image_shape=(8, 8, 1),
            mean=(0.3054,),
            std=(0.3762,),
        ),
        DatasetSpec(
            name="mnist",
            num_classes=10,
            image_shape=(28, 28, 1),
            mean=(0.1307,),
            std=(0.3081,),
        ),
        DatasetSpec(
            name="cifar10",
            num_classes=10,
            image_shape=(32, 32, 3),
            mean=(0.4914, 0.4822, 0.4465),
            std=(0.2023, 0.1994, 0.2010),
            train_view=crop_and_flip,
        ),
        DatasetSpec(
            name="imagenet2012",
            num_classes=1000,
            image_shape=(224, 224, 3),
            mean=(0.485, 0.456, 0.406),
            std=(0.229, 0.224, 0.225),
            test_split="validation",
            in_memory=False,
            train_view=random_resized_crop,
            test_view=centre_crop,
            manual_files=("ILSVRC2012_img_train.tar", "ILSVRC2012_img_val.tar"),
        ),
    )
}


def dataset_spec(name: str) -> DatasetSpec:
    """Returns what is known of the dataset called `name`.

    Args:
        name: One of `digits`, `mnist`, `cifar10`, `imagenet2012`.

    Returns:
        Its spec.

    Raises:
        ValueError: If no dataset has this name.
    """
    if name not in _SPECS:
        close = difflib.get_close_matches(name, _SPECS, n=1)
        hint = f" Did you mean {close[0]!r}?" if close else ""
        raise ValueError(
            f"`dataset_spec(name)` requires one of {', '.join(_SPECS)}; "
            f"got {name!r}.{hint}"
        )
    return _SPECS[name]


def load(name: str, *, data_dir: str | os.PathLike[str]) -> Dataset:
    """Opens a dataset, and prepares it if `data_dir` does not hold it yet.

    Preparing `digits` takes a fraction of a second. The others are fetched by TFDS,
    which needs TensorFlow for that, in a process of its own. Preparing happens beside
    the final place and ends with one rename: any number of processes may do it at once,
    and what a killed process leaves behind is never read.

    Args:
        name: One of `digits`, `mnist`, `cifar10`, `imagenet2012`.
        data_dir: TFDS directory; the data are in `data_dir/name/version`.

    Returns:
        The dataset.

    Raises:
        ValueError: If no dataset has this name.
        FileNotFoundError: If the data are not there and cannot be fetched. The message
            holds the command that prepares them.
        RuntimeError: If the data are there, but not as ArrayRecord or not complete.
    """
    spec = dataset_spec(name)
    data_dir = pathlib.Path(data_dir).expanduser().absolute()
    directory = _find(spec, data_dir) or _prepare(spec, data_dir)
    builder = tfds.builder_from_directory(directory)
    return Dataset(
        spec=spec,
        train=_open(spec, builder, "train"),
        test=_open(spec, builder, spec.test_split),
    )


def _find(spec: DatasetSpec, data_dir: pathlib.Path) -> pathlib.Path | None:
    """Returns the prepared directory of the newest version, if there is one."""
    prepared = {
        tuple(int(part) for part in info.parent.name.split(".")): info.parent
        for info in (data_dir / spec.name).glob("*/dataset_info.json")
        if re.fullmatch(r"\d+\.\d+\.\d+", info.parent.name)
    }
    return prepared[max(prepared)] if prepared else None


def _prepare(spec: DatasetSpec, data_dir: pathlib.Path) -> pathlib.Path:
    """Prepares the dataset in a private directory, then moves it to its place."""
    data_dir.mkdir(parents=True, exist_ok=True)
    logging.info("Preparing %s in %s.", spec.name, data_dir)
    private = tempfile.mkdtemp(prefix=f".{spec.name}-", dir=data_dir)
    try:
        if spec.name == "digits":
            silence = io.StringIO()  # no progress bars for a fraction of a second
            with (
                contextlib.redirect_stdout(silence),
                contextlib.redirect_stderr(silence),
            ):
                digits.Digits(
                    data_dir=private, file_format="array_record"
                ).download_and_prepare()
        else:
            _fetch(spec, data_dir, private)
        made = _find(spec, pathlib.Path(private))
        assert made is not None, f"TFDS wrote no dataset_info.json into {private}."
        final = data_dir / spec.name / made.name
        final.parent.mkdir(exist_ok=True)
        try:
            made.rename(final)
        except OSError as error:  # not empty: another process was faster
            if not (final / "dataset_info.json").exists():
                raise RuntimeError(
                    f"`load({spec.name!r}, data_dir={str(data_dir)!r})` cannot use "
                    f"{final}: it has no dataset_info.json, so it was not prepared "
                    f"completely. Remove it and try again."
                ) from error
    finally:
        shutil.rmtree(private, ignore_errors=True)
    return final


def _fetch(spec: DatasetSpec, data_dir: pathlib.Path, target: str) -> None:
    """Lets TFDS download and prepare a dataset, in another process."""
    code = (
        "import tensorflow_datasets as tfds; "
        "tfds.builder({name!r}, data_dir={target!r}, file_format='array_record')"
        ".download_and_prepare(download_dir={downloads!r})"
    )
    fields = {"name": spec.name, "downloads": str(data_dir / "downloads")}
    child = subprocess.run(
        [sys.executable, "-c", code.format(target=target, **fields)],
        capture_output=True,
        text=True,
        check=False,
    )
    if child.returncode == 0:
        return
    reason = (child.stderr.strip() or "no output").splitlines()[-1]
    manual = (
        f"  # {' and '.join(spec.manual_files)} in "
        f"{data_dir / 'downloads' / 'manual'}, then\n"
        if spec.manual_files
        else ""
    )
    raise FileNotFoundError(
        f"`load({spec.name!r}, data_dir={str(data_dir)!r})` found no prepared dataset: "
        f"looked for {data_dir / spec.name}/<version>/dataset_info.json. Fetching it "
        f"failed with: {reason}\nPrepare it with\n{manual}"
        f"  pip install tensorflow importlib_resources\n"
        f'  python -c "{code.format(target=str(data_dir), **fields)}"'
    )


def _open(spec: DatasetSpec, builder: tfds.core.DatasetBuilder, split: str) -> Source:
    """Opens one split, and decodes it into memory if the spec says so."""
    if split not in builder.info.splits:
        raise RuntimeError(
            f"`load({spec.name!r}, ...)` requires the split {split!r}; "
            f"{builder.data_dir} holds {sorted(builder.info.splits)}. Remove it and "
            f"prepare it again with all its files."
        )
    decoders = None if spec.in_memory else {"image": tfds.decode.SkipDecoding()}
    try:
        # The decorator of this method hides its parameters.
        source = builder.as_data_source(split, decoders=decoders)  # pyright: ignore
    except NotImplementedError as error:
        raise RuntimeError(
            f"`load({spec.name!r}, ...)` requires ArrayRecord files; "
            f"{builder.data_dir} holds {builder.info.file_format}. Prepare the dataset "
            f"with `file_format='array_record'` in another `data_dir`."
        ) from error
    if not spec.in_memory:
        return source
    images = np.empty((len(source), *spec.image_shape), np.uint8)
    labels = np.empty(len(source), np.int32)
    for index in range(len(source)):
        example = source[index]
        images[index], labels[index] = example["image"], example["label"]
    return ArraySource(images, labels)


def train_batches(
    dataset: Dataset,
    *,
    batch_size: int,
    seed: int,
    image_size: int | None = None,
    augment: bool = True,
    process_index: int = 0,
    process_count: int = 1,
) -> grain.DatasetIterator[Batch]:
    """Iterates over shuffled training batches without end.

    Every epoch has its own order and its own augmentation; both follow from `seed`
    alone. Epochs are joined before batches are cut, so no example is dropped and a
    batch may hold the end of one epoch and the beginning of the next.

    Args:
        dataset: What `load` returned.
        batch_size: Examples per batch of this process, B.
        seed: In [0, 2**32); the same in all processes.
        image_size: Side S of the images; `None` for that of the spec. Images in memory
            can only be enlarged.
        augment: Whether to use the `train_view` of the spec.
        process_index: Number of this process, in [0, process_count).
        process_count: Number of processes.

    Returns:
        Iterator over dicts with `image`, float32, shape (B, S, S, C), normalised, and
        `label`, int32, shape (B,). Its `get_state()` is a small JSON-serialisable dict;
        after `set_state()` the same batches follow.

    Raises:
        ValueError: If the training set is empty or smaller than one batch over all
            processes, or if an argument is out of range.
    """
    spec = dataset.spec
    size = _check(
        spec,
        "train_batches",
        batch_size,
        image_size,
        process_index,
        process_count,
        len(dataset.train),
    )
    if batch_size * process_count > len(dataset.train):
        raise ValueError(
            f"`train_batches(batch_size={batch_size}, process_count={process_count})` "
            f"requires batch_size * process_count <= {len(dataset.train)}, the number "
            f"of training examples of {spec.name!r}. Use a smaller batch."
        )
    stream = grain.MapDataset.source(dataset.train).seed(seed).shuffle().repeat()
    if augment and spec.train_view is not None:
        stream = stream.random_map(functools.partial(_train_example, spec, size))
    else:
        stream = stream.map(functools.partial(_test_example, spec, size))
    stream = stream[process_index::process_count].to_iter_dataset(_reading(spec))
    batches = stream.batch(batch_size, drop_remainder=True)
    return iter(batches.map(functools.partial(_normalise, spec)))


class Batches(Sequence[Batch]):
    """Batches by position, made when they are read.

    Iterating reads ahead where images have to be decoded; every `iter` starts again.

    Args:
        spec: What is known of the dataset.
        examples: Examples before normalisation, a multiple of `batch_size` of them.
        batch_size: Examples per batch.
    """

    def __init__(
        self, spec: DatasetSpec, examples: grain.MapDataset[Example], batch_size: int
    ):
        self._spec = spec
        self._examples = examples
        self._batch_size = batch_size

    def __len__(self) -> int:
        return len(self._examples) // self._batch_size

    def __getitem__(self, index: int) -> Batch:
        position = range(len(self))[index]  # negative positions, IndexError
        batches = self._examples.batch(self._batch_size)
        return _normalise(self._spec, batches[position])

    def __iter__(self) -> Iterator[Batch]:
        examples = self._examples.to_iter_dataset(_reading(self._spec))
        normalise = functools.partial(_normalise, self._spec)
        return iter(examples.batch(self._batch_size).map(normalise))


def test_batches(
    dataset: Dataset,
    *,
    batch_size: int,
    image_size: int | None = None,
    process_index: int = 0,
    process_count: int = 1,
) -> Batches:
    """Returns the test set in batches of one shape.

    Over all processes every test example is there exactly once, in a fixed order. All
    processes have the same number of batches; what is missing to full batches is
    filled with black images of label 0, which `valid` marks.

    Args:
        dataset: What `load` returned.
        batch_size: Examples per batch of this process, B.
        image_size: Side S of the images; `None` for that of the spec. Images in memory
            can only be enlarged.
        process_index: Number of this process, in [0, process_count).
        process_count: Number of processes.

    Returns:
        Dicts with `image`, float32, shape (B, S, S, C), normalised; `label`, int32,
        shape (B,); `valid`, float32, shape (B,), 1 for an example and 0 for filling.

    Raises:
        ValueError: If the test set is empty or an argument is out of range.
    """
    spec, examples = dataset.spec, dataset.test
    size = _check(
        spec,
        "test_batches",
        batch_size,
        image_size,
        process_index,
        process_count,
        len(examples),
    )
    num_batches = -(-len(examples) // (batch_size * process_count))

    def example(index: int) -> Example:
        valid = index < len(examples)
        if valid:
            shown = _test_example(spec, size, examples[index])
        else:
            black = np.zeros((size, size, spec.image_shape[2]), np.uint8)
            shown = {"image": black, "label": np.int32(0)}
        return {**shown, "valid": np.float32(valid)}

    indices = grain.MapDataset.range(
        process_index, num_batches * batch_size * process_count, process_count
    )
    return Batches(spec, indices.map(example), batch_size)


def _check(
    spec: DatasetSpec,
    caller: str,
    batch_size: int,
    image_size: int | None,
    process_index: int,
    process_count: int,
    num_examples: int,
) -> int:
    """Refuses arguments out of range; returns the side of the images."""
    if num_examples == 0:
        raise ValueError(
            f"`{caller}(dataset)` requires at least one example; this split of "
            f"{spec.name!r} has none."
        )
    if batch_size < 1:
        raise ValueError(f"`{caller}` requires batch_size >= 1; got {batch_size}.")
    if not 0 <= process_index < process_count:
        raise ValueError(
            f"`{caller}` requires 0 <= process_index < process_count; "
            f"got {process_index} and {process_count}."
        )
    size = spec.image_shape[0] if image_size is None else image_size
    smallest = spec.image_shape[0] if spec.in_memory else 1
    if size < smallest:
        raise ValueError(
            f"`{caller}` requires image_size >= {smallest} for {spec.name!r}; "
            f"got {size}."
        )
    return size


def _reading(spec: DatasetSpec) -> grain.ReadOptions:
    """Threads help where there is something to decode; memory needs none."""
    if spec.in_memory:
        return grain.ReadOptions(num_threads=0, prefetch_buffer_size=0)
    threads = min(16, os.cpu_count() or 1)
    return grain.ReadOptions(num_threads=threads, prefetch_buffer_size=512)


def _train_example(
    spec: DatasetSpec, size: int, example: Example, rng: np.random.Generator
) -> Example:
    assert spec.train_view is not None
    return {
        "image": spec.train_view(example["image"], rng, size),
        "label": np.int32(example["label"]),
    }


def _test_example(spec: DatasetSpec, size: int, example: Example) -> Example:
    return {
        "image": spec.test_view(example["image"], size),
        "label": np.int32(example["label"]),
    }


def _normalise(spec: DatasetSpec, batch: Any) -> Batch:
    mean, std = np.asarray(spec.mean), np.asarray(spec.std)
    image = np.multiply(batch["image"], np.float32(1 / (255 * std)), dtype=np.float32)
    image -= np.float32(mean / std)
    return {**batch, "image": image}
