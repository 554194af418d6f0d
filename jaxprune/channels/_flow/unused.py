"""What no output of a program depends on."""

from collections.abc import Sequence

import numpy as np

from jaxprune.channels._flow.atoms import Fixed
from jaxprune.channels._flow.flow import Flow, Value
from jaxprune.channels._flow.reasons import Reason, Why

_TEXT = "the program does not use it"


def pin_unused(flow: Flow, leaves: Sequence[Value]) -> None:
    """Pins indices of leaves that nothing in the program uses.

    Nothing is known of them: another function may use them together with others. What
    is only moved, or returned as it came, is not used.
    """
    used = flow.atoms.used()
    for value in leaves:
        for axis in value.axes:
            if isinstance(axis, Fixed):
                continue
            rows = flow.atoms.resolve(axis)
            alone = ~used[rows].any(axis=1) & (rows > 0).any(axis=1)
            flow.atoms.pin(axis[np.flatnonzero(alone)], Why(Reason.UNUSED, _TEXT))
