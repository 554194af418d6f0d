"""The examples in the docstrings of the experiments run."""

import pytest

import experiments
from tests.support import doctests


@pytest.mark.parametrize("name", doctests.modules(experiments))
def test_the_examples_in_docstrings_run(name):
    failed, attempted, written = doctests.run(name)
    assert failed == 0
    assert attempted == written  # None of the source was overlooked.
