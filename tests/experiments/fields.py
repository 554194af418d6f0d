"""Configs for tests: fields by the last part of their name, where that is unique."""

from experiments import configs


def put(config, **fields):
    """Sets fields such as `macs=0.5` for `config.budget.macs`; returns the config.

    `data__name` is `config.data.name`, where the last part is not unique.
    """
    known = dict(configs.leaves(config))
    for field, value in fields.items():
        ends = f".{field.replace('__', '.')}"
        (name,) = [n for n in known if f".{n}".endswith(ends)]
        *folders, last = name.split(".")
        section = config
        for folder in folders:
            section = section[folder]
        section[last] = value
    return config


def has(config, field):
    """Whether a field of this last name is read."""
    return field in {n.rpartition(".")[2] for n, _ in configs.leaves(config)}
