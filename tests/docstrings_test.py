"""Docstrings of public functions say what a reader needs, in at least 95 % of them."""

import jax
import pytest

from tests.support import docstrings

COVERAGE = docstrings.coverage()


@pytest.mark.parametrize("criterion", COVERAGE)
def test_docstrings_are_complete(criterion):
    share, missing = COVERAGE[criterion]
    assert share >= docstrings.MINIMUM, f"{criterion} is missing in {missing}"


def test_the_check_sees_what_is_missing():
    def undocumented(weights: jax.Array):
        """Return something."""
        return weights

    def documented(weights: jax.Array):
        """Return the square.

            y = w^2

        Args:
          weights: w, of any shape.

        Returns:
          y.

        Examples:
          >>> 1
          1

        References:
          [A] Somebody.
        """
        return weights

    def passes(value):
        text = docstrings.inspect.getdoc(value)
        function = docstrings.Function("prox", value.__name__, value, text)
        return {
            name
            for name, (applies, holds) in docstrings.CRITERIA.items()
            if applies(function) and holds(function)
        }

    everything = {*docstrings.CRITERIA} - {"Raises"}
    assert passes(documented) == everything
    assert not passes(undocumented)


def test_functions_that_raise_through_what_they_call_are_found():
    by_name = {f.name: f.value for f in docstrings.functions()}
    assert docstrings._raises(by_name["soft_threshold"])
    assert not docstrings._raises(lambda: None)
