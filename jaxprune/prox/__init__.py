"""Proximal operators on arrays and trees."""

from jaxprune.prox._inverse import inverse_soft_threshold as inverse_soft_threshold
from jaxprune.prox._operators import Prox as Prox
from jaxprune.prox._operators import box as box
from jaxprune.prox._operators import elastic_net as elastic_net
from jaxprune.prox._operators import group_soft_threshold as group_soft_threshold
from jaxprune.prox._operators import hard_threshold as hard_threshold
from jaxprune.prox._operators import (
    non_negative_soft_threshold as non_negative_soft_threshold,
)
from jaxprune.prox._operators import soft_threshold as soft_threshold
from jaxprune.prox._top_k import global_top_k as global_top_k
from jaxprune.prox._top_k import top_k as top_k

__all__ = [
    "Prox",
    "box",
    "elastic_net",
    "global_top_k",
    "group_soft_threshold",
    "hard_threshold",
    "inverse_soft_threshold",
    "non_negative_soft_threshold",
    "soft_threshold",
    "top_k",
]
