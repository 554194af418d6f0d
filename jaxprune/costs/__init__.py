"""Costs of a network as functions of keep ratios."""

from jaxprune.costs._channels import bytes_moved as bytes_moved
from jaxprune.costs._channels import macs as macs
from jaxprune.costs._channels import parameters as parameters
from jaxprune.costs._density import density as density
from jaxprune.costs._latency import LatencyCost as LatencyCost
from jaxprune.costs._latency import Measurement as Measurement
from jaxprune.costs._latency import fit as fit
from jaxprune.costs._latency import interleaved as interleaved
from jaxprune.costs._latency import measure as measure
from jaxprune.costs._latency import random_keep_ratios as random_keep_ratios
from jaxprune.costs._polynomial import PolynomialCost as PolynomialCost
from jaxprune.costs._relative_entropy import relative_entropy as relative_entropy

__all__ = [
    "LatencyCost",
    "Measurement",
    "PolynomialCost",
    "bytes_moved",
    "density",
    "fit",
    "interleaved",
    "macs",
    "measure",
    "parameters",
    "random_keep_ratios",
    "relative_entropy",
]
