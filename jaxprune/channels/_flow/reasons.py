"""Why an index cannot be removed."""

import enum
from typing import NamedTuple


class Reason(enum.Enum):
    """The kind of reason for which an index of an axis is pinned."""

    INPUT = "an input of the function keeps its shape"
    OUTPUT = "an output of the function keeps its shape"
    READ_WHOLE = "a sum, a sort, a look-up or the like reads all indices together"
    WINDOW = "a convolution or a window slides along the axis"
    SIZE_ONE = "the axis has one index only"
    RESULT = "an operation makes the axis at a fixed size"
    SYMBOLIC = "the size of the axis is symbolic"
    LAYERS = "a loop runs over the axis, one layer or step at a time"
    NO_RULE = "a primitive without a rule, or of unknown parameters, touches the axis"
    PARTLY_COUPLED = "the index is coupled with others in part only"
    UNUSED = "no output of the program depends on it"
    ALONE = "all indices are coupled into one channel"


class Why(NamedTuple):
    """A reason.

    Attributes:
      reason: its kind.
      text: in words, with the place in the program.
    """

    reason: Reason
    text: str
