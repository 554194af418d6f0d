"""Configs say how they are run, and what to expect."""

import ast
import re
from pathlib import Path

import pytest

from experiments import configs

FOLDER = Path(configs.__file__).parent
CONFIGS = {
    name: ast.get_docstring(ast.parse((FOLDER / f"{name}.py").read_text()))
    for name in configs.names()
}


PUBLISHED = [n for n in CONFIGS if re.match(r"(cifar10|imagenet)/dsa_", n)]


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_recipe_of_dsa_has_the_published_numbers(name):
    config = configs.load(name)
    epochs = config.dense_epochs + config.prune_epochs + config.finetune_epochs
    size = config.batch_size, config.learning_rate, config.learning_rate_drops, epochs
    if "imagenet" in name:
        assert size == (256, 0.1, (50, 80, 110), 120)
    else:
        assert size == (128, 0.05, (120, 180, 240), 300)
    # beta_2 is 0.05 * 1.1^epoch, counted from the beginning of the run.
    assert config.sharpness_growth == 1.1
    assert config.sharpness == pytest.approx(0.05 * 1.1**config.dense_epochs)
    assert (config.momentum, config.nesterov) == (0.9, False)
    assert (config.weight_decay, config.decay_everything) == (4e-5, True)
    assert (config.held_out, config.ratio_every) == (0.1, 20)
    assert (config.keep_floor, config.init_logit) == (0.01, 5.0)


@pytest.mark.parametrize("name", CONFIGS)
def test_a_config_gives_its_command_and_what_to_expect(name):
    text = " ".join(CONFIGS[name].split())
    command, expected = re.fullmatch(
        r".*\bCommand\b[^:]*: (.*) Expected: (.*)", text
    ).groups()
    assert command.startswith("python -m experiments train ")
    assert f"--config={name} " in command
    assert f"--workdir=runs/{name}" in command
    assert re.search(r"\d %|table .* in README", expected)
    assert not re.search(r"\b(EXPECTED|TODO|TBD|XXX)\b", text)
