"""Channels of any traced function: groups, masks, gates, allocation, compaction."""

from jaxprune.channels._allocation import important_layers as important_layers
from jaxprune.channels._allocation import round_to_limits as round_to_limits
from jaxprune.channels._allocation import uniform_ratio as uniform_ratio
from jaxprune.channels._blocks import Block as Block
from jaxprune.channels._compaction import Compacted as Compacted
from jaxprune.channels._counts import channel_counts as channel_counts
from jaxprune.channels._counts import important_channels as important_channels
from jaxprune.channels._counts import largest_channels as largest_channels
from jaxprune.channels._counts import random_channel_masks as random_channel_masks
from jaxprune.channels._flow.reasons import Reason as Reason
from jaxprune.channels._folding import fold_constants as fold_constants
from jaxprune.channels._gates import GatePlan as GatePlan
from jaxprune.channels._gates import apply_gates as apply_gates
from jaxprune.channels._gates import gate_masks as gate_masks
from jaxprune.channels._gates import plan_gates as plan_gates
from jaxprune.channels._graph import ChannelGraph as ChannelGraph
from jaxprune.channels._graph import Function as Function
from jaxprune.channels._graph import Group as Group
from jaxprune.channels._graph import Member as Member
from jaxprune.channels._graph import Pinned as Pinned
from jaxprune.channels._graph import trace_channels as trace_channels
from jaxprune.channels._importance import Importance as Importance
from jaxprune.channels._importance import channel_norms as channel_norms
from jaxprune.channels._importance import filter_norms as filter_norms
from jaxprune.channels._importance import (
    filter_norms_and_scales as filter_norms_and_scales,
)
from jaxprune.channels._importance import norm_scales as norm_scales
from jaxprune.channels._importance import squared_taylor as squared_taylor
from jaxprune.channels._importance import taylor as taylor
from jaxprune.channels._liveness import live_channels as live_channels
from jaxprune.channels._masks import channel_masks as channel_masks
from jaxprune.channels._masks import consumer_masks as consumer_masks
from jaxprune.channels._standard import StandardForm as StandardForm
from jaxprune.channels._standard import standard_form as standard_form
from jaxprune.channels._statistics import renew_statistics as renew_statistics

__all__ = [
    "Block",
    "ChannelGraph",
    "Compacted",
    "Function",
    "GatePlan",
    "Group",
    "Importance",
    "Member",
    "Pinned",
    "Reason",
    "StandardForm",
    "apply_gates",
    "channel_counts",
    "channel_masks",
    "channel_norms",
    "consumer_masks",
    "filter_norms",
    "filter_norms_and_scales",
    "fold_constants",
    "gate_masks",
    "important_channels",
    "important_layers",
    "largest_channels",
    "live_channels",
    "norm_scales",
    "plan_gates",
    "random_channel_masks",
    "renew_statistics",
    "round_to_limits",
    "squared_taylor",
    "standard_form",
    "taylor",
    "trace_channels",
    "uniform_ratio",
]
