"""A sweep whose means and spreads are worked out by hand."""

import pytest

from tests.experiments.tables.made_up import put

# Means and sample standard deviations by hand:
#   98, 99, 100: 99 and sqrt((1 + 0 + 1) / 2) = 1
#   97, 97.5, 99: 97.8333 and sqrt((0.6944 + 0.1111 + 1.3611) / 2) = 1.0408
#   99, 99.1: 99.05 and sqrt(0.05^2 + 0.05^2) = 0.0707
_RUNS = {
    ("digits/dense", None): (0.99, 0.99, 0.99),
    ("digits/ltp", 0.9): (0.98, 0.99, 1.0),
    ("digits/ltp", 0.95): (0.97, 0.975, 0.99),
    ("digits/magnitude", 0.9): (0.99, 0.991),
}


@pytest.fixture
def sweep(tmp_path):
    """The folder of the sweep."""
    folder = tmp_path / "sweep"
    for (config, sparsity), accuracies in _RUNS.items():
        for seed, accuracy in enumerate(accuracies):
            put(folder, config, sparsity, seed, accuracy)
    return folder
