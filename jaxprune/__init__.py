"""Functional neural-network pruning for JAX.

Say the size, get it: a `Pruner` decides what the network sees, an optax optimizer how
its weights move, a `Budget` what it may cost. See the README for a first run.
"""

from importlib.metadata import version as _version

# Storey 0: nouns, names of leaves.
from jaxprune import base as base
from jaxprune import tree as tree
from jaxprune.base import Budget as Budget
from jaxprune.base import Pruned as Pruned
from jaxprune.base import Pruner as Pruner
from jaxprune.tree import by_name as by_name
from jaxprune.tree import kernels as kernels

# isort: split
# Storey 1: mathematics of one array.
from jaxprune import gates as gates
from jaxprune import keep_probabilities as keep_probabilities
from jaxprune import schedules as schedules

# isort: split
# Storey 2: trees.
from jaxprune import masks as masks
from jaxprune.masks import apply_masks as apply_masks
from jaxprune.masks import nonzero_masks as nonzero_masks
from jaxprune.masks import top_k_masks as top_k_masks
from jaxprune.threshold_control import follow_threshold as follow_threshold
from jaxprune.threshold_control import reach_keep_ratio as reach_keep_ratio
from jaxprune.transforms import freeze_pruned as freeze_pruned

# isort: split
# Storey 2: channels.
from jaxprune import channel_gates as channel_gates
from jaxprune import channel_masks as channel_masks
from jaxprune import importance as importance
from jaxprune.folding import fold_constants as fold_constants
from jaxprune.graph import ChannelGraph as ChannelGraph
from jaxprune.graph import trace_channels as trace_channels

# isort: split
# Storey 3: prices.
from jaxprune import allocation as allocation
from jaxprune import budgets as budgets
from jaxprune import costs as costs
from jaxprune import hard_budgets as hard_budgets
from jaxprune.budgets import dual_ascent as dual_ascent
from jaxprune.budgets import unlimited as unlimited
from jaxprune.budgets import weighted as weighted
from jaxprune.costs import parameter_ratio as parameter_ratio
from jaxprune.hard_budgets import admm as admm
from jaxprune.hard_budgets import admm_as_published as admm_as_published

# isort: split
# Storey 4: methods.
from jaxprune.methods import dsa as dsa
from jaxprune.methods import global_magnitude as global_magnitude
from jaxprune.methods import grasp as grasp
from jaxprune.methods import identity as identity
from jaxprune.methods import lats as lats
from jaxprune.methods import ltp as ltp
from jaxprune.methods import ltp_as_published as ltp_as_published
from jaxprune.methods import magnitude as magnitude
from jaxprune.methods import random_erk as random_erk
from jaxprune.methods import snip as snip
from jaxprune.methods import (
    soft_threshold_reparameterization as soft_threshold_reparameterization,
)
from jaxprune.methods import soft_thresholding as soft_thresholding

# isort: split
# Storey 5: leaving the house.
from jaxprune import checkpoint as checkpoint
from jaxprune import compaction as compaction
from jaxprune import export as export
from jaxprune import latency as latency
from jaxprune.compaction import compact as compact
from jaxprune.liveness import live_channels as live_channels
from jaxprune.report import Report as Report
from jaxprune.report import summarize as summarize

__version__ = _version("jaxprune")
