"""Which rows of a table of tests are quick enough for `make test`."""

from collections.abc import Collection, Iterable
from typing import Any

import pytest


def rows(table: Iterable[Any], quick: Collection[Any]) -> list[Any]:
    """Return the rows as parameters of a test, all but the quick ones marked slow.

    Args:
      table: the rows, such as the names of networks.
      quick: those that `make test` runs, one of each mechanism; `make test-slow` runs
        the others.
    """
    table = list(table)
    assert all(row in table for row in quick), (quick, table)
    return [pytest.param(r, marks=[pytest.mark.slow] * (r not in quick)) for r in table]
