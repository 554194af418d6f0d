"""Functional neural-network pruning for JAX.

State the size, and the network has it. `lats(optimizer, sparsity=..., steps=...)` and
`gradual_magnitude` prune inside the optimizer. `pruning(method, at_most(cost, limit))`
joins a method (`ltp`, `dsa`, ...) and limits for any training loop; its `finalize`
makes the final network. `trace_channels` finds the channels of any function, and
`ChannelGraph.compact` removes them. See the README for a first run.
"""

from importlib.metadata import version as _version

from jaxprune import base as base
from jaxprune import budgets as budgets
from jaxprune import calibration as calibration
from jaxprune import channels as channels
from jaxprune import costs as costs
from jaxprune import io as io
from jaxprune import masks as masks
from jaxprune import methods as methods
from jaxprune import prox as prox
from jaxprune import report as report
from jaxprune import schedules as schedules
from jaxprune import training as training
from jaxprune import transforms as transforms
from jaxprune import tree as tree
from jaxprune.base import Budget as Budget
from jaxprune.base import ChannelPruner as ChannelPruner
from jaxprune.base import Limit as Limit
from jaxprune.base import Pruned as Pruned
from jaxprune.base import Pruner as Pruner
from jaxprune.budgets import admm as admm
from jaxprune.budgets import admm_as_published as admm_as_published
from jaxprune.budgets import at_most as at_most
from jaxprune.budgets import dual_ascent as dual_ascent
from jaxprune.budgets import unlimited as unlimited
from jaxprune.budgets import weighted as weighted
from jaxprune.calibration import calibrate as calibrate
from jaxprune.channels import ChannelGraph as ChannelGraph
from jaxprune.channels import fold_constants as fold_constants
from jaxprune.channels import live_channels as live_channels
from jaxprune.channels import trace_channels as trace_channels
from jaxprune.costs import density as density
from jaxprune.masks import apply_masks as apply_masks
from jaxprune.masks import nonzero_masks as nonzero_masks
from jaxprune.masks import top_k_masks as top_k_masks
from jaxprune.methods import channel_garrote as channel_garrote
from jaxprune.methods import dsa as dsa
from jaxprune.methods import garrote as garrote
from jaxprune.methods import global_magnitude as global_magnitude
from jaxprune.methods import grasp as grasp
from jaxprune.methods import identity as identity
from jaxprune.methods import ltp as ltp
from jaxprune.methods import ltp_as_published as ltp_as_published
from jaxprune.methods import magnitude as magnitude
from jaxprune.methods import random_erk as random_erk
from jaxprune.methods import snip as snip
from jaxprune.methods import (
    soft_threshold_reparameterization as soft_threshold_reparameterization,
)
from jaxprune.methods import (
    soft_threshold_reparameterization_as_published as soft_threshold_reparameterization_as_published,  # noqa: E501
)
from jaxprune.methods import soft_thresholding as soft_thresholding
from jaxprune.methods import sparse_gpt as sparse_gpt
from jaxprune.methods import wanda as wanda
from jaxprune.report import Report as Report
from jaxprune.report import summarize as summarize
from jaxprune.training import distill as distill
from jaxprune.training import nnx_module as nnx_module
from jaxprune.training import pruning as pruning
from jaxprune.transforms import check as check
from jaxprune.transforms import finalize as finalize
from jaxprune.transforms import follow_threshold as follow_threshold
from jaxprune.transforms import freeze_pruned as freeze_pruned
from jaxprune.transforms import gradual_magnitude as gradual_magnitude
from jaxprune.transforms import lats as lats
from jaxprune.transforms import reach_keep_ratio as reach_keep_ratio
from jaxprune.tree import by_name as by_name
from jaxprune.tree import kernels as kernels
from jaxprune.tree import operands as operands
from jaxprune.tree import selected as selected
from jaxprune.tree import selection as selection

__version__ = _version("jaxprune")

# `io` is left out: a star import must hide no module of the standard library.
__all__ = [
    "Budget",
    "ChannelGraph",
    "ChannelPruner",
    "Limit",
    "Pruned",
    "Pruner",
    "Report",
    "admm",
    "admm_as_published",
    "apply_masks",
    "at_most",
    "base",
    "budgets",
    "by_name",
    "calibrate",
    "calibration",
    "channel_garrote",
    "channels",
    "check",
    "costs",
    "density",
    "distill",
    "dsa",
    "dual_ascent",
    "finalize",
    "fold_constants",
    "follow_threshold",
    "freeze_pruned",
    "garrote",
    "global_magnitude",
    "gradual_magnitude",
    "grasp",
    "identity",
    "kernels",
    "lats",
    "live_channels",
    "ltp",
    "ltp_as_published",
    "magnitude",
    "masks",
    "methods",
    "nnx_module",
    "nonzero_masks",
    "operands",
    "prox",
    "pruning",
    "random_erk",
    "reach_keep_ratio",
    "report",
    "schedules",
    "selected",
    "selection",
    "snip",
    "soft_threshold_reparameterization",
    "soft_threshold_reparameterization_as_published",
    "soft_thresholding",
    "sparse_gpt",
    "summarize",
    "top_k_masks",
    "trace_channels",
    "training",
    "transforms",
    "tree",
    "unlimited",
    "wanda",
    "weighted",
]
