"""The rules of the primitives, which importing this folder registers.

A module for each kind; every primitive is one record with all of its rules. A primitive
declares the axes that it works on, and the others pass.
"""

from jaxprune.channels._primitives import calls as calls
from jaxprune.channels._primitives import derivatives as derivatives
from jaxprune.channels._primitives import elementwise as elementwise
from jaxprune.channels._primitives import linear_algebra as linear_algebra
from jaxprune.channels._primitives import lookup as lookup
from jaxprune.channels._primitives import products as products
from jaxprune.channels._primitives import reductions as reductions
from jaxprune.channels._primitives import shape as shape
from jaxprune.channels._primitives import sums as sums
