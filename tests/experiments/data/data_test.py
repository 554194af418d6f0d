"""Data of the experiments: preparation, batches, replay, sharding, messages."""

import dataclasses
import io
import itertools
import json
import subprocess
import sys

import numpy as np
import pytest
import tensorflow_datasets as tfds
from PIL import Image

from experiments import data
from experiments.data import images, mnist1d

_LOAD_DIGITS = """
import sys
from experiments import data
dataset = data.load("digits", data_dir=sys.argv[1])
print(int(dataset.train.labels.sum()), int(dataset.test.images.sum()))
assert "tensorflow" not in sys.modules
"""


@pytest.fixture(scope="session")
def digits(tmp_path_factory):
    return data.load("digits", data_dir=tmp_path_factory.mktemp("digits"))


def in_memory(name, num_train, num_test):
    """A dataset whose labels are the positions of its examples."""
    spec = dataclasses.replace(data.dataset_spec(name), num_classes=max(num_train, 1))
    rng = np.random.default_rng(0)
    train, test = (
        data.ArraySource(
            rng.integers(0, 256, (n, *spec.image_shape), dtype=np.uint8),
            np.arange(n, dtype=np.int32),
        )
        for n in (num_train, num_test)
    )
    return data.Dataset(spec=spec, train=train, test=test)


def take(iterator, count):
    return list(itertools.islice(iterator, count))


def assert_same(batches, others):
    assert len(batches) == len(others)
    for batch, other in zip(batches, others, strict=True):
        assert batch.keys() == other.keys()
        for field in batch:
            np.testing.assert_array_equal(batch[field], other[field])


def encoded(pixels, form):
    buffer = io.BytesIO()
    Image.fromarray(pixels.squeeze()).save(buffer, form)
    return buffer.getvalue()


def write_tfds(data_dir, name, features, splits, *, file_format="array_record"):
    """Writes a small dataset as TFDS would, with the features of the real one."""
    namespace = {
        "VERSION": tfds.core.Version("3.0.1"),
        "code_path": None,
        "_info": lambda self: tfds.core.DatasetInfo(
            builder=self, features=tfds.features.FeaturesDict(features)
        ),
        "_split_generators": lambda self, manager: {
            split: enumerate(splits[split]) for split in splits
        },
        "_generate_examples": lambda self: None,
    }
    with tfds.core.registered.skip_registration():
        builder_class = type("Fake", (tfds.core.GeneratorBasedBuilder,), namespace)
        builder_class.name = name
        builder_class(data_dir=data_dir, file_format=file_format).download_and_prepare()


# Preparing and opening


def test_digits_are_the_bundled_digits_with_every_fifth_as_test(digits):
    from sklearn import datasets

    ink, labels = datasets.load_digits(return_X_y=True)
    is_test = np.arange(1797) % 5 == 0
    for source, chosen in ((digits.train, ~is_test), (digits.test, is_test)):
        # TFDS shuffles while it writes, so compare as sets with multiplicity.
        rows = np.column_stack([source.labels, source.images.reshape(-1, 64)])
        pixels = np.floor(ink[chosen] * 255 / 16 + 0.5)
        expected = np.column_stack([labels[chosen], pixels])
        assert sorted(map(tuple, rows)) == sorted(map(tuple, expected))
    assert (digits.train_size, digits.test_size) == (1437, 360)


# Of a generation: the number of examples, the sum and the sum of squares of signals,
# the first signal's beginning, the first labels and the sum of each times its position.
_GENERATED = {
    (200, 42, 0.8): (
        160,
        56.256901374974404,
        6437.223173680601,
        (-0.24991774559020996, 0.24871958792209625, 0.3274170756340027),
        (5, 4, 3, 7, 3, 5, 4, 3),
        56_982,
    ),
    (5_000, 42, 0.8): (
        4_000,
        -51.787469785878784,
        159248.25384650432,
        (-0.33200567960739136, -0.47191035747528076, -0.7786970734596252),
        (2, 6, 4, 5, 6, 6, 6, 0),
        36_383_495,
    ),
    (20_000, 43, 1.0): (
        20_000,
        0.0,
        799999.9999427331,
        (0.5121700763702393, -0.08314448595046997, -0.6334665417671204),
        (9, 9, 9, 3, 9, 7, 2, 0),
        900_652_989,
    ),
}


@pytest.mark.parametrize(
    "arguments",
    [
        (200, 42, 0.8),
        pytest.param((5_000, 42, 0.8), marks=pytest.mark.slow),
        pytest.param((20_000, 43, 1.0), marks=pytest.mark.slow),
    ],
)
def test_mnist1d_is_generated_as_it_was_and_global_states_stay(arguments):
    state = np.random.get_state()[1].copy()
    names = ("num_samples", "seed", "train_split")
    signals, labels = mnist1d.generate(**dict(zip(names, arguments, strict=True)))
    np.testing.assert_array_equal(np.random.get_state()[1], state)

    size, total, squares, first, first_labels, positions = _GENERATED[arguments]
    assert (signals.shape, signals.dtype) == ((size, 40, 1), np.float32)
    signals = signals.astype(float)
    assert signals.sum() == pytest.approx(total, abs=1e-3)
    assert np.square(signals).sum() == pytest.approx(squares, rel=1e-8)
    np.testing.assert_allclose(signals[0, :3, 0], first, rtol=1e-6)
    assert tuple(labels[:8]) == first_labels
    assert (labels * np.arange(size)).sum() == positions


def test_mnist1d_is_prepared_in_three_splits_of_signals(tmp_path, monkeypatch):
    few = {"num_samples": 30, "seed": 43, "train_split": 1.0}
    monkeypatch.setattr(mnist1d, "_FURTHER", few)
    monkeypatch.setattr(mnist1d, "_TRAIN", {**few, "seed": 42, "train_split": 0.8})
    monkeypatch.setattr(mnist1d, "_TEST_SIZE", 20)
    dataset = data.load("mnist1d", data_dir=tmp_path)
    further, labels = mnist1d.generate(**few)
    sizes = dataset.train_size, dataset.test_size, len(dataset.validation)
    assert sizes == (24, 20, 10)
    for source, part in (
        (dataset.test, slice(20)),
        (dataset.validation, slice(20, 30)),
    ):
        found = [(x["image"].ravel().tolist(), int(x["label"])) for x in source]
        pairs = zip(further[part], labels[part], strict=True)
        wanted = [(signal.ravel().tolist(), int(label)) for signal, label in pairs]
        assert sorted(found) == sorted(wanted)
    batch = next(data.train_batches(dataset, batch_size=4, seed=0))
    assert (batch["image"].shape, batch["image"].dtype) == ((4, 40, 1), np.float32)
    padded = data.test_batches(dataset, batch_size=16)
    assert [b["valid"].sum() for b in padded] == [16, 4]


def test_positions_are_those_of_the_examples_in_the_batches():
    dataset = in_memory("digits", 30, 1)
    batches = take(data.train_batches(dataset, batch_size=10, seed=3), 7)
    positions = data.train_positions(30, seed=3, count=70)
    np.testing.assert_array_equal(
        np.concatenate([batch["label"] for batch in batches]), positions
    )


@pytest.mark.slow
def test_processes_preparing_digits_at_once_agree_and_import_no_tensorflow(tmp_path):
    children = [
        subprocess.Popen(
            [sys.executable, "-c", _LOAD_DIGITS, str(tmp_path)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for _ in range(2)
    ]
    results = [child.communicate(timeout=600) for child in children]
    assert [child.returncode for child in children] == [0, 0], results
    assert results[0][0] == results[1][0]
    assert [path.name for path in tmp_path.iterdir()] == ["digits"]
    assert [path.name for path in (tmp_path / "digits").iterdir()] == ["1.0.0"]


def test_what_a_killed_process_leaves_behind_is_not_read(tmp_path):
    for left in ("digits/incomplete.ABCDEF_1.0.0", ".digits-xyz/digits/1.0.0"):
        (tmp_path / left).mkdir(parents=True)
        (tmp_path / left / "dataset_info.json").write_text("{")
    dataset = data.load("digits", data_dir=tmp_path)
    assert dataset.train_size == 1437


def test_a_directory_without_its_info_file_is_refused(tmp_path):
    (tmp_path / "digits" / "1.0.0").mkdir(parents=True)
    (tmp_path / "digits" / "1.0.0" / "half.array_record").write_bytes(b"x")
    with pytest.raises(RuntimeError, match=r"not prepared completely. Remove it"):
        data.load("digits", data_dir=tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["digits"]


@pytest.mark.parametrize("name", ["mnist", "cifar10"])
def test_small_sets_are_decoded_into_memory(name, tmp_path):
    shape = data.dataset_spec(name).image_shape
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (12, *shape), dtype=np.uint8)
    examples = [
        {"image": encoded(image, "PNG"), "label": index % 10}
        for index, image in enumerate(pixels)
    ]
    features = {
        "image": tfds.features.Image(shape=shape),
        "label": tfds.features.ClassLabel(num_classes=10),
    }
    if name == "cifar10":
        features["id"] = tfds.features.Text()
        examples = [{**example, "id": "train_0"} for example in examples]
    write_tfds(tmp_path, name, features, {"train": examples[:8], "test": examples[8:]})
    dataset = data.load(name, data_dir=tmp_path)
    for source, written in ((dataset.train, pixels[:8]), (dataset.test, pixels[8:])):
        assert source.images.dtype == np.uint8
        assert source.labels.dtype == np.int32
        read = {image.tobytes() for image in source.images}
        assert read == {image.tobytes() for image in written}
    batch = next(data.train_batches(dataset, batch_size=8, seed=0))
    assert batch["image"].shape == (8, *shape)


@pytest.fixture(scope="session")
def imagenet(tmp_path_factory):
    data_dir = tmp_path_factory.mktemp("imagenet")
    # A dark picture with a bright centre, wider than high.
    picture = np.full((64, 96, 3), 10, np.uint8)
    picture[16:48, 32:64] = 250
    grey = np.full((40, 30), 128, np.uint8)
    examples = [
        {
            "image": encoded(image, "JPEG"),
            "label": label,
            "file_name": f"n{label}.JPEG",
        }
        for label, image in enumerate([picture, grey, picture, grey, picture])
    ]
    features = {
        "image": tfds.features.Image(encoding_format="jpeg"),
        "label": tfds.features.ClassLabel(num_classes=1000),
        "file_name": tfds.features.Text(),
    }
    splits = {"train": examples, "validation": examples[:3]}
    write_tfds(data_dir, "imagenet2012", features, splits)
    return data.load("imagenet2012", data_dir=data_dir)


def test_imagenet_is_decoded_as_it_is_read(imagenet):
    assert isinstance(imagenet.train[0]["image"], bytes)
    train = next(data.train_batches(imagenet, batch_size=4, seed=0))
    assert train["image"].shape == (4, 224, 224, 3)
    assert train["image"].dtype == np.float32
    tests = list(data.test_batches(imagenet, batch_size=2))
    assert [batch["image"].shape for batch in tests] == [(2, 224, 224, 3)] * 2
    assert sum(batch["valid"].sum() for batch in tests) == 3
    assert_same(tests, list(data.test_batches(imagenet, batch_size=2)))


def test_imagenet_batches_replay_through_reading_threads(imagenet):
    def make():
        return data.train_batches(imagenet, batch_size=3, seed=1, image_size=32)

    iterator = make()
    take(iterator, 3)
    state = iterator.get_state()
    expected = take(iterator, 4)
    restored = make()
    restored.set_state(state)
    assert_same(take(restored, 4), expected)


def test_centre_crop_is_the_central_square(imagenet):
    labels = [imagenet.test[i]["label"] for i in range(3)]
    wide = imagenet.test[labels.index(0)]["image"]
    crop = images.centre_crop(wide, 224)
    # 7/8 of the side 64 is 56: the bright 32 pixels are the middle 4/7 of 224.
    assert crop[112, 112].min() > 240
    assert crop[60:164, 60:164].min() > 200
    assert crop[:40].max() < 40
    assert crop[:, :40].max() < 40


def test_random_resized_crop_gives_square_parts_of_both_orientations():
    ramp = np.tile(np.arange(0, 240, 2, dtype=np.uint8), (80, 1))
    file = encoded(np.stack([ramp] * 3, axis=-1), "PNG")
    rng = np.random.default_rng(0)
    crops = [images.random_resized_crop(file, rng, 16) for _ in range(40)]
    assert {crop.shape for crop in crops} == {(16, 16, 3)}
    rising = [int(crop[0, -1, 0]) > int(crop[0, 0, 0]) for crop in crops]
    assert 8 < sum(rising) < 32
    assert len({crop.tobytes() for crop in crops}) > 36  # Edges are whole pixels.


@pytest.mark.parametrize("format", ["JPEG", "PNG"])
@pytest.mark.parametrize("size", [32, 64, 224, 700])
def test_pictures_decoded_at_a_part_of_their_size_are_the_same(format, size):
    down, across = np.mgrid[:750, :1000]
    smooth = [across * 255 // 1000, down * 255 // 750, np.full_like(across, 30)]
    pixels = np.stack(smooth, axis=-1).astype(np.uint8)
    crop = images.centre_crop(encoded(pixels, format), size)
    side = 0.875 * 750
    middle = (np.arange(size) + 0.5) / size * side
    expected = np.full((size, size, 3), 30.0)
    expected[..., 0] = ((1000 - side) / 2 + middle) * 255 / 1000
    expected[..., 1] = (((750 - side) / 2 + middle) * 255 / 750)[:, None]
    # Edges are rounded to pixels of the decoded size, of which an eighth is 2.7 shades.
    assert np.abs(crop - expected).mean() < 1.5


def test_grey_pictures_have_three_channels_and_none_is_turned():
    grey = encoded(np.full((40, 60), 90, np.uint8), "JPEG")
    assert (np.abs(images.centre_crop(grey, 8) - 90.0) <= 1).all()
    exif = Image.Exif()
    exif[0x0112] = 6  # The orientation: a quarter turn.
    file = io.BytesIO()
    ramp = np.repeat(np.arange(0, 240, 4, dtype=np.uint8)[None, :, None], 60, axis=0)
    Image.fromarray(np.tile(ramp, 3)).save(file, "JPEG", exif=exif)
    crop = images.centre_crop(file.getvalue(), 8).astype(int)
    assert (np.diff(crop[4, :, 0]) > 0).all()


@pytest.mark.parametrize("part", [0, 5, 0.5])
@pytest.mark.parametrize("format", ["JPEG", "PNG"])
def test_a_picture_that_is_cut_off_is_refused(format, part):
    noise = np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)
    whole = encoded(noise, format)
    cut = whole[: part if isinstance(part, int) else int(part * len(whole))]
    message = rf"{len(cut)} bytes .* cannot be decoded"
    with pytest.raises(ValueError, match=message):
        images.centre_crop(cut, 8)
    with pytest.raises(ValueError, match=message):
        images.random_resized_crop(cut, np.random.default_rng(0), 8)


# Training batches


@pytest.mark.parametrize("image_size", [None, 16])
def test_train_batches_are_normalised_float32(digits, image_size):
    side = image_size or 8
    batches = take(
        data.train_batches(digits, batch_size=479, seed=0, image_size=image_size), 3
    )
    for batch in batches:
        assert batch["image"].shape == (479, side, side, 1)
        assert batch["image"].dtype == np.float32
        assert batch["label"].shape == (479,)
        assert batch["label"].dtype == np.int32
    epoch = np.concatenate([batch["image"] for batch in batches])
    # The constants of the spec have four digits.
    assert abs(epoch.mean()) < 1e-3
    assert abs(epoch.std() - 1) < 1e-3


def test_normalisation_is_per_channel_and_documented():
    dataset = in_memory("cifar10", 4, 4)
    batch = next(iter(data.test_batches(dataset, batch_size=4)))
    mean, std = np.array([0.4914, 0.4822, 0.4465]), np.array([0.2023, 0.1994, 0.2010])
    expected = (dataset.test.images / 255 - mean) / std
    np.testing.assert_allclose(batch["image"], expected, atol=1e-6)


def test_every_epoch_holds_every_example_once_in_another_order():
    dataset = in_memory("digits", 30, 1)
    stream = data.train_batches(dataset, batch_size=4, seed=3)
    labels = np.concatenate([batch["label"] for batch in take(stream, 45)])
    epochs = labels.reshape(6, 30)  # a batch may straddle two epochs
    np.testing.assert_array_equal(
        np.sort(epochs, axis=1), np.tile(np.arange(30), (6, 1))
    )
    assert len({tuple(epoch) for epoch in epochs}) == 6


def test_batches_follow_from_the_seed_alone():
    dataset = in_memory("cifar10", 20, 1)
    first, again, other = (
        take(data.train_batches(dataset, batch_size=8, seed=seed), 5)
        for seed in (7, 7, 8)
    )
    assert_same(first, again)
    assert any(
        (a["label"] != b["label"]).any() for a, b in zip(first, other, strict=True)
    )


@pytest.mark.parametrize("consumed", [0, 1, 4, 11])
def test_a_restored_iterator_replays_exactly(consumed):
    dataset = in_memory("cifar10", 50, 1)
    iterator = data.train_batches(dataset, batch_size=8, seed=0)
    take(iterator, consumed)
    state = json.loads(json.dumps(iterator.get_state()))
    expected = take(iterator, 9)
    restored = data.train_batches(dataset, batch_size=8, seed=0)
    take(restored, 2)
    restored.set_state(state)
    assert_same(take(restored, 9), expected)


@pytest.mark.parametrize("process_count", [2, 3])
def test_processes_share_the_batch_that_one_process_would_see(process_count):
    dataset = in_memory("cifar10", 25, 1)
    whole = take(data.train_batches(dataset, batch_size=4 * process_count, seed=0), 12)
    parts = [
        take(
            data.train_batches(
                dataset,
                batch_size=4,
                seed=0,
                process_index=index,
                process_count=process_count,
            ),
            12,
        )
        for index in range(process_count)
    ]
    joined = [
        {
            field: np.stack([batch[field] for batch in step], axis=1).reshape(
                whole[0][field].shape
            )
            for field in ("image", "label")
        }
        for step in zip(*parts, strict=True)
    ]
    assert_same(joined, whole)


def test_augmentation_shifts_flips_and_can_be_switched_off():
    dataset = in_memory("cifar10", 64, 1)
    image = dataset.train.images[0]
    padded = np.pad(image, ((4, 4), (4, 4), (0, 0)))
    views = {
        view.tobytes()
        for top in range(9)
        for left in range(9)
        for crop in [padded[top : top + 32, left : left + 32]]
        for view in (crop, crop[:, ::-1])
    }
    rng = np.random.default_rng(0)
    seen = {images.crop_and_flip(image, rng, 32).tobytes() for _ in range(3000)}
    assert seen == views  # all 162
    plain = next(data.train_batches(dataset, batch_size=64, seed=0, augment=False))
    shown = next(
        iter(
            data.test_batches(
                dataclasses.replace(dataset, test=dataset.train), batch_size=64
            )
        )
    )
    order = np.argsort(plain["label"])
    np.testing.assert_array_equal(plain["image"][order], shown["image"])


def test_augmentation_differs_between_epochs():
    dataset = in_memory("cifar10", 16, 1)
    first, second = (
        batch["image"][np.argsort(batch["label"])]
        for batch in take(data.train_batches(dataset, batch_size=16, seed=0), 2)
    )
    assert (first != second).any(axis=(1, 2, 3)).sum() > 12


@pytest.mark.parametrize("size", [8, 13, 16, 32])
def test_upsample_repeats_the_nearest_pixel(size):
    image = np.arange(64, dtype=np.uint8).reshape(8, 8, 1)
    expected = np.array(
        [
            [image[row * 8 // size, column * 8 // size] for column in range(size)]
            for row in range(size)
        ]
    )
    np.testing.assert_array_equal(images.upsample(image, size), expected)


# Test batches


@pytest.mark.parametrize("process_count", [1, 2, 3])
@pytest.mark.parametrize("num_test", [1, 11, 12, 13])
def test_every_test_example_is_there_once(num_test, process_count):
    dataset = in_memory("digits", 1, num_test)
    per_process = [
        data.test_batches(
            dataset, batch_size=4, process_index=index, process_count=process_count
        )
        for index in range(process_count)
    ]
    assert len({len(list(batches)) for batches in per_process}) == 1
    seen = []
    for batches in per_process:
        for batch in batches:
            assert batch["image"].shape == (4, 8, 8, 1)
            assert batch["valid"].dtype == np.float32
            assert batch["label"].dtype == np.int32
            seen.extend(batch["label"][batch["valid"] == 1])
    assert sorted(seen) == list(range(num_test))


def test_test_batches_can_be_read_again(digits):
    batches = data.test_batches(digits, batch_size=100)
    assert_same(list(batches), list(batches))
    assert [batch["valid"].sum() for batch in batches] == [100, 100, 100, 60]


# Messages


def test_an_unknown_name_lists_the_known_ones():
    with pytest.raises(ValueError, match=r"digits, mnist.*Did you mean 'cifar10'"):
        data.dataset_spec("cifar-10")


@pytest.mark.parametrize("name", ["imagenet2012", "cifar10"])
def test_missing_data_say_where_and_how_and_nothing_is_fetched(name, tmp_path):
    with pytest.raises(FileNotFoundError) as caught:
        data.load(name, data_dir=tmp_path / "none")
    message = str(caught.value)
    assert f"{tmp_path}/none/{name}/<version>/dataset_info.json" in message
    manual = f"ILSVRC2012_img_val.tar in {tmp_path}/none/downloads/manual" in message
    assert manual == (name == "imagenet2012")
    command = message.splitlines()[-1].strip()
    assert command.startswith('python -c "import tensorflow_datasets as tfds; ')
    compile(command.removeprefix('python -c "').removesuffix('"'), "command", "exec")
    assert not list(tmp_path.iterdir())


def test_data_in_another_file_format_are_refused(tmp_path):
    directory = tmp_path / "mnist" / "3.0.1"
    features = {
        "image": tfds.features.Image(shape=(28, 28, 1)),
        "label": tfds.features.ClassLabel(num_classes=10),
    }
    blank = encoded(np.zeros((28, 28, 1), np.uint8), "PNG")
    example = {"image": blank, "label": 0}
    write_tfds(tmp_path, "mnist", features, {"train": [example], "test": [example]})
    info = directory / "dataset_info.json"
    info.write_text(info.read_text().replace("array_record", "tfrecord"))
    with pytest.raises(RuntimeError, match="requires ArrayRecord files"):
        data.load("mnist", data_dir=tmp_path)


def test_a_missing_split_is_named(tmp_path):
    features = {
        "image": tfds.features.Image(encoding_format="jpeg"),
        "label": tfds.features.ClassLabel(num_classes=1000),
    }
    example = {"image": encoded(np.zeros((8, 8, 3), np.uint8), "JPEG"), "label": 0}
    write_tfds(tmp_path, "imagenet2012", features, {"train": [example]})
    with pytest.raises(RuntimeError, match=r"'validation'.*holds \['train'\]"):
        data.load("imagenet2012", data_dir=tmp_path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"batch_size": 21}, "<= 20"),
        ({"batch_size": 11, "process_count": 2}, "<= 20"),
        ({"batch_size": 0}, "batch_size >= 1"),
        ({"process_index": 1}, "process_index < process_count"),
        ({"image_size": 4}, "image_size >= 8"),
    ],
)
def test_train_batches_refuse_arguments_out_of_range(changes, message):
    dataset = in_memory("digits", 20, 1)
    with pytest.raises(ValueError, match=message):
        data.train_batches(dataset, **{"batch_size": 4, "seed": 0, **changes})


def test_an_empty_source_is_refused():
    dataset = in_memory("digits", 0, 0)
    with pytest.raises(ValueError, match="at least one example"):
        data.train_batches(dataset, batch_size=1, seed=0)
    with pytest.raises(ValueError, match="at least one example"):
        data.test_batches(dataset, batch_size=1)
