"""The bytes of the standard library: files in one split each, windows, batches."""

import sysconfig

import numpy as np
import pytest

from experiments import data
from experiments.data import stdlib_bytes

_FILES = [f"package/module{number}.py" for number in range(60)]
_LEFT_OUT = (
    *("test/a.py", "package/tests/b.py", "site-packages/c.py", "idlelib/d.py"),
    *("_sysconfigdata_x.py", "config-3-x/python-config.py", "package/data.txt"),
)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A small standard library, each file with bytes of its own."""
    folder = tmp_path / "lib"
    for number, name in enumerate([*_FILES, *_LEFT_OUT]):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(bytes([number]) * (300 + number))
    (folder / "empty.py").touch()
    get_path = sysconfig.get_path
    monkeypatch.setattr(
        sysconfig, "get_path", lambda n: str(folder) if n == "stdlib" else get_path(n)
    )
    return folder


def test_windows_are_followed_by_the_byte_after_each_of_their_bytes():
    image, label = stdlib_bytes.windows([b"abcdefgh", b"", b"x", b"ABCDE"], 3)
    assert [row.tobytes() for row in image] == [b"abc", b"def", b"ABC"]
    assert [row.tobytes() for row in label] == [b"bcd", b"efg", b"BCD"]
    assert image.dtype == label.dtype == np.uint8


def test_a_file_is_in_one_split_and_what_is_no_source_in_none(folder):
    splits = stdlib_bytes.splits()
    assert set(splits) == {"train", "validation", "test"}
    found = [text[0] for _, texts in splits.values() for text in texts if text]
    assert sorted(found) == list(range(len(_FILES)))
    for name, (numbers, texts) in splits.items():
        wanted = [n for n, file in enumerate(_FILES) if _split(file) == name]
        assert sorted(text[0] for text in texts if text) == wanted
        assert [*numbers] == [*range(len(texts))]


def _split(file):
    return stdlib_bytes.split_of(file)


def test_the_splits_of_the_standard_library_have_the_sizes_that_they_say():
    names = [f"{number}.py" for number in range(4000)]
    shares = {
        split: sum(map(split.__eq__, map(_split, names))) / len(names)
        for split in ("train", "validation", "test")
    }
    assert shares["train"] == pytest.approx(0.9, abs=0.02)
    assert shares["validation"] == pytest.approx(0.05, abs=0.02)


def test_texts_are_prepared_by_version_and_read_in_batches_of_whole_numbers(
    folder, tmp_path
):
    dataset = data.load("stdlib_bytes", data_dir=tmp_path)
    assert (tmp_path / "stdlib_bytes" / stdlib_bytes.VERSION).is_dir()
    # Each file has two windows of 128 bytes.
    sizes = [len(part) for part in (dataset.train, dataset.validation, dataset.test)]
    assert sum(sizes) == 2 * len(_FILES)
    batch = next(data.train_batches(dataset, batch_size=4, seed=0))
    for field in ("image", "label"):
        assert (batch[field].shape, batch[field].dtype) == ((4, 128), np.int32)
    np.testing.assert_array_equal(batch["image"], batch["label"])
    (padded,) = data.test_batches(dataset, batch_size=sizes[2] + 3)
    assert padded["label"].shape == (sizes[2] + 3, 128)
    assert padded["valid"].sum() == sizes[2]


def test_another_version_of_python_has_data_of_its_own(folder, tmp_path):
    other = tmp_path / "stdlib_bytes" / "2.7.18"
    other.mkdir(parents=True)
    (other / "dataset_info.json").write_text("{")
    assert data.load("stdlib_bytes", data_dir=tmp_path).train_size


def test_a_text_has_the_length_of_its_data_set(folder, tmp_path):
    dataset = data.load("stdlib_bytes", data_dir=tmp_path)
    with pytest.raises(ValueError, match="requires no image_size for a text"):
        data.train_batches(dataset, batch_size=4, seed=0, image_size=256)
