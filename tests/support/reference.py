"""The equations in NumPy float64, written from the papers with loops."""

import math

import numpy as np


def sigmoid(x):
    return 1 / (1 + math.exp(-x)) if x >= 0 else math.exp(x) / (1 + math.exp(x))


def ltp_soft_prune(w, tau, temperature):
    """[LTP] Eq. (2) and (6): v_k = w_k sigm((w_k^2 - tau)/T) and sum_k sigm(...)."""
    w = np.asarray(w, np.float64)
    v, count = np.zeros_like(w), 0.0
    for k in np.ndindex(w.shape):
        s = sigmoid((w[k] ** 2 - tau) / temperature)
        v[k] = w[k] * s
        count += s
    return v, count


def ltp_sigma(w, tau, temperature):
    """sigma_T(w) = (2 w / T) s (1 - s), the derivative of the gate in w."""
    s = sigmoid((w**2 - tau) / temperature)
    return 2 * w / temperature * s * (1 - s)


def ltp_gradients(w, tau, temperature, pruned_bar, count_bar):
    """[LTP] Eq. (14) for the weights, Eq. (10) for the threshold.

    dL/dw_k = dL/dv_k s_k, and
    dL/dtau = sum_k dL/dv_k (-sigma_T(w_k)/2) + dL/dL0 (-sigma_T(w_k)/(2 w_k)).
    """
    w = np.asarray(w, np.float64)
    w_bar, tau_bar = np.zeros_like(w), 0.0
    for k in np.ndindex(w.shape):
        s = sigmoid((w[k] ** 2 - tau) / temperature)
        sigma = ltp_sigma(w[k], tau, temperature)
        w_bar[k] = pruned_bar[k] * s
        tau_bar += pruned_bar[k] * -0.5 * sigma
        tau_bar += count_bar * -s * (1 - s) / temperature
    return w_bar, tau_bar


def variance_of_magnitudes(w):
    """[LTP] Eq. (15): Var(|w|)."""
    magnitudes = [abs(float(x)) for x in np.asarray(w, np.float64).ravel()]
    mean = sum(magnitudes) / len(magnitudes)
    return sum((m - mean) ** 2 for m in magnitudes) / len(magnitudes)


def top_k(scores, k):
    """True for the k largest; ties go to the first position."""
    flat = list(np.asarray(scores).ravel())
    order = sorted(range(len(flat)), key=lambda i: (-flat[i], i))
    mask = np.zeros(len(flat), bool)
    mask[order[:k]] = True
    return mask.reshape(np.shape(scores))


def cubic_ramp(step, init, end, begin_step, end_step):
    """[GMP] Eq. (1)."""
    if step <= begin_step:
        return init
    if step >= end_step:
        return end
    t = (step - begin_step) / (end_step - begin_step)
    return end + (init - end) * (1 - t) ** 3
