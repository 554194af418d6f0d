"""TFDS builder of the handwritten digits that are bundled with scikit-learn.

1,797 real images of 8x8 pixels in 10 classes, so small that a network can be trained
and pruned in seconds, and installed with the package: no download. Example i is in the
split `test` if i is a multiple of 5 (360 examples), otherwise in `train` (1,437). It is
written as ArrayRecord, and TensorFlow is needed neither to write nor to read it.

References:
    Alpaydin and Kaynak, Optical Recognition of Handwritten Digits, UCI Machine
    Learning Repository, 1998, doi:10.24432/C50P49 (its test set is what scikit-learn
    bundles).
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
import tensorflow_datasets as tfds


class Digits(tfds.core.GeneratorBasedBuilder):
    """Handwritten digits, `image` (8, 8, 1) uint8 and `label` int64 in [0, 10).

    The source counts ink in steps of 0 to 16; stored is `round(ink * 255 / 16)`, so
    that pixels are scaled as in other image sets.
    """

    VERSION = tfds.core.Version("1.0.0")
    # Nothing is downloaded: do not look for a file of checksums beside this module,
    # for which TFDS imports `importlib_resources`, a package that it does not require.
    code_path = None

    def _info(self) -> tfds.core.DatasetInfo:
        # Not `dataset_info_from_configs`: it looks for files beside the module.
        return tfds.core.DatasetInfo(
            builder=self,
            description="Handwritten digits of 8x8 pixels, bundled with scikit-learn.",
            features=tfds.features.FeaturesDict(
                {
                    "image": tfds.features.Tensor(shape=(8, 8, 1), dtype=np.uint8),
                    "label": tfds.features.ClassLabel(num_classes=10),
                }
            ),
            supervised_keys=("image", "label"),
            homepage="https://doi.org/10.24432/C50P49",
        )

    def _split_generators(
        self, dl_manager: tfds.download.DownloadManager
    ) -> dict[str, Iterator[tuple[int, dict[str, Any]]]]:
        del dl_manager
        return {
            "train": self._generate_examples(test=False),
            "test": self._generate_examples(test=True),
        }

    def _generate_examples(self, *, test: bool) -> Iterator[tuple[int, dict[str, Any]]]:
        from sklearn import datasets  # slow to import, needed once

        ink, labels = datasets.load_digits(return_X_y=True)
        pixels = np.round(ink * (255 / 16)).astype(np.uint8).reshape(-1, 8, 8, 1)
        for index, (image, label) in enumerate(zip(pixels, labels, strict=True)):
            if (index % 5 == 0) == test:
                yield index, {"image": image, "label": int(label)}
