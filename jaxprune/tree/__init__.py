"""Names of leaves, and selections of leaves: `where`, for every method and cost.

`where` is a function from parameters to a tree prefix of booleans, such a prefix, a
shell pattern of names or a tuple of them, or a `Selection` with exclusions, stacked
layers and masks that already hold.
"""

from jaxprune.tree._kernels import kernels as kernels
from jaxprune.tree._names import name_of as name_of
from jaxprune.tree._names import named_leaves as named_leaves
from jaxprune.tree._names import names as names
from jaxprune.tree._names import replace as replace
from jaxprune.tree._operands import operands as operands
from jaxprune.tree._selection import Choice as Choice
from jaxprune.tree._selection import Selected as Selected
from jaxprune.tree._selection import Selection as Selection
from jaxprune.tree._selection import Where as Where
from jaxprune.tree._selection import by_name as by_name
from jaxprune.tree._selection import resolve as resolve
from jaxprune.tree._selection import select as select
from jaxprune.tree._selection import selected as selected
from jaxprune.tree._selection import selection as selection
from jaxprune.tree._selection import sizes as sizes

__all__ = [
    "Choice",
    "Selected",
    "Selection",
    "Where",
    "by_name",
    "kernels",
    "name_of",
    "named_leaves",
    "names",
    "operands",
    "replace",
    "resolve",
    "select",
    "selected",
    "selection",
    "sizes",
]
