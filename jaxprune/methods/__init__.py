"""The pruning methods; each is one file, and none knows another."""

from jaxprune.methods.identity import identity as identity
from jaxprune.methods.lats import lats as lats
from jaxprune.methods.lats import soft_thresholding as soft_thresholding
from jaxprune.methods.ltp import ltp as ltp
from jaxprune.methods.ltp import ltp_as_published as ltp_as_published
from jaxprune.methods.magnitude import global_magnitude as global_magnitude
from jaxprune.methods.magnitude import magnitude as magnitude
