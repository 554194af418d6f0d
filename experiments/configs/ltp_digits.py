"""LTP on handwritten digits to a twentieth of the weights: the demo.

Command:
    python -m experiments.main --config=experiments/configs/ltp_digits.py \
        --workdir=runs/ltp_digits

Expected: x20 compression, hard-pruned test accuracy 99.2 to 99.4 %.
Time: 35 s on two CPU cores. Other sizes: `--config.sparsity=0.99`.
"""

from experiments.configs import default


def get_config():
    """Returns the config."""
    return default.get_config()
