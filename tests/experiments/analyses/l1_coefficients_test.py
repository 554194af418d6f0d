"""The L1 coefficient of every schedule over time, against the theory."""

import numpy as np

from experiments.analyses import l1_coefficients


def test_the_coefficient_of_every_schedule_is_as_the_theory_says():
    found = l1_coefficients.coefficients(4)
    np.testing.assert_allclose(found["constant, exact"], 1.0, rtol=1e-9)
    ratios = found["geometric, exact"][1:] / found["geometric, exact"][:-1]
    np.testing.assert_allclose(ratios, 0.1**0.01, rtol=1e-9)
    # The closed form for a bare cosine: 5, 5 / 2, 5 / 3, ... while warming up.
    warm = found["LATS"][:5] / found["LATS"][4]
    np.testing.assert_allclose(warm, 5 / np.arange(1, 6), rtol=0.005)
    assert np.all(np.diff(found["STDS sine"][5:]) > 0)
    # Even increments against the learning rate: proportional to its inverse.
    rate = l1_coefficients.published_learning_rate(1)
    rates = np.array([float(rate(epoch)) for epoch in range(100)])
    product = found["STDS linear"] * rates
    np.testing.assert_allclose(product, product[0], rtol=1e-4)  # rates in float32
