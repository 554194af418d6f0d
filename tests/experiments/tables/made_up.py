"""Folders of runs and cells that never ran."""

import json

_TITLES = {"ltp": "LTP", "ltp_cnn": "LTP", "magnitude": "Magnitude", "dense": "Dense"}
_TITLES |= {"lats": "LATS", "str": "STR", "ssl": "SSL", "dsa": "DSA"}


def put(workdir, config, sparsity, seed, accuracy, **changes):
    """Write a run; `sparsity` names its folder too. Returns the folder."""
    asked = "dense" if sparsity is None else repr(sparsity)
    folder = workdir / config / asked / str(seed)
    folder.mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    keep = 1.0 if sparsity is None else 1 - sparsity - 0.0012
    summary = {
        "status": "finished",
        "method": "ltp",
        "dataset": "digits",
        "model": "cnn",
        "seed": seed,
        "title": _TITLES.get(config.rpartition("/")[2], config),
        "points": [] if sparsity is None else [{}],
        "versions": {"jaxprune": "1.2.3"},
        "seconds": 30.04,
        "dense_accuracy": 0.985,
        "budget": None if sparsity is None else {"weights": 1 - sparsity},
        "costs": {"weights": keep},
        "final": {"keep_ratio": keep, "accuracy": accuracy},
    } | changes
    (folder / "summary.json").write_text(json.dumps(summary))
    return folder


def put_text(workdir, config, sparsity, seed, bits):
    """Write a run of a language model."""
    final = {"keep_ratio": 1 - (sparsity or 0), "bits_per_byte": bits}
    changes = {"dataset": "stdlib_bytes", "model": "decoder_tiny", "final": final}
    changes |= {"measure": "bits_per_byte", "dense_bits_per_byte": 2.0}
    return put(workdir, config, sparsity, seed, None, **changes)


def write_cell(workdir, name, model, size, tests, *, read=True, costs=None):
    """Write a cell of as many seeds as there are accuracies."""
    kept = 512 if ":" in size or size == "dense" else int(5125 * (1 - float(size)))
    rows = [
        {
            "seed": seed,
            "validation": round(accuracy - 0.01, 12),
            "kept_weights": kept,
            "total_weights": 5125,
            **({"test": accuracy} if read else {}),
            **({"costs": costs} if costs else {}),
        }
        for seed, accuracy in enumerate(tests)
    ]
    content = {
        "name": name,
        "title": _TITLES.get(name.split("/")[1].split(":")[0], "Numbers of DSA, gated"),
        "size": size,
        "config": {"model": model, "data": {"name": "mnist1d"}},
        "test": read,
        "rows": rows,
        "seconds": 2.0,
        "versions": {"jaxprune": "1.2.3"},
    }
    file = workdir / name / f"{size}.cell.json"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(content))
