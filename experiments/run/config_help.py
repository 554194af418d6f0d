"""The configs, and the fields of one with their values, as text for `--help`."""

import json
from collections.abc import Sequence

from experiments import configs
from experiments.configs import default
from experiments.plans.fields import flatten


def describe(arguments: Sequence[str]) -> str:
    """Return what `--help` prints of configs and fields; nothing without `--help`.

    The fields are those of the config that the arguments name, or of `digits/ltp`.
    """
    if not {"-h", "--help"} & {*arguments}:
        return ""
    given = [a.removeprefix("--config=") for a in arguments if "--config=" in a]
    name = given[0] if given else "digits/ltp"
    config = configs.load(name)
    values = dict(configs.leaves(config))
    lines = [
        "configs:",
        *(f"  {known}" for known in configs.names()),
        "  or the path of a file with get_config()",
        "",
        f"fields of {name}, each set by --config.field=value:",
    ]
    for field, about in flatten(default.fields_of(config)):
        value = json.dumps(values[field])
        allowed = f" ({about.rule.text})" if about.rule else ""
        lines.append(f"  {field + '=' + value:42} {about.about}{allowed}")
    return "\n".join(lines)
