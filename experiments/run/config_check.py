"""What is wrong with a config, found before data are loaded or a folder is made."""

from experiments import configs
from experiments.configs import default
from experiments.plans.fields import check_value, flatten
from experiments.plans.method import (
    Config,
    channel_limits,
    no_budget,
    prunes_channels,
)


def check(config: Config) -> None:
    """Refuse a config with fields that do not exist or do not fit each other.

    Raises:
      ValueError: the message names the field and the remedy.
    """
    known = dict(flatten(default.fields_of(config)))
    given = dict(configs.leaves(config))
    for name, value in given.items():
        configs.check_name(name, [*known, "plan"], config.plan.title)
        if name != "plan":
            check_value(name, value, known[name])
    missing = [name for name in known if name not in given]
    if missing:
        raise ValueError(
            f"`config.{missing[0]}` is missing. Start from "
            "`experiments.configs.default.get_config(...)`."
        )
    _check_together(config)


def _check_together(config: Config) -> None:
    """Refuse two fields of which one is not read, and a budget that is not met."""
    for name in ("penalty_weight", "final_threshold"):
        sparsity = config.budget.get("sparsity")
        default_sparsity = default.get_config().budget.sparsity
        if config.method.get(name) is not None and sparsity != default_sparsity:
            raise ValueError(
                f"`config.budget.sparsity={sparsity!r}`: `config.method.{name}` "
                f"decides the size. Leave one out; {default_sparsity} stands for no "
                "sparsity."
            )
    for name in ("momentum", "nesterov"):
        value, usual = config.optimizer[name], default.FIELDS["optimizer"][name].default
        if config.optimizer.name == "adam" and value != usual:
            raise ValueError(
                f"`config.optimizer.{name}={value!r}`: Adam does not read it. Leave it "
                "out, or set `config.optimizer.name='sgd'`."
            )
    if config.phases.new_head and not config.phases.pretrained:
        raise ValueError(
            "`config.phases.new_head=True`: the whole network starts at random without "
            "`config.phases.pretrained`. Set that, or leave this out."
        )
    if config.phases.rewind and not config.phases.prune:
        raise ValueError(
            "`config.phases.rewind=True` needs masks to train under, and "
            f"`config.phases.prune={config.phases.prune}` finds none. Lengthen it."
        )
    if config.plan.plan is None and config.phases.prune:
        raise ValueError(
            f"`config.phases.prune={config.phases.prune}`: the method "
            f"{config.plan.name!r} prunes nothing. Choose another config, or set 0."
        )
    if (
        prunes_channels(config.plan)
        and config.phases.prune
        and not channel_limits(config)
    ):
        raise no_budget(config)
