"""Images and labels for the experiments, read from TFDS without TensorFlow.

`load` opens a prepared TFDS directory through `as_data_source` (ArrayRecord), and
prepares it first where that is possible; `train_batches` and `test_batches` turn it
into batches of NumPy arrays with Grain:

    dataset = load("digits", data_dir="data")
    batches = train_batches(dataset, batch_size=64, seed=0)
    batch = next(batches)  # image float32 (64, 8, 8, 1), label int32 (64,)

Pixels are stored as uint8, or signals as float32, and normalised per channel in
float32, `(pixel / unit - mean) / std`, with the constants of the `DatasetSpec`. Small
sets are decoded once into memory; ImageNet is decoded as it is read.

With several processes, process p of P takes elements p, p + P, ... of one global
stream. So the union of the P batches of b examples is the batch of P * b examples which
one process would see, augmentation included.
"""

# ruff: noqa: PT028 (`test_batches` is not a test)

import functools
import os
from collections.abc import Iterator, Sequence
from typing import Any

import grain
import numpy as np

from experiments.data.datasets import Dataset, DatasetSpec, Example

Batch = dict[str, np.ndarray]


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
    stream = _shuffled(dataset.train, seed)
    if augment and spec.train_view is not None:
        stream = stream.random_map(functools.partial(_train_example, spec, size))
    else:
        stream = stream.map(functools.partial(_test_example, spec, size))
    stream = stream[process_index::process_count].to_iter_dataset(_reading(spec))
    batches = stream.batch(batch_size, drop_remainder=True)
    return iter(batches.map(functools.partial(_normalise, spec)))


def train_positions(size: int, *, seed: int, count: int) -> np.ndarray:
    """Returns which examples `train_batches` gives, in their order.

    Args:
        size: Number of training examples.
        seed: In [0, 2**32).
        count: Number of examples that are given, over all epochs.

    Returns:
        Positions in the training set, int32, shape (count,).
    """
    stream = _shuffled(range(size), seed)
    return np.fromiter((stream[i] for i in range(count)), np.int32, count)


def _shuffled(source: Any, seed: int) -> grain.MapDataset[Any]:
    """The examples of all epochs, each in an order of its own."""
    return grain.MapDataset.source(source).seed(seed).shuffle().repeat()


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
            found = _test_example(spec, size, examples[index])
        else:
            sides = (size,) * (len(spec.image_shape) - 1)
            black = np.zeros((*sides, spec.image_shape[-1]), spec.dtype)
            found = {"image": black, "label": np.int32(0)}
        return {**found, "valid": np.float32(valid)}

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
    scale = np.float32(1 / (spec.unit * std))
    image = np.multiply(batch["image"], scale, dtype=np.float32)
    image -= np.float32(mean / std)
    return {**batch, "image": image}
