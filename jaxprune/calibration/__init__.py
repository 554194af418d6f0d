"""Calibration: what weights, channels and blocks do on a sample of data."""

from jaxprune.calibration._channels import activation_norms as activation_norms
from jaxprune.calibration._channels import block_influence as block_influence
from jaxprune.calibration._inputs import Inputs as Inputs
from jaxprune.calibration._statistics import Calibrator as Calibrator
from jaxprune.calibration._statistics import Statistics as Statistics
from jaxprune.calibration._statistics import calibrate as calibrate
from jaxprune.calibration._statistics import calibrator as calibrator
from jaxprune.calibration._statistics import input_norms as input_norms
from jaxprune.calibration._views import Use as Use

__all__ = [
    "Calibrator",
    "Inputs",
    "Statistics",
    "Use",
    "activation_norms",
    "block_influence",
    "calibrate",
    "calibrator",
    "input_norms",
]
