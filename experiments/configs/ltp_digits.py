"""LTP on handwritten digits: the demo."""

from experiments.configs import default


def get_config():
    """Returns the config."""
    return default.get_config()
