"""Runs one config: flags only.

python -m experiments.main --config=experiments/configs/ltp_digits.py \
        --workdir=runs/ltp_digits [--config.field=value ...]
"""

import sys

from absl import app, flags, logging
from ml_collections import config_flags

from experiments import config_check, trail_table
from experiments.train import NonFiniteLossError, train_and_evaluate

_CONFIG = config_flags.DEFINE_config_file("config", None, "The config file to run.")
_WORKDIR = flags.DEFINE_string("workdir", None, "The folder of the run.", required=True)

# What a shell reports for a program that Ctrl-C stopped.
_STOPPED = 130


def main(argv: list[str]) -> int:
    """Runs the config; returns the exit code."""
    if len(argv) > 1:
        raise app.UsageError(f"Unknown arguments: {argv[1:]}.")
    logging.set_verbosity(logging.WARNING)
    try:
        command = ["python", "-m", "experiments.main", *sys.argv[1:]]
        summary = train_and_evaluate(_CONFIG.value, _WORKDIR.value, command=command)
    except (ValueError, OSError, NonFiniteLossError) as error:
        # Errors of the user's making need no traceback; `--pdb_post_mortem` and the
        # log at `--verbosity=1` have it.
        logging.debug("The run failed.", exc_info=True)
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return 1
    print(trail_table.as_text(summary))
    if summary["status"] == "stopped":
        print(f"Stopped; the same command goes on. Workdir: {_WORKDIR.value}")
        return _STOPPED
    print(f"Report: {_WORKDIR.value}/report.html")
    return 0


def _parse(arguments: list[str]) -> list[str]:
    """Parses the flags; an unknown field of the config ends the command."""
    for argument in arguments[1:]:
        if argument.startswith("--config."):
            try:
                config_check.check_name(
                    argument.removeprefix("--config.").split("=")[0]
                )
            except ValueError as error:
                sys.exit(str(error))
    return app.parse_flags_with_usage(arguments)


if __name__ == "__main__":
    flags.mark_flags_as_required(["config"])
    app.run(main, flags_parser=_parse)
