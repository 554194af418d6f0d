"""Images and labels, read from TFDS without TensorFlow, in batches of NumPy arrays."""

from experiments.data.batches import Batch, test_batches, train_batches, train_positions
from experiments.data.datasets import (
    ArraySource,
    Dataset,
    DatasetSpec,
    Subset,
    dataset_spec,
    load,
)

__all__ = [
    "ArraySource",
    "Batch",
    "Dataset",
    "DatasetSpec",
    "Subset",
    "dataset_spec",
    "load",
    "test_batches",
    "train_batches",
    "train_positions",
]
