"""Thresholds follow the published numbers, and the learning rate that is in use."""

import json
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxprune import schedules
from tests.support import soft_reference as reference

GOLDEN = json.loads(
    (pathlib.Path(__file__).parent.parent / "golden" / "lats.json").read_text()
)["schedules"]
CLOSED = {
    "s_lats": schedules.s_lats(0.3, 40),
    "lats": schedules.lats(0.3, 10, 4),
    "pgh": schedules.pgh(0.3, 40, beta=0.1),
    "linear": schedules.linear(0.3, 40),
    "sine": schedules.sine(0.3, 40),
    "from_learning_rate": schedules.from_learning_rate(0.1, 0.3, 40),
}
COSINE = optax.cosine_decay_schedule(0.256, 1000)
RATES = {
    "constant": 0.1,
    "cosine": COSINE,
    "warm-up and cosine": optax.warmup_cosine_decay_schedule(0.0, 0.256, 50, 1000),
    "steps": optax.piecewise_constant_schedule(0.1, {300: 0.1, 600: 0.1}),
    "restarts": optax.sgdr_schedule(
        [
            {"init_value": 0.0, "peak_value": p, "warmup_steps": 50, "decay_steps": 500}
            for p in (0.2, 0.1)
        ]
    ),
}


def values(schedule, count):
    return np.asarray(jax.vmap(schedule)(jnp.arange(count, dtype=jnp.int32)), float)


def exact_values(schedule, count):
    if not callable(schedule):
        return np.full(count, schedule)
    with jax.enable_x64(True):
        return values(schedule, count)


@pytest.fixture
def float64():
    with jax.enable_x64(True):
        yield


@pytest.mark.usefixtures("float64")
def test_s_lats_equals_the_authors_numbers():
    for n, steps, value in GOLDEN["s_lats"]:
        ours = float(schedules.s_lats(1.0, steps)(n))
        assert ours == pytest.approx(value, abs=1e-12)
        assert ours == pytest.approx(reference.s_lats(n, steps), abs=1e-14)


@pytest.mark.usefixtures("float64")
def test_pgh_equals_the_authors_numbers_and_the_integral():
    for n, steps, beta, value in GOLDEN["pgh"]:
        ours = float(schedules.pgh(1.0, steps, beta=beta)(n))
        assert ours == pytest.approx(value, abs=1e-12)
        assert ours == pytest.approx(reference.pgh(n, steps, beta), abs=1e-8)


@pytest.mark.usefixtures("float64")
def test_lats_equals_the_authors_numbers_and_the_sum_over_epochs():
    per_epoch = 4
    for n, epochs, base, slope in GOLDEN["lats_epoch"]:
        schedule = schedules.lats(1.0, epochs, per_epoch)
        assert float(schedule(n * per_epoch)) == pytest.approx(base, abs=1e-12)
        if n < epochs:
            ours = float(schedule(n * per_epoch + 3))
            assert ours == pytest.approx(base + 0.75 * slope, abs=1e-12)
            sums = reference.lats(n, 3, epochs, per_epoch)
            assert ours == pytest.approx(sums, abs=1e-12)


@pytest.mark.parametrize("name", CLOSED)
def test_thresholds_rise_from_zero_to_the_final_one_and_stay_in_float32(name):
    d = values(CLOSED[name], 60)
    assert d[0] == 0.0
    assert np.all(np.diff(d) >= -1e-7)
    np.testing.assert_array_equal(d[40:], d[40])
    assert d[40] == pytest.approx(0.3, rel=1e-6)
    with jax.enable_x64(True):
        np.testing.assert_allclose(d, values(CLOSED[name], 60), atol=1e-6)


@pytest.mark.parametrize("rate", RATES)
def test_the_coefficient_is_constant_for_any_learning_rate(rate):
    threshold = schedules.from_learning_rate(RATES[rate], 0.02, 1000)
    coefficients = schedules.l1_coefficient(threshold, RATES[rate], 1000)
    seen = coefficients[~np.isnan(coefficients)]
    assert seen.size >= 998
    # Increments are exact to the rounding of D; where the learning rate is 1e-6 of its
    # peak, that leaves 8 digits of the coefficient.
    rates = exact_values(RATES[rate], 1000)
    constant = 0.02 / np.sum(rates)
    increments = np.diff(exact_values(threshold, 1001))
    np.testing.assert_allclose(increments, constant * rates, rtol=0, atol=1e-16)
    np.testing.assert_allclose(seen, constant, rtol=1e-7)
    total = schedules.final_threshold(constant, RATES[rate], 1000)
    assert total == pytest.approx(0.02, rel=1e-12)


def test_a_learning_rate_may_begin_with_zeros():
    late = lambda step: jnp.where(step < 3, 0.0, 0.1)
    threshold = schedules.from_learning_rate(late, 0.5, 8)
    expected = [0, 0, 0, 0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.5]
    np.testing.assert_allclose(values(threshold, 10), expected, rtol=1e-6)


@pytest.mark.parametrize("rate", RATES)
def test_the_homotopy_coefficient_is_geometric_for_any_learning_rate(rate):
    threshold = schedules.pgh_from_learning_rate(RATES[rate], 0.02, 1000, beta=0.01)
    coefficients = schedules.l1_coefficient(threshold, RATES[rate], 1000)
    expected = coefficients[1] * 0.01 ** ((np.arange(1000) - 1) / 1000)
    seen = ~np.isnan(coefficients)
    np.testing.assert_allclose(coefficients[seen], expected[seen], rtol=2e-5)


def test_the_closed_forms_are_the_limit_for_a_bare_cosine():
    exact = values(schedules.from_learning_rate(COSINE, 1.0, 1000), 1001)
    np.testing.assert_allclose(
        exact, values(schedules.s_lats(1.0, 1000), 1001), atol=1.1e-3
    )
    exact = values(schedules.pgh_from_learning_rate(COSINE, 1.0, 1000, beta=0.1), 1001)
    closed = values(schedules.pgh(1.0, 1000, beta=0.1), 1001)
    np.testing.assert_allclose(exact, closed, atol=2.1e-3)


def test_the_closed_form_is_five_times_too_strong_in_the_first_warm_up_epoch():
    # The published recipe, one step per epoch: warm-up lr (e + 1) / 5, then cosine.
    epochs = 100
    warm = optax.linear_schedule(0.256 / 5, 0.256, 4)
    rate = optax.join_schedules([warm, optax.cosine_decay_schedule(0.256, 95)], [5])
    closed = schedules.l1_coefficient(schedules.s_lats(1.0, epochs), rate, epochs)
    exact = schedules.from_learning_rate(rate, 1.0, epochs)
    ours = schedules.l1_coefficient(exact, rate, epochs)
    ratios = closed[:5] / closed[5]
    np.testing.assert_allclose(ratios, [5, 2.5, 1.67, 1.25, 1], rtol=0.01)
    np.testing.assert_allclose(ours, ours[0], rtol=1e-9)


def test_the_predecessors_coefficient_grows_as_the_learning_rate_fades():
    linear = schedules.l1_coefficient(schedules.linear(1.0, 1000), COSINE, 1000)
    constant = schedules.l1_coefficient(schedules.constant(0.5), COSINE, 1000)
    assert linear[-1] > 1e5 * linear[0]
    np.testing.assert_array_equal(constant, 0.0)


def test_momentum_divides_the_effective_coefficient():
    threshold = schedules.from_learning_rate(0.1, 1.0, 10)
    plain = schedules.l1_coefficient(threshold, 0.1, 10)
    heavy = schedules.l1_coefficient(threshold, 0.1, 10, momentum=0.875)
    np.testing.assert_allclose(heavy, 0.125 * plain)
    assert schedules.final_threshold(plain[0], 0.1, 10) == pytest.approx(1.0)
    final = schedules.final_threshold(heavy[0], 0.1, 10, momentum=0.875)
    assert final == pytest.approx(1.0)


def test_a_zero_learning_rate_gives_nan_at_rest_and_infinity_when_moving():
    rate = optax.linear_schedule(1.0, 0.0, 2)  # 1, 0.5, 0, 0
    rest = schedules.l1_coefficient(schedules.linear(1.0, 2), rate, 4)
    move = schedules.l1_coefficient(schedules.linear(1.0, 4), rate, 4)
    np.testing.assert_array_equal(rest, [0.5, 1.0, np.nan, np.nan])
    np.testing.assert_array_equal(move, [0.25, 0.5, np.inf, np.inf])


def test_schedules_can_be_built_and_called_inside_a_trace():
    @jax.jit
    def value(final, step):
        return (
            schedules.from_learning_rate(COSINE, final, 1000)(step),
            schedules.s_lats(final, 1000)(step),
        )

    table, closed = value(0.5, 300)
    expected = schedules.from_learning_rate(COSINE, 0.5, 1000)(300)
    assert float(table) == pytest.approx(float(expected), rel=1e-6)
    assert float(closed) == pytest.approx(0.5 * reference.s_lats(300, 1000), rel=1e-6)


def test_pruning_may_start_late():
    late = optax.join_schedules(
        [schedules.constant(0.0), schedules.s_lats(0.2, 10)], [5]
    )
    expected = [0.0] * 6 + [0.2 * reference.s_lats(n, 10) for n in range(1, 11)]
    np.testing.assert_allclose(values(late, 16), expected, rtol=1e-5)


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (
            lambda: schedules.s_lats(-1.0, 10),
            ValueError,
            r"final=-1.0\)`: .*at least 0",
        ),
        (lambda: schedules.s_lats(1.0, 0), ValueError, r"steps=0\)`: .*at least 1"),
        (
            lambda: schedules.linear(1.0, 2.5),
            ValueError,
            r"steps=2.5\)`: .*whole number",
        ),
        (lambda: schedules.lats(1.0, 10, -4), ValueError, "steps_per_epoch="),
        (lambda: schedules.pgh(1.0, 10, beta=0), ValueError, r"beta=0\)`: .*\(0, 1\)"),
        (
            lambda: schedules.pgh(1.0, 10, beta=1.0),
            ValueError,
            r"beta=1.0\)`: .*\(0, 1\)",
        ),
        (
            lambda: schedules.pgh_from_learning_rate(0.1, 1.0, 10, beta=2),
            ValueError,
            "beta=",
        ),
        (lambda: schedules.constant(-0.1), ValueError, "threshold="),
        (lambda: schedules.from_learning_rate(-0.1, 1.0, 4), ValueError, "rate=-0.1"),
        (
            lambda: schedules.from_learning_rate(lambda t: 0.2 - 0.1 * t, 1.0, 4),
            ValueError,
            "learning_rate=.*at step 3",
        ),
        (
            lambda: schedules.from_learning_rate(lambda t: t / 0.0, 1.0, 4),
            ValueError,
            "at step 0",
        ),
        (lambda: schedules.from_learning_rate(0.0, 1.0, 4), ValueError, "is 0 at all"),
        (
            lambda: schedules.from_learning_rate(0.1, 1.0, 4, coefficient=-1),
            ValueError,
            "coefficient=",
        ),
        (lambda: schedules.from_learning_rate("a", 1.0, 4), TypeError, "rate='a'"),
        (
            lambda: schedules.l1_coefficient(
                schedules.s_lats(1.0, 4), 0.1, 4, momentum=1
            ),
            ValueError,
            r"\[0, 1\)",
        ),
        (lambda: schedules.final_threshold(-1.0, 0.1, 4), ValueError, "coefficient="),
    ],
)
def test_bad_input_is_refused_with_its_name_and_value(call, error, words):
    with pytest.raises(error, match=words):
        call()
