"""Checkpoints, exported programs, weight files and the layout of PyTorch."""

from jaxprune.io._checkpoint import BrokenCheckpointError as BrokenCheckpointError
from jaxprune.io._checkpoint import Entry as Entry
from jaxprune.io._checkpoint import discard as discard
from jaxprune.io._checkpoint import entries as entries
from jaxprune.io._checkpoint import latest as latest
from jaxprune.io._checkpoint import load as load
from jaxprune.io._checkpoint import load_latest as load_latest
from jaxprune.io._checkpoint import save as save
from jaxprune.io._checkpoint import tidy as tidy
from jaxprune.io._compact import load_compact as load_compact
from jaxprune.io._compact import save_compact as save_compact
from jaxprune.io._export import export_program as export_program
from jaxprune.io._export import load_sparse as load_sparse
from jaxprune.io._export import load_weights as load_weights
from jaxprune.io._export import save_sparse as save_sparse
from jaxprune.io._export import save_weights as save_weights
from jaxprune.io._torch import TorchLayout as TorchLayout
from jaxprune.io._torch import TorchTensor as TorchTensor
from jaxprune.io._torch import after_flatten as after_flatten
from jaxprune.io._torch import dense_general as dense_general
from jaxprune.io._torch import from_torch as from_torch
from jaxprune.io._torch import to_torch as to_torch

__all__ = [
    "BrokenCheckpointError",
    "Entry",
    "TorchLayout",
    "TorchTensor",
    "after_flatten",
    "dense_general",
    "discard",
    "entries",
    "export_program",
    "from_torch",
    "latest",
    "load",
    "load_compact",
    "load_latest",
    "load_sparse",
    "load_weights",
    "save",
    "save_compact",
    "save_sparse",
    "save_weights",
    "tidy",
    "to_torch",
]
