"""Checkpoints, exported programs and weight files."""

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

__all__ = [
    "BrokenCheckpointError",
    "Entry",
    "discard",
    "entries",
    "export_program",
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
]
