"""The rules of the primitives, which importing this folder registers."""

from jaxprune.channels._primitives import call as call
from jaxprune.channels._primitives import derivatives as derivatives
from jaxprune.channels._primitives import elementwise as elementwise
from jaxprune.channels._primitives import evaluate as evaluate
from jaxprune.channels._primitives import lookup as lookup
from jaxprune.channels._primitives import read as read
from jaxprune.channels._primitives import shape as shape
