"""The runs that tell numbers, ranking and training of DSA apart."""

import json

import pytest

from experiments import train
from experiments.analyses import allocation_control
from experiments.plans.dsa import DSA
from experiments.run import config_check
from tests.experiments.fields import put

pytestmark = pytest.mark.usefixtures("digits_in_memory", "one_device", "no_pictures")


def test_every_cell_differs_in_one_thing_and_is_accepted(tmp_path):
    runs = list(allocation_control.cells(tmp_path, 0.5, 0))
    assert len({folder for folder, _ in runs}) == len(runs) == 9
    for _, config in runs:
        config_check.check(config)
    given = [
        (c.method.allocation != "", c.method.importance, c.method.gated)
        for _, c in runs[1:]
    ]
    assert len(set(given)) == 8


@pytest.mark.parametrize("gated", [False, True])
def test_given_numbers_are_kept(gated, data_dir, tmp_path):
    (_, dsa), *others = allocation_control.cells(tmp_path, 0.5, 0)
    config = next(
        c for _, c in others if c.method.allocation and c.method.gated == gated
    )
    put(config, model="cnn", image_size=0, dir=str(data_dir))
    put(config, dense=0.0, prune=0.1, finetune=0.0)
    counts = {"conv1/kernel:3": 5, "conv2/kernel:3": 20, "dense1/kernel:1": 40}
    kept = {f"params/{name}": list(range(n)) for name, n in counts.items()}
    config.method.allocation = str(tmp_path)
    text = json.dumps({"channels": kept})
    (tmp_path / "summary.json").write_text(text)
    summary = train.train_and_evaluate(config, tmp_path / "run")
    found = {name: len(indices) for name, indices in summary["channels"].items()}
    assert found == {name: len(indices) for name, indices in kept.items()}
    assert summary["keep_ratios"]["params/conv2/kernel:3"] == 20 / 64
    assert dsa.plan is DSA


def test_a_folder_without_channels_is_refused(data_dir, tmp_path):
    config = list(allocation_control.cells(tmp_path, 0.5, 0))[-1][1]
    put(config, model="cnn", image_size=0, dir=str(data_dir))
    with pytest.raises(ValueError, match="must be the folder of a finished run"):
        train.train_and_evaluate(config, tmp_path / "run")
