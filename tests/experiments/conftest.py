"""What runs share: the digits, and devices on which short runs are quick."""

import functools

import jax
import pytest

from experiments import data
from experiments.report import report
from experiments.run import parallel


@pytest.fixture(scope="session")
def data_dir(tmp_path_factory):
    """The folder of the digits, prepared."""
    folder = tmp_path_factory.mktemp("data")
    data.load("digits", data_dir=folder)
    return folder


@pytest.fixture(scope="session")
def _load_once():
    return functools.cache(data.load)


@pytest.fixture
def digits_in_memory(_load_once, monkeypatch):
    """Decodes the digits once for all runs of a process."""
    monkeypatch.setattr(data, "load", _load_once)


@pytest.fixture
def one_device(monkeypatch):
    """Trains on one device: that more give the same is tested once, in `train_test`.

    Eight virtual devices on two busy cores wait for each other, and every program
    takes longer to compile.
    """
    create, one = parallel.create, parallel.by_jit(jax.devices()[:1])
    monkeypatch.setattr(
        parallel, "create", lambda name: one if name == "jit" else create(name)
    )


@pytest.fixture
def no_pictures(monkeypatch):
    """Leaves the report out, which other tests read."""
    monkeypatch.setattr(report, "write_report", lambda workdir: None)
