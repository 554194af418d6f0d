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
    phases, weights, method = config.phases, config.optimizer, config.method
    epochs = phases.dense + phases.prune + phases.finetune
    rates = weights.learning_rate, weights.learning_rate_drops
    size = config.data.batch_size, *rates, epochs
    if "imagenet" in name:
        assert size == (256, 0.1, (50, 80, 110), 120)
    else:
        assert size == (128, 0.05, (120, 180, 240), 300)
    # beta_2 is 0.05 * 1.1^epoch, counted from the beginning of the run.
    assert method.sharpness_growth == 1.1
    assert method.sharpness == pytest.approx(0.05 * 1.1**phases.dense)
    assert (weights.momentum, weights.nesterov) == (0.9, False)
    assert (weights.weight_decay, weights.decay_everything) == (4e-5, True)
    assert (config.data.held_out, method.ratio_every) == (0.1, 20)
    assert (method.keep_floor, method.init_logit) == (0.01, 5.0)


@pytest.mark.parametrize("name", CONFIGS)
def test_a_config_gives_its_command_and_what_to_expect(name):
    text = " ".join(CONFIGS[name].split())
    command, expected = re.fullmatch(
        r".*\bCommand\b[^:]*: (.*) Expected: (.*)", text
    ).groups()
    assert command.startswith("python -m experiments train ")
    assert f"--config={name} " in command
    assert f"--workdir=runs/{name}" in command
    assert re.search(r"\d (%|bits per byte)|table .* in docs/results", expected)
    assert not re.search(r"\b(EXPECTED|TODO|TBD|XXX)\b", text)


@pytest.mark.parametrize(
    "text",
    [
        "digits/dsa",
        "digits/dsa.py",
        "experiments/configs/digits/dsa.py",
        str(FOLDER / "digits/dsa.py"),
        str(FOLDER / "digits/dsa"),
    ],
)
def test_a_config_is_found_by_its_name_and_by_its_path(text):
    assert configs.name_of(text) == "digits/dsa"
    assert configs.load(text).plan.title == "DSA"


def test_a_config_of_the_user_is_found_by_its_path(tmp_path):
    path = tmp_path / "mine.py"
    path.write_text((FOLDER / "digits/dsa.py").read_text())
    for text in (str(path), str(path.with_suffix(""))):
        assert configs.load(text).budget.macs == 0.5
        assert configs.name_of(text) == "mine"
    path.write_text("x = 1")
    with pytest.raises(ValueError, match="no function `get_config`"):
        configs.load(str(path))


@pytest.mark.parametrize("text", ["ltp", "ltp_digits", "digits/lpt", "digit/ltp"])
def test_an_unknown_config_is_refused_with_names_that_are_near(text):
    with pytest.raises(ValueError, match=r"no such config. Did you mean .*digits/ltp"):
        configs.load(text)


@pytest.mark.parametrize(
    ("argument", "value"),
    [
        ("seed=3", 3),
        ("budget.sparsity=0.5", 0.5),
        ("optimizer.nesterov=false", False),
        ("optimizer.learning_rate_drops=(3,5)", (3, 5)),
        ("optimizer.learning_rate_drops=3", (3,)),
        ("method.penalty_weight=2", 2.0),
        ("method.penalty_weight=none", None),
        ("data.name=cifar10", "cifar10"),
    ],
)
def test_an_override_has_the_type_of_its_field(argument, value):
    config = configs.load("digits/ltp")
    configs.override(config, f"--config.{argument}")
    found = dict(configs.leaves(config))[argument.partition("=")[0]]
    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("seed=x", "'seed' must be of type int; got 'x'"),
        ("run.progress=yes", "type bool"),
        ("optimizer.learning_rate_drops=x", "type tuple"),
        ("plan=3", "type Method"),
        ("method.sharpnes=3", "no such field for DSA. Did you mean 'method.sharpness'"),
        ("budget.sparsity=0.9", "no such field for DSA"),
        ("macs=0.9", "Did you mean 'budget.macs'"),
    ],
)
def test_an_override_that_does_not_fit_is_refused(argument, message):
    with pytest.raises(ValueError, match=message):
        configs.override(configs.load("digits/dsa"), f"--config.{argument}")
