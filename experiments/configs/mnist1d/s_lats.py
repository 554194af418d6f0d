"""S-LATS, the published closed form, on MNIST-1D.

Command:
    python -m experiments train --config=mnist1d/s_lats \
        --workdir=runs/mnist1d/s_lats

Expected: see the table of MNIST-1D in docs/results.
"""

from experiments.configs import mnist1d
from experiments.plans.lats import S_LATS


def get_config(model: str = "cnn1d"):
    """Returns the config."""
    return mnist1d.protocol(S_LATS, model)
