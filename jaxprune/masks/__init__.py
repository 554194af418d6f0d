"""Masks of weights: which weights are kept, and their application."""

from jaxprune.masks._apply import apply_masks as apply_masks
from jaxprune.masks._apply import fill as fill
from jaxprune.masks._apply import kept_counts as kept_counts
from jaxprune.masks._apply import nonzero_masks as nonzero_masks
from jaxprune.masks._apply import validate as validate
from jaxprune.masks._counts import keep_count as keep_count
from jaxprune.masks._counts import keep_ratio_of as keep_ratio_of
from jaxprune.masks._counts import layer_floor as layer_floor
from jaxprune.masks._distributions import Distribution as Distribution
from jaxprune.masks._distributions import erk as erk
from jaxprune.masks._distributions import global_ as global_
from jaxprune.masks._distributions import layer_counts as layer_counts
from jaxprune.masks._distributions import uniform as uniform
from jaxprune.masks._from_scores import floor_masks as floor_masks
from jaxprune.masks._from_scores import scored_masks as scored_masks
from jaxprune.masks._from_scores import top_k_masks as top_k_masks
from jaxprune.masks._n_m import n_m_masks as n_m_masks

__all__ = [
    "Distribution",
    "apply_masks",
    "erk",
    "fill",
    "floor_masks",
    "global_",
    "keep_count",
    "keep_ratio_of",
    "kept_counts",
    "layer_counts",
    "layer_floor",
    "n_m_masks",
    "nonzero_masks",
    "scored_masks",
    "top_k_masks",
    "uniform",
    "validate",
]
