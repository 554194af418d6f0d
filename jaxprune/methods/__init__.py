"""The pruning methods: one file each, and files of what several of them share."""

from jaxprune.methods._channel_garrote import channel_garrote as channel_garrote
from jaxprune.methods._dsa import dsa as dsa
from jaxprune.methods._dsa import sharpness_schedule as sharpness_schedule
from jaxprune.methods._garrote import garrote as garrote
from jaxprune.methods._gates import soft_prune as soft_prune
from jaxprune.methods._grasp import grasp as grasp
from jaxprune.methods._grasp import grasp_scores as grasp_scores
from jaxprune.methods._identity import identity as identity
from jaxprune.methods._keep_probabilities import Sampler as Sampler
from jaxprune.methods._keep_probabilities import bernoulli_mask as bernoulli_mask
from jaxprune.methods._keep_probabilities import concrete_mask as concrete_mask
from jaxprune.methods._keep_probabilities import (
    deterministic_mask as deterministic_mask,
)
from jaxprune.methods._keep_probabilities import (
    keep_probabilities as keep_probabilities,
)
from jaxprune.methods._layer_by_layer import layer_by_layer as layer_by_layer
from jaxprune.methods._ltp import ltp as ltp
from jaxprune.methods._ltp import ltp_as_published as ltp_as_published
from jaxprune.methods._magnitude import global_magnitude as global_magnitude
from jaxprune.methods._magnitude import magnitude as magnitude
from jaxprune.methods._one_shot import LossFn as LossFn
from jaxprune.methods._random_erk import random_erk as random_erk
from jaxprune.methods._snip import snip as snip
from jaxprune.methods._snip import snip_scores as snip_scores
from jaxprune.methods._soft_thresholding import soft_thresholding as soft_thresholding
from jaxprune.methods._soft_thresholding import (
    straight_through_soft_threshold as straight_through_soft_threshold,
)
from jaxprune.methods._sparse_gpt import sparse_gpt as sparse_gpt
from jaxprune.methods._str import (
    soft_threshold_reparameterization as soft_threshold_reparameterization,
)
from jaxprune.methods._str import (
    soft_threshold_reparameterization_as_published as soft_threshold_reparameterization_as_published,  # noqa: E501
)
from jaxprune.methods._wanda import wanda as wanda
from jaxprune.methods._wanda import wanda_scores as wanda_scores

__all__ = [
    "LossFn",
    "Sampler",
    "bernoulli_mask",
    "channel_garrote",
    "concrete_mask",
    "deterministic_mask",
    "dsa",
    "garrote",
    "global_magnitude",
    "grasp",
    "grasp_scores",
    "identity",
    "keep_probabilities",
    "layer_by_layer",
    "ltp",
    "ltp_as_published",
    "magnitude",
    "random_erk",
    "sharpness_schedule",
    "snip",
    "snip_scores",
    "soft_prune",
    "soft_threshold_reparameterization",
    "soft_threshold_reparameterization_as_published",
    "soft_thresholding",
    "sparse_gpt",
    "straight_through_soft_threshold",
    "wanda",
    "wanda_scores",
]
