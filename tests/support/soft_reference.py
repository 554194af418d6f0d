"""Soft-threshold pruning in NumPy float64, loops written from the equations."""

import math

import numpy as np


def soft(x, s):
    """argmin_y (y - x)^2 / 2 + s |y|, entry by entry, by cases."""
    y = np.zeros(np.shape(x))
    for i, value in np.ndenumerate(np.asarray(x, float)):
        threshold = np.broadcast_to(s, y.shape)[i]
        if value > threshold:
            y[i] = value - threshold
        elif value < -threshold:
            y[i] = value + threshold
    return y


def elastic_net(x, s, l1, l2):
    return soft(x, s * l1) / (1 + s * l2)


def group_soft(x, s, group_axes):
    """Shrink each slice at one index of ``group_axes`` by s in its 2-norm."""
    x = np.asarray(x, float)
    axes = [axis % x.ndim for axis in group_axes]
    y = np.zeros_like(x)
    for index in np.ndindex(*(x.shape[axis] for axis in axes)):
        where = [slice(None)] * x.ndim
        for axis, i in zip(axes, index, strict=True):
            where[axis] = i
        group = x[tuple(where)]
        norm = math.sqrt(sum(v * v for v in group.ravel()))
        if norm > s:
            y[tuple(where)] = (1 - s / norm) * group
    return y


def hard(x, s):
    """Compare the two candidates, 0 (cost x^2/2) and x (cost s)."""
    return np.where(np.asarray(x) ** 2 / 2 > s, x, 0.0)


def top_k(x, count):
    """Keep ``count`` entries, the largest magnitudes, earlier ones among equals."""
    flat = np.asarray(x, float).ravel()
    order = sorted(range(flat.size), key=lambda i: (-abs(flat[i]), i))
    y = np.zeros_like(flat)
    for i in order[:count]:
        y[i] = flat[i]
    return y.reshape(np.shape(x))


def ista(gradient, w, strength, rates, momentum=0.0):
    """SGD with heavy-ball momentum, then the soft threshold lambda eta / (1 - mu)."""
    buffer, path = np.zeros_like(w), []
    for rate in rates:
        buffer = gradient(w) + momentum * buffer
        w = soft(w - rate * buffer, strength * rate / (1 - momentum))
        path.append(w)
    return np.array(path)


def fista(gradient, w, strength, rate, steps):
    """[Beck and Teboulle 2009] (4.1)-(4.3), restarted when the step turns back."""
    x, y, t, path, restarts = w.copy(), w.copy(), 1.0, [], 0
    for _ in range(steps):
        x_next = soft(y - rate * gradient(y), strength * rate)
        if np.sum((y - x_next) * (x_next - x)) > 0:
            t, restarts = 1.0, restarts + 1
        t_next = (1 + math.sqrt(1 + 4 * t * t)) / 2
        y = x_next + (t - 1) / t_next * (x_next - x)
        x, t = x_next, t_next
        path.append(x)
    return np.array(path), restarts


def adam_ista(gradient, w, strength, rate, steps, b1=0.9, b2=0.999, eps=1e-8):
    """Adam, then the soft threshold with lambda eta over the root of nu."""
    mu, nu, path = np.zeros_like(w), np.zeros_like(w), []
    for step in range(1, steps + 1):
        g = gradient(w)
        mu = b1 * mu + (1 - b1) * g
        nu = b2 * nu + (1 - b2) * g * g
        scale = rate / (np.sqrt(nu / (1 - b2**step)) + eps)
        w = soft(w - scale * mu / (1 - b1**step), strength * scale)
        path.append(w)
    return np.array(path)


def s_lats(n, steps):
    return math.sin(math.pi * n / steps) / math.pi + n / steps


def lats(n, j, epochs, steps_per_epoch):
    """The sum of 1 + cos(pi k / N) over the epochs so far, and j steps of this one."""
    done = sum(1 + math.cos(math.pi * k / epochs) for k in range(n))
    now = 1 + math.cos(math.pi * n / epochs)
    return (done + now * j / steps_per_epoch) / (epochs + 1)


def pgh(n, steps, beta, cells=20_000):
    """The integral of beta^s (1 + cos pi s) by the midpoint rule."""

    def integral(end):
        s = (np.arange(cells) + 0.5) * end / cells
        return np.sum(beta**s * (1 + np.cos(np.pi * s))) * end / cells

    return integral(n / steps) / integral(1.0)
