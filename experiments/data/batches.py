"""Images and labels for the experiments, read from TFDS without TensorFlow.

`load` opens a prepared TFDS directory through `as_data_source` (ArrayRecord), and
prepares it first where that is possible; `train_batches` and `test_batches` turn it
into batches of NumPy arrays with Grain:

    dataset = load("digits", data_dir="data")
    batches = train_batches(dataset, batch_size=64, seed=0)
    batch = next(batches)  # image float32 (64, 8, 8, 1), label int32 (64,)

Pixels are stored as uint8, or signals as float32, and normalised per channel in
float32, `(pixel / unit - mean) / std`, with the constants of the `DatasetSpec`. Texts
are bytes, int32 of shape (B, T), as are their labels, the byte after each. Small
sets are decoded once into memory; ImageNet is decoded as it is read.

With several processes, process p of P takes elements p, p + P, ... of one global
stream. So the union of the P batches of b examples is the batch of P * b examples which
one process would see, augmentation included.
"""

# ruff: noqa: PT028 (`test_batches` is not a test)

import functools
import os
from typing import Any

import grain
import numpy as np

from experiments.data.datasets import Dataset, DatasetSpec, Example, Source

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
    """
    spec, view = dataset.spec, dataset.spec.train_view
    process = process_index, process_count
    size = _check("train_batches", spec, dataset.train, batch_size, image_size, process)
    if batch_size * process_count > len(dataset.train):
        raise ValueError(
            f"`train_batches(batch_size={batch_size}, process_count={process_count})` "
            f"requires batch_size * process_count <= {len(dataset.train)}, the number "
            f"of training examples of {spec.name!r}. Use a smaller batch."
        )

    def augmented(example: Example, rng: np.random.Generator) -> Example:
        assert view is not None
        label = np.int32(example["label"])
        return {"image": view(example["image"], rng, size), "label": label}

    stream = _shuffled(dataset.train, seed)
    if augment and view is not None:
        stream = stream.random_map(augmented)
    else:
        stream = stream.map(functools.partial(_test_example, spec, size))
    return iter(_batched(spec, stream[process_index::process_count], batch_size))


def train_positions(size: int, *, seed: int, count: int) -> np.ndarray:
    """Returns the positions of the examples of `train_batches`, int32."""
    stream = _shuffled(range(size), seed)
    return np.fromiter((stream[i] for i in range(count)), np.int32, count)


def _shuffled(source: Any, seed: int) -> grain.MapDataset[Any]:
    """The examples of all epochs, each in an order of its own."""
    return grain.MapDataset.source(source).seed(seed).shuffle().repeat()


def test_batches(
    dataset: Dataset,
    *,
    batch_size: int,
    image_size: int | None = None,
    process_index: int = 0,
    process_count: int = 1,
) -> grain.IterDataset[Batch]:
    """Returns the test set in batches of one shape.

    Over all processes every test example is there exactly once, in a fixed order. All
    processes have the same number of batches; what is missing to full batches is
    filled with black images of label 0, which `valid` marks.

    Args:
        dataset: What `load` returned.
        batch_size: Examples per batch of this process, B.
        image_size: As in `train_batches`, like the two below.
        process_index: Number of this process.
        process_count: Number of processes.

    Returns:
        Iterated over as often as needed, dicts with `image`, float32, shape
        (B, S, S, C), normalised; `label`, int32, shape (B,); `valid`, float32, shape
        (B,), 1 for an example and 0 for filling.

    Raises:
        ValueError: If the test set is empty or an argument is out of range.
    """
    spec, examples = dataset.spec, dataset.test
    process = process_index, process_count
    size = _check("test_batches", spec, examples, batch_size, image_size, process)
    num_batches = -(-len(examples) // (batch_size * process_count))

    def example(index: int) -> Example:
        valid = index < len(examples)
        if valid:
            found = _test_example(spec, size, examples[index])
        else:
            sides = (size,) * (len(spec.image_shape) - 1)
            black = np.zeros((*sides, spec.image_shape[-1]), spec.dtype)
            found = {"image": black, "label": np.zeros(spec.label_shape, np.int32)}
        return {**found, "valid": np.float32(valid)}

    indices = grain.MapDataset.range(
        process_index, num_batches * batch_size * process_count, process_count
    )
    return _batched(spec, indices.map(example), batch_size)


def _check(
    caller: str,
    spec: DatasetSpec,
    examples: Source,
    batch_size: int,
    image_size: int | None,
    process: tuple[int, int],
) -> int:
    """Refuses arguments out of range; returns the side of the images."""
    size = spec.image_shape[0] if image_size is None else image_size
    smallest = spec.image_shape[0] if spec.in_memory else 1
    required = {
        "at least one example in this split": len(examples) > 0,
        "batch_size >= 1": batch_size >= 1,
        "0 <= process_index < process_count": 0 <= process[0] < process[1],
        f"image_size >= {smallest}": size >= smallest,
        "no image_size for a text": not spec.is_text or size == spec.image_shape[0],
    }
    for what, holds in required.items():
        if not holds:
            raise ValueError(
                f"`{caller}(...)` of {spec.name!r} requires {what}; got "
                f"{len(examples)} examples, batch_size={batch_size}, "
                f"image_size={image_size}, process {process[0]} of {process[1]}."
            )
    return size


def _test_example(spec: DatasetSpec, size: int, example: Example) -> Example:
    image = spec.test_view(example["image"], size)
    return {"image": image, "label": np.int32(example["label"])}


def _batched(
    spec: DatasetSpec, examples: grain.MapDataset[Example], batch_size: int
) -> grain.IterDataset[Batch]:
    """Normalised batches; threads read ahead where there is something to decode."""
    threads = 0 if spec.in_memory else min(16, os.cpu_count() or 1)
    reading = grain.ReadOptions(threads, prefetch_buffer_size=512 if threads else 0)
    batches = examples.to_iter_dataset(reading).batch(batch_size, drop_remainder=True)
    if spec.is_text:
        return batches.map(lambda b: {**b, "image": b["image"].astype(np.int32)})
    mean, std = np.asarray(spec.mean), np.asarray(spec.std)
    scale, offset = np.float32(1 / (spec.unit * std)), np.float32(mean / std)

    def normalise(batch: Any) -> Batch:
        image = batch["image"]
        # Whole rows at a time: NumPy's loop over three channels takes thrice as long.
        rows = image.reshape(*image.shape[:-2], -1)
        repeats = image.shape[-2]
        rows = np.multiply(rows, np.tile(scale, repeats), dtype=np.float32)
        rows -= np.tile(offset, repeats)
        return {**batch, "image": rows.reshape(image.shape)}

    return batches.map(normalise)
