"""Eight CPU devices, strict promotion of ranks; warnings are errors (pyproject)."""

import gc
import os
import tempfile

import chex
import jax
import numpy as np
import pytest
from jax._src import lru_cache

# Most time of the tests is XLA's, on programs that run once: they are compiled without
# optimisations, unless the environment says otherwise. What a test measures on the
# compiled program itself is compiled as users do, by the fixture below.
_FAST = os.environ.setdefault("JAX_DISABLE_MOST_OPTIMIZATIONS", "1") == "1"
jax.config.update("jax_disable_most_optimizations", _FAST)
# Programs need not say from which line each operation comes: a tenth of the time.
os.environ["JAX_TRACEBACK_IN_LOCATIONS_LIMIT"] = "0"
jax.config.update("jax_traceback_in_locations_limit", 0)
# Eight devices on a few busy cores may wait for each other longer than the 40 seconds
# after which XLA aborts the process.
_FLAGS = ["--xla_cpu_collective_call_terminate_timeout_seconds=600"]
# Tests run side by side already: one thread compiles a program.
_FLAGS.append("--xla_cpu_parallel_codegen_split_count=1")
if _FAST and jax.__version_info__ < (0, 11):
    # MLIR emitters take more than half of a small program's time. Newer releases of
    # XLA have no others, and stop at a flag that they do not know.
    _FLAGS.append("--xla_cpu_use_fusion_emitters=false")
os.environ["XLA_FLAGS"] = " ".join([os.environ.get("XLA_FLAGS", ""), *_FLAGS])
jax.config.update("jax_num_cpu_devices", 8)
jax.config.update("jax_numpy_rank_promotion", "raise")

# What one test has compiled the next need not compile again, whatever process runs it:
# whole training runs are the same programs. The process that starts the others makes
# the folder and removes it, so that no test sees what another version compiled.
_SHARED = "JAXPRUNE_TESTS_COMPILED"
_COMPILED = None
if _SHARED not in os.environ:
    _COMPILED = tempfile.TemporaryDirectory(prefix="jaxprune-tests-")
    os.environ[_SHARED] = _COMPILED.name
jax.config.update("jax_compilation_cache_dir", os.environ[_SHARED])
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)


def _put(self, key, value):
    """Write an entry whole or not at all; JAX's own `put` writes in place."""
    entry = self.path / f"{key}-cache"
    part = self.path / f"{key}.{os.getpid()}"
    part.write_bytes(value)
    part.replace(entry)


lru_cache.LRUCache.put = _put

# Tests that take long, longest first: run last, they would leave other workers idle.
_LONG = (
    "experiments/train_test.py::test_a_run_that_was_stopped",
    "experiments/train_test.py",
    "experiments/sweep/sweep_test.py",
    "channels/compaction_test.py",
    "contract_test.py",
)


def pytest_collection_modifyitems(items):
    def rank(item):
        found = (i for i, name in enumerate(_LONG) if name in item.nodeid)
        return next(found, len(_LONG))

    items.sort(key=rank)


def pytest_collection_finish():
    # What was imported and traced stays: the collector need not look at it so often.
    gc.collect()
    gc.freeze()
    gc.set_threshold(100_000, 20, 50)


def pytest_unconfigure():
    if _COMPILED is not None:
        _COMPILED.cleanup()


@pytest.fixture
def rng():
    return np.random.default_rng(0)


@pytest.fixture
def compiles_as_users_do():
    """For what is measured on the compiled program itself."""
    before = jax.config.read("jax_disable_most_optimizations")
    jax.config.update("jax_disable_most_optimizations", False)
    yield
    jax.config.update("jax_disable_most_optimizations", before)


# chex tells traced functions apart by their code: two tests may share a count.
@pytest.fixture(autouse=True)
def _no_trace_counted():
    chex.clear_trace_counter()
