"""Schedules: functions from the optimizer step to a value."""

from jaxprune.schedules._from_rate import final_threshold as final_threshold
from jaxprune.schedules._from_rate import from_learning_rate as from_learning_rate
from jaxprune.schedules._from_rate import l1_coefficient as l1_coefficient
from jaxprune.schedules._from_rate import (
    pgh_from_learning_rate as pgh_from_learning_rate,
)
from jaxprune.schedules._published import constant as constant
from jaxprune.schedules._published import lats as lats
from jaxprune.schedules._published import linear as linear
from jaxprune.schedules._published import pgh as pgh
from jaxprune.schedules._published import s_lats as s_lats
from jaxprune.schedules._published import sine as sine
from jaxprune.schedules._ramps import cubic_ramp as cubic_ramp
from jaxprune.schedules._ramps import fine_tuning as fine_tuning
from jaxprune.schedules._ramps import geometric_ramp as geometric_ramp

__all__ = [
    "constant",
    "cubic_ramp",
    "final_threshold",
    "fine_tuning",
    "from_learning_rate",
    "geometric_ramp",
    "l1_coefficient",
    "lats",
    "linear",
    "pgh",
    "pgh_from_learning_rate",
    "s_lats",
    "sine",
]
