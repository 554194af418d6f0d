"""Masks of weights: which weights are kept, and their application."""

from jaxprune.masks._ranking import keep_count as keep_count
from jaxprune.masks._select import apply_masks as apply_masks
from jaxprune.masks._select import fill as fill
from jaxprune.masks._select import floor_masks as floor_masks
from jaxprune.masks._select import global_masks as global_masks
from jaxprune.masks._select import keep_ratio_of as keep_ratio_of
from jaxprune.masks._select import kept_counts as kept_counts
from jaxprune.masks._select import layer_floor as layer_floor
from jaxprune.masks._select import nonzero_masks as nonzero_masks
from jaxprune.masks._select import top_k_masks as top_k_masks
from jaxprune.masks._select import uniform_masks as uniform_masks
from jaxprune.masks._select import validate as validate

__all__ = [
    "apply_masks",
    "fill",
    "floor_masks",
    "global_masks",
    "keep_count",
    "keep_ratio_of",
    "kept_counts",
    "layer_floor",
    "nonzero_masks",
    "top_k_masks",
    "uniform_masks",
    "validate",
]
