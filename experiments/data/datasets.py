"""Data sets opened from TFDS directories, made first where nothing is downloaded.

Read through `as_data_source` (ArrayRecord), so TensorFlow is never imported. Small sets
are decoded once into memory; ImageNet is decoded as it is read.
"""

import contextlib
import dataclasses
import difflib
import io
import os
import pathlib
import tempfile
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Protocol

import numpy as np
import tensorflow_datasets as tfds
from absl import logging
from tensorflow_datasets.core.utils import version

from experiments.data import digits, mnist1d, stdlib_bytes
from experiments.data.images import (
    centre_crop,
    crop_and_flip,
    random_resized_crop,
    upsample,
)
from experiments.logging.measure import ACCURACY, BITS_PER_BYTE, Measure

Example = Mapping[str, Any]  # numbers, uint8 images or encoded files


class Source(Protocol):
    """Examples by position: mappings with at least `image` and `label`."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Example: ...


@dataclasses.dataclass(frozen=True, eq=False)
class ArraySource:
    """Examples in memory."""

    images: np.ndarray  # numbers as they are stored, such as uint8, shape (N, H, W, C)
    labels: np.ndarray  # int32, shape (N,); of texts uint8, (N, T)

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> Example:
        return {"image": self.images[index], "label": self.labels[index]}


@dataclasses.dataclass(frozen=True, eq=False)
class Subset:
    """Some examples of a source."""

    source: Source
    indices: np.ndarray  # Which examples, int, shape (N,)

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, index: int) -> Example:
        return self.source[int(self.indices[index])]


@dataclasses.dataclass(frozen=True, kw_only=True)
class DatasetSpec:
    """What is known of a dataset before it is read."""

    name: str  # Name in TFDS
    num_classes: int  # Labels are in [0, num_classes)
    # Shape (H, H, C) of an image when no `image_size` is given, (H, C) of a signal, or
    # (T,) of a text: bytes, and as many labels, the byte after each.
    image_shape: tuple[int, ...]
    # Mean and standard deviation of each channel of `pixel / unit`, length C; none of a
    # text, which is not normalised.
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    unit: float = 255  # What a stored number is divided by
    dtype: type[np.generic] = np.uint8  # Of the stored numbers
    test_split: str = "test"  # Name of the split that serves as test set
    # Name of the split on which choices are made, if there is one.
    validation_split: str | None = None
    # Whether images are decoded once, at `load`. Otherwise `Source` gives encoded
    # files, and the two views below decode them.
    in_memory: bool = True
    # `(image, rng, size)` to an augmented image of side `size`, or `None` to train on
    # the view of the test.
    train_view: Callable[[Any, np.random.Generator, int], np.ndarray] | None = None
    # `(image, size)` to an image of side `size`.
    test_view: Callable[[Any, int], np.ndarray] = upsample
    manual_files: tuple[str, ...] = ()  # Files that TFDS cannot download
    # Of a data set that needs no download: numbers, images and labels of the examples,
    # or numbers and contents of files, by split.
    splits: Callable[[], Mapping[str, tuple[Any, ...]]] | None = None
    version: str = "1.0.0"  # Of such a data set

    @property
    def is_text(self) -> bool:
        """Whether an example is a text, each of whose bytes has a label."""
        return len(self.image_shape) == 1

    @property
    def measure(self) -> Measure:
        """What networks are compared by."""
        return BITS_PER_BYTE if self.is_text else ACCURACY

    @property
    def label_shape(self) -> tuple[int, ...]:
        """Shape of the labels of an example."""
        return self.image_shape if self.is_text else ()


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Dataset:
    """A dataset that was opened.

    `dataclasses.replace` with a shorter source makes a subset of it, for instance to
    hold out validation examples.
    """

    spec: DatasetSpec
    train: Source
    test: Source
    # Examples on which choices are made, if there are any apart.
    validation: Source | None = None

    @property
    def train_size(self) -> int:
        """Number of training examples."""
        return len(self.train)

    @property
    def test_size(self) -> int:
        """Number of test examples."""
        return len(self.test)


_SPECS = {
    spec.name: spec
    for spec in (
        DatasetSpec(
            name="digits",
            num_classes=10,
            image_shape=(8, 8, 1),
            mean=(0.3054,),
            std=(0.3762,),
            splits=digits.splits,
        ),
        DatasetSpec(
            name="mnist1d",
            num_classes=10,
            image_shape=(40, 1),
            mean=(0.0,),
            std=(1.0,),
            unit=1,
            dtype=np.float32,
            validation_split="validation",
            splits=mnist1d.splits,
        ),
        DatasetSpec(
            name="stdlib_bytes",
            num_classes=256,
            image_shape=(128,),
            validation_split="validation",
            splits=stdlib_bytes.splits,
            version=stdlib_bytes.VERSION,
        ),
        DatasetSpec(
            name="mnist",
            num_classes=10,
            image_shape=(28, 28, 1),
            mean=(0.1307,),
            std=(0.3081,),
        ),
        DatasetSpec(
            name="cifar10",
            num_classes=10,
            image_shape=(32, 32, 3),
            mean=(0.4914, 0.4822, 0.4465),
            std=(0.2023, 0.1994, 0.2010),
            train_view=crop_and_flip,
        ),
        DatasetSpec(
            name="imagenet2012",
            num_classes=1000,
            image_shape=(224, 224, 3),
            mean=(0.485, 0.456, 0.406),
            std=(0.229, 0.224, 0.225),
            test_split="validation",
            in_memory=False,
            train_view=random_resized_crop,
            test_view=centre_crop,
            manual_files=("ILSVRC2012_img_train.tar", "ILSVRC2012_img_val.tar"),
        ),
    )
}


class _Builder(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    """TFDS builder of a data set that needs no download."""

    # Nothing is downloaded: do not look for a file of checksums beside this module,
    # for which TFDS imports `importlib_resources`, a package that it does not require.
    code_path = None

    def __init__(self, spec: DatasetSpec, data_dir: str):
        self.name = spec.name  # pyright: ignore (typed as a property of the class)
        self._spec = spec
        self.VERSION = tfds.core.Version(spec.version)
        super().__init__(data_dir=data_dir, file_format="array_record")

    def _info(self) -> tfds.core.DatasetInfo:
        # Not `dataset_info_from_configs`: it looks for files beside the module.
        shape, dtype = self._spec.image_shape, self._spec.dtype
        image = tfds.features.Tensor(shape=shape, dtype=dtype)
        label = tfds.features.ClassLabel(num_classes=self._spec.num_classes)
        features = tfds.features.FeaturesDict(
            {"text": tfds.features.Text()}
            if self._spec.is_text
            else {"image": image, "label": label}
        )
        return tfds.core.DatasetInfo(builder=self, features=features)

    def _split_generators(self, dl_manager: Any) -> dict[str, Any]:
        del dl_manager
        assert self._spec.splits is not None
        splits = self._spec.splits().items()
        return {split: self._generate_examples(*arrays) for split, arrays in splits}

    def _generate_examples(self, numbers, *columns) -> Iterator[Any]:
        # The order of the examples on disk follows from their numbers.
        names = ("text",) if self._spec.is_text else ("image", "label")
        for number, *values in zip(numbers, *columns, strict=True):
            yield int(number), dict(zip(names, values, strict=True))


def dataset_spec(name: str) -> DatasetSpec:
    """Returns what is known of the dataset called `name`, or raises ValueError."""
    if name not in _SPECS:
        close = difflib.get_close_matches(name, _SPECS, n=1)
        hint = f" Did you mean {close[0]!r}?" if close else ""
        raise ValueError(
            f"`dataset_spec(name)` requires one of {', '.join(_SPECS)}; "
            f"got {name!r}.{hint}"
        )
    return _SPECS[name]


def load(name: str, *, data_dir: str | os.PathLike[str]) -> Dataset:
    """Opens a dataset, and prepares it if `data_dir` does not hold it yet.

    The data are in `data_dir/name/version`. Preparing `digits` takes a fraction of a
    second, `mnist1d` ten seconds, `stdlib_bytes` two. The others must be there: TFDS,
    which needs TensorFlow for that, may take hours. Preparing happens beside the final
    place and ends with one rename: any number of processes may do it at once, and what
    a killed process leaves behind is never read.

    Raises:
        ValueError: If no dataset has this name.
        FileNotFoundError: If the data are not there. The message holds the command
            that prepares them.
        RuntimeError: If the data are there, but not as ArrayRecord or not complete.
    """
    spec = dataset_spec(name)
    data_dir = pathlib.Path(data_dir).expanduser().absolute()
    directory = _find(spec, data_dir)
    if directory is None and spec.splits is None:
        raise _absent(spec, data_dir)
    directory = directory or _prepare(spec, data_dir)
    builder = tfds.builder_from_directory(directory)
    validation = spec.validation_split
    return Dataset(
        spec=spec,
        train=_open(spec, builder, "train"),
        test=_open(spec, builder, spec.test_split),
        validation=_open(spec, builder, validation) if validation else None,
    )


def _find(spec: DatasetSpec, data_dir: pathlib.Path) -> pathlib.Path | None:
    """Returns the prepared directory of the newest version, if there is one."""
    versions = version.list_all_versions(data_dir / spec.name)
    if spec.splits is not None:
        versions = [found for found in versions if found == spec.version]
    folders = [data_dir / spec.name / str(number) for number in versions]
    prepared = [f for f in folders if (f / "dataset_info.json").exists()]
    return prepared[-1] if prepared else None


def _prepare(spec: DatasetSpec, data_dir: pathlib.Path) -> pathlib.Path:
    """Prepares the dataset in a private directory, then moves it to its place."""
    data_dir.mkdir(parents=True, exist_ok=True)
    logging.info("Preparing %s in %s.", spec.name, data_dir)
    with tempfile.TemporaryDirectory(
        prefix=f".{spec.name}-", dir=data_dir, ignore_cleanup_errors=True
    ) as private:
        silence = io.StringIO()  # no progress bars for a fraction of a second
        with contextlib.redirect_stdout(silence), contextlib.redirect_stderr(silence):
            _Builder(spec, private).download_and_prepare()
        made = _find(spec, pathlib.Path(private))
        assert made is not None, f"TFDS wrote no dataset_info.json into {private}."
        final = data_dir / spec.name / made.name
        final.parent.mkdir(exist_ok=True)
        try:
            made.rename(final)
        except OSError as error:  # not empty: another process was faster
            if not (final / "dataset_info.json").exists():
                raise RuntimeError(
                    f"`load({spec.name!r}, data_dir={str(data_dir)!r})` cannot use "
                    f"{final}: it has no dataset_info.json, so it was not prepared "
                    f"completely. Remove it and try again."
                ) from error
    return final


def _absent(spec: DatasetSpec, data_dir: pathlib.Path) -> FileNotFoundError:
    """Returns the error for data that must be prepared first, with the commands."""
    downloads = data_dir / "downloads"
    files = " and ".join(spec.manual_files)
    manual = f"  # {files} in {downloads / 'manual'}, then\n" if files else ""
    return FileNotFoundError(
        f"`load({spec.name!r}, data_dir={str(data_dir)!r})` found no prepared dataset: "
        f"looked for {data_dir / spec.name}/<version>/dataset_info.json. Choose "
        f"another folder by `--config.data.dir=DIR`, or prepare the data with\n{manual}"
        f"  pip install tensorflow importlib_resources\n"
        f'  python -c "import tensorflow_datasets as tfds; '
        f"tfds.builder({spec.name!r}, data_dir={str(data_dir)!r}, "
        f"file_format='array_record')"
        f'.download_and_prepare(download_dir={str(downloads)!r})"'
    )


def _open(spec: DatasetSpec, builder: tfds.core.DatasetBuilder, split: str) -> Source:
    """Opens one split, and decodes it into memory if the spec says so."""
    if split not in builder.info.splits:
        raise RuntimeError(
            f"`load({spec.name!r}, ...)` requires the split {split!r}; "
            f"{builder.data_dir} holds {sorted(builder.info.splits)}. Remove it and "
            f"prepare it again with all its files."
        )
    decoders = None if spec.in_memory else {"image": tfds.decode.SkipDecoding()}
    try:
        # The decorator of this method hides its parameters.
        source = builder.as_data_source(split, decoders=decoders)  # pyright: ignore
    except NotImplementedError as error:
        raise RuntimeError(
            f"`load({spec.name!r}, ...)` requires ArrayRecord files; "
            f"{builder.data_dir} holds {builder.info.file_format}. Prepare the dataset "
            f"with `file_format='array_record'` in another `data_dir`."
        ) from error
    if not spec.in_memory:
        return source
    examples = [source[index] for index in range(len(source))]
    if spec.is_text:
        texts = [example["text"] for example in examples]
        return ArraySource(*stdlib_bytes.windows(texts, *spec.image_shape))
    return ArraySource(
        np.stack([example["image"] for example in examples]).astype(spec.dtype),
        np.array([example["label"] for example in examples], np.int32),
    )
