"""The handwritten digits that are bundled with scikit-learn.

1,797 real images of 8x8 pixels in 10 classes, so small that a network can be trained
and pruned in seconds, and installed with the package: no download. Example i is in the
split `test` if i is a multiple of 5 (360 examples), otherwise in `train` (1,437).

References:
    Alpaydin and Kaynak, Optical Recognition of Handwritten Digits, UCI Machine
    Learning Repository, 1998, doi:10.24432/C50P49 (its test set is what scikit-learn
    bundles).
"""

import numpy as np


def splits() -> dict[str, tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Returns numbers, images, uint8, and labels of the examples of each split.

    The source counts ink in steps of 0 to 16; returned is `round(ink * 255 / 16)`, so
    that pixels are scaled as in other image sets.
    """
    from sklearn import datasets  # slow to import, needed once

    ink, labels = map(np.asarray, datasets.load_digits(return_X_y=True))
    pixels = np.round(ink * (255 / 16)).astype(np.uint8).reshape(-1, 8, 8, 1)
    numbers = np.arange(len(labels))
    parts = {"train": numbers[numbers % 5 != 0], "test": numbers[::5]}
    return {name: (part, pixels[part], labels[part]) for name, part in parts.items()}
