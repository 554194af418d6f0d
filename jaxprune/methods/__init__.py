"""The pruning methods; each is one file, and none knows another."""

from jaxprune.methods.dsa import dsa as dsa
from jaxprune.methods.grasp import grasp as grasp
from jaxprune.methods.grasp import grasp_scores as grasp_scores
from jaxprune.methods.identity import identity as identity
from jaxprune.methods.lats import lats as lats
from jaxprune.methods.lats import soft_thresholding as soft_thresholding
from jaxprune.methods.ltp import ltp as ltp
from jaxprune.methods.ltp import ltp_as_published as ltp_as_published
from jaxprune.methods.magnitude import global_magnitude as global_magnitude
from jaxprune.methods.magnitude import magnitude as magnitude
from jaxprune.methods.random_erk import erk_counts as erk_counts
from jaxprune.methods.random_erk import random_erk as random_erk
from jaxprune.methods.snip import snip as snip
from jaxprune.methods.snip import snip_scores as snip_scores
from jaxprune.methods.soft_threshold_reparameterization import (
    soft_threshold_reparameterization as soft_threshold_reparameterization,
)
