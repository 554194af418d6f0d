"""The weights that a run starts from: those of another run, of torchvision or of timm.

    --config.phases.pretrained=runs/dense               the workdir of a finished run
    --config.phases.pretrained=model.safetensors        a file with their names
    --config.phases.pretrained=timm:resnet50.a1_in1k    the same, downloaded

Nothing starts at random by itself: the last layer keeps its first weights only if
`config.phases.new_head` says so.
"""

import importlib
import re
import socket
import urllib.parse
import urllib.request
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

from experiments import data, models
from experiments.logging.files import read_json
from experiments.models import torch_names
from experiments.plans.method import Config
from experiments.run import trail
from jaxprune import io, tree

_TIMM = "timm:"
_SUFFIX = ".safetensors"
_FILE = "model.safetensors"  # what timm calls the file of every network
_SECONDS = 3  # after which a network is taken to be absent


def load(config: Config, initial: Any) -> Any:
    """Returns the weights that `config.phases.pretrained` names.

    Args:
      config: of the run; its field is not empty.
      initial: `{"params": ..., "batch_stats": ...}` as initialised.

    Returns:
      A tree like `initial`; with `config.phases.new_head` its last layer is that of
      `initial`.

    Raises:
      FileNotFoundError: if there is no such run or file, and none can be downloaded.
      ValueError: if it is of another network or for another number of classes.
    """
    source = config.phases.pretrained
    if source.startswith(_TIMM):
        return _from_file(config, _downloaded(source), initial)
    path = Path(source)
    if path.is_file() or (path.suffix == _SUFFIX and not path.is_dir()):
        return _from_file(config, path, initial)
    return _from_run(config, path, initial)


def _from_run(config: Config, workdir: Path, initial: Any) -> Any:
    """The last network of a finished run."""
    found = io.latest(workdir / trail.FOLDER)
    if found is None:
        raise FileNotFoundError(
            f"{_field(config)} must be the workdir of a finished run, a file "
            f"`*{_SUFFIX}` or `{_TIMM}NAME`; there is no checkpoint in its folder "
            f"`{trail.FOLDER}`."
        )
    name = read_json(workdir / "config.json")["data"]["name"]
    classes = data.dataset_spec(name).num_classes
    head = _head(initial)
    _check_classes(config, classes, head)
    theirs = {
        leaf: jax.ShapeDtypeStruct((*ours.shape[:-1], classes), ours.dtype)
        for leaf, ours in head.items()
    }
    loaded = io.load(found, tree.replace(initial, theirs))
    return tree.replace(loaded, head) if config.phases.new_head else loaded


def _from_file(config: Config, path: Path, initial: Any) -> Any:
    """The tensors of a file, by the names of torchvision or of timm."""
    if config.model not in torch_names.known():
        raise ValueError(
            f"{_field(config)}: `config.model={config.model!r}` has no names in "
            f"torchvision or timm; {', '.join(torch_names.known())} have."
        )
    tensors = _read(config, path)
    names = _nearest(torch_names.namings(config.model, initial), tensors)
    head = _head(initial)
    for leaf, ours in head.items():
        tensor = _name(names[leaf])
        if tensor in tensors and ours.ndim == 1:
            _check_classes(config, len(tensors[tensor]), head)
    if config.phases.new_head:
        unread = {_name(names.pop(leaf)) for leaf in head}
        tensors = {n: array for n, array in tensors.items() if n not in unread}
    like = {n: leaf for n, leaf in tree.named_leaves(initial).items() if n in names}
    try:
        return tree.replace(initial, io.from_torch(tensors, names, like))
    except ValueError as error:
        listed = str(error).partition("\n")[2]  # its advice is for programs
        raise ValueError(
            f"{_field(config)}: the file must hold {config.model!r} as torchvision or "
            f"timm have it. Correct `config.model`, or the file.\n{listed}"
        ) from error


def _read(config: Config, path: Path) -> dict[str, np.ndarray]:
    if path.suffix != _SUFFIX:
        raise ValueError(
            f"{_field(config)}: a file must be one of safetensors, `*{_SUFFIX}`: "
            "others may run code when they are opened. Convert it where it is trusted, "
            "by `safetensors.torch.save_file(torch.load(file), 'model.safetensors')`."
        )
    if not path.is_file():
        raise FileNotFoundError(f"{_field(config)}: there is no such file. Correct it.")
    return io.load_weights(path)[0]


def _nearest(
    namings: Iterable[torch_names.Names], tensors: Mapping[str, Any]
) -> torch_names.Names:
    """The naming of which the most names are in the file."""
    return max(
        namings, key=lambda names: sum(_name(n) in tensors for n in names.values())
    )


def _name(source: str | io.TorchTensor) -> str:
    return source if isinstance(source, str) else source.name


def _head(initial: Any) -> dict[str, Any]:
    """The leaves of the last layer, by name."""
    last = f"params/{models.last_layer(initial['params'])}/"
    leaves = tree.named_leaves(initial)
    return {name: leaf for name, leaf in leaves.items() if name.startswith(last)}


def _check_classes(config: Config, theirs: int, head: Mapping[str, Any]) -> None:
    ours = next(leaf.shape[-1] for leaf in head.values())
    if ours != theirs and not config.phases.new_head:
        raise ValueError(
            f"{_field(config)} tells {theirs} classes apart, the data set "
            f"{config.data.name!r} has {ours}. Set `config.phases.new_head=True` to "
            "train the last layer from its first weights."
        )


def _field(config: Config) -> str:
    return f"`config.phases.pretrained={config.phases.pretrained!r}`"


# --------------------------------------------------------------------- the download


def _downloaded(source: str) -> Path:
    """The file of a network of timm, from the cache or the network."""
    name = source.removeprefix(_TIMM)
    if not re.fullmatch(r"\w[\w.-]*", name):
        raise ValueError(
            f"`config.phases.pretrained={source!r}`: {name!r} cannot be a name of "
            f"timm. Write e.g. '{_TIMM}resnet50.a1_in1k'."
        )
    repository = f"timm/{name}"
    try:
        hub: Any = importlib.import_module("huggingface_hub")
    except ImportError as error:
        raise _absent(
            source, repository, "`huggingface_hub` is not installed"
        ) from error
    try:
        return Path(hub.hf_hub_download(repository, _FILE, local_files_only=True))
    except OSError:
        pass  # it is not in the cache
    if not _reachable(hub.constants.ENDPOINT):
        raise _absent(source, repository, "there is no network")
    try:
        return Path(hub.hf_hub_download(repository, _FILE))
    except OSError as error:
        raise _absent(source, repository, str(error).partition("\n")[0]) from error


def _reachable(address: str) -> bool:
    """Whether a host answers; the hub itself tries for half a minute."""
    if urllib.request.getproxies():
        return True
    parts = urllib.parse.urlsplit(address)
    place = parts.hostname, parts.port or (80 if parts.scheme == "http" else 443)
    try:
        socket.create_connection(place, timeout=_SECONDS).close()
    except OSError:
        return False
    return True


def _absent(source: str, repository: str, why: str) -> FileNotFoundError:
    return FileNotFoundError(
        f"`config.phases.pretrained={source!r}` must be downloaded: {why}. Fetch the "
        f"file `{_FILE}` of the repository `{repository}` of the Hugging Face hub on a "
        "machine with a network, and pass its path: "
        f"--config.phases.pretrained=FOLDER/{_FILE}"
    )
