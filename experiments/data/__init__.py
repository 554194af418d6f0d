"""Images and labels, read from TFDS without TensorFlow, in batches of NumPy arrays."""

from experiments.data.batches import Batch as Batch
from experiments.data.batches import Batches as Batches
from experiments.data.batches import test_batches as test_batches
from experiments.data.batches import train_batches as train_batches
from experiments.data.batches import train_positions as train_positions
from experiments.data.datasets import ArraySource as ArraySource
from experiments.data.datasets import Dataset as Dataset
from experiments.data.datasets import DatasetSpec as DatasetSpec
from experiments.data.datasets import Example as Example
from experiments.data.datasets import Source as Source
from experiments.data.datasets import Subset as Subset
from experiments.data.datasets import dataset_spec as dataset_spec
from experiments.data.datasets import load as load

__all__ = [
    "ArraySource",
    "Batch",
    "Batches",
    "Dataset",
    "DatasetSpec",
    "Example",
    "Source",
    "Subset",
    "dataset_spec",
    "load",
    "test_batches",
    "train_batches",
    "train_positions",
]
