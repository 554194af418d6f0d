"""Eight CPU devices, strict promotion of ranks; warnings are errors (pyproject)."""

import contextlib
import gc
import os
import tempfile

import chex
import jax
import numpy as np
import pytest

# Eight devices on a few busy cores may wait for each other longer than the 40 seconds
# after which XLA aborts the process.
os.environ["XLA_FLAGS"] = (
    os.environ.get("XLA_FLAGS", "")
    + " --xla_cpu_collective_call_terminate_timeout_seconds=600"
)
jax.config.update("jax_num_cpu_devices", 8)
jax.config.update("jax_numpy_rank_promotion", "raise")

# What one test has compiled the next need not compile again: whole training runs are
# the same programs. A folder for each process, because entries are not written
# atomically, and gone with it, so that no test sees what another version compiled.
_COMPILED = tempfile.TemporaryDirectory(prefix="jaxprune-tests-")
jax.config.update("jax_compilation_cache_dir", _COMPILED.name)
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.05)

# Tests that take long, longest first: run last, they would leave other workers idle.
_LONG = (
    "experiments/train_test.py::test_a_run_that_was_stopped",
    "experiments/train_test.py",
    "experiments/sweep_test.py",
    "channels/compaction_test.py",
    "contract_test.py",
)

# Files whose time is spent on compiling programs that run once.
_COMPILE_BOUND = ("contract_test.py", "property_test.py", "regrowth_test.py")
_COMPILE_BOUND += ("k_largest_test.py", "selection_test.py", "counts_test.py")
_COMPILE_BOUND += ("distributions_test.py",)


def pytest_collection_modifyitems(items):
    def rank(item):
        found = (i for i, name in enumerate(_LONG) if name in item.nodeid)
        return next(found, len(_LONG))

    items.sort(key=rank)


def pytest_collection_finish():
    # What was imported stays: the collector need not look at it again and again.
    gc.collect()
    gc.freeze()


def pytest_unconfigure():
    _COMPILED.cleanup()


@pytest.fixture
def rng():
    return np.random.default_rng(0)


@contextlib.contextmanager
def _optimizations(few: bool):
    before = jax.config.read("jax_disable_most_optimizations")
    jax.config.update("jax_disable_most_optimizations", few)
    try:
        yield
    finally:
        jax.config.update("jax_disable_most_optimizations", before)


@pytest.fixture
def compiles_fast():
    """For programs that run so few times that optimising them does not pay."""
    with _optimizations(few=True):
        yield


@pytest.fixture
def compiles_as_users_do():
    """For what is measured on the compiled program itself."""
    with _optimizations(few=False):
        yield


# For a whole file, so that the fixtures that a file shares are compiled alike.
@pytest.fixture(autouse=True, scope="module")
def _compiles_fast_where_listed(request):
    with _optimizations(few=request.path.name in _COMPILE_BOUND):
        yield


# chex tells traced functions apart by their code: two tests may share a count.
@pytest.fixture(autouse=True)
def _no_trace_counted():
    chex.clear_trace_counter()
