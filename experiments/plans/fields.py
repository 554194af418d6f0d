"""Fields of a config: a default, what it means, and which values it may have."""

import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple


class Rule(NamedTuple):
    """Which values a field may have.

    Attributes:
      text: completes "must be".
      allows: whether a value is one of them.
    """

    text: str
    allows: Callable[[Any], bool]


class Field(NamedTuple):
    """A field of a config.

    Attributes:
      default: None for a number that may be left out.
      about: what it means, in a line.
      rule: which values it may have; None if the type says enough.
    """

    default: Any
    about: str
    rule: Rule | None = None


Fields = Mapping[str, Any]
"""Fields by name; a value is a `Field`, or the fields of a section."""

FRACTION = Rule("in [0, 1)", lambda x: 0 <= x < 1)
SHARE = Rule("in [0, 1]", lambda x: 0 <= x <= 1)
LIMIT = Rule("in (0, 1], a fraction of the dense cost", lambda x: 0 < x <= 1)
POSITIVE = Rule("above 0", lambda x: 0 < x < math.inf)
NOT_NEGATIVE = Rule("0 or above", lambda x: 0 <= x < math.inf)
COUNT = Rule("at least 1", lambda x: x >= 1)


def one_of(*values: str) -> Rule:
    """Return the rule that allows these values."""
    listed = ", ".join(map(repr, values))
    return Rule(f"one of {listed}", lambda x: x in values)


def at_least(number: int) -> Rule:
    """Return the rule that allows this number and more."""
    return Rule(f"at least {number}", lambda x: x >= number)


def flatten(fields: Fields, prefix: str = "") -> Iterator[tuple[str, Field]]:
    """Yield the dotted name of every field, and the field."""
    for name, field in fields.items():
        if isinstance(field, Field):
            yield f"{prefix}{name}", field
        else:
            yield from flatten(field, f"{prefix}{name}.")


def check_value(name: str, value: Any, field: Field) -> None:
    """Refuse a value that the rule of its field does not allow.

    Raises:
      ValueError: naming the field, the value, the rule and, where a percentage was
        given, the fraction.
    """
    rule = field.rule
    if rule is None or value == field.default:
        return
    simple = isinstance(value, str | int | float) and not isinstance(value, bool)
    if simple and rule.allows(value):
        return
    hint = ""
    if rule.text.startswith("in ") and isinstance(value, int | float) and value > 1:
        hint = f" For {value} %, pass {value / 100}."
    raise ValueError(f"`config.{name}={value!r}` must be {rule.text}.{hint}")
