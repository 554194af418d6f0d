"""Views of one image: decoded, cropped, flipped and resized, as arrays of uint8."""

import io
import math

import cv2
import numpy as np
from PIL import Image

_REDUCED = {
    1: cv2.IMREAD_COLOR,
    2: cv2.IMREAD_REDUCED_COLOR_2,
    4: cv2.IMREAD_REDUCED_COLOR_4,
    8: cv2.IMREAD_REDUCED_COLOR_8,
}
# Pictures are read in many threads already.
cv2.setNumThreads(0)

_Box = tuple[float, float, float, float]
"""Left, top, right and bottom, in pixels."""


def upsample(image: np.ndarray, size: int) -> np.ndarray:
    """Enlarges an image (H, H, C), or a signal (H, C), by repeating pixels."""
    side = image.shape[0]
    if size == side:
        return image
    nearest = np.arange(size) * side // size
    for axis in range(image.ndim - 1):
        image = image.take(nearest, axis)
    return image


def crop_and_flip(image: np.ndarray, rng: np.random.Generator, size: int) -> np.ndarray:
    """Shifts by up to 4 pixels (zeros move in), mirrors every second image."""
    side, pad = image.shape[0], 4
    top, left = rng.integers(2 * pad + 1, size=2)
    padded = np.zeros((side + 2 * pad, side + 2 * pad, image.shape[2]), image.dtype)
    padded[pad : pad + side, pad : pad + side] = image
    cropped = padded[top : top + side, left : left + side]
    if rng.random() < 0.5:
        cropped = cropped[:, ::-1]
    return upsample(cropped, size)


def random_resized_crop(
    encoded: bytes, rng: np.random.Generator, size: int
) -> np.ndarray:
    """Decodes a random part of a picture, a JPEG or PNG, and mirrors every second one.

    The part has 8 to 100 % of the area and an aspect ratio between 3/4 and 4/3
    (log-uniform); if ten draws do not fit, the largest centred square is taken. It is
    resized bilinearly without a filter before, as TensorFlow does it by default.

    Raises:
        ValueError: If the picture cannot be decoded.
    """
    width, height = _size(encoded)
    pixels = _resized(encoded, _random_box(width, height, rng), size)
    return cv2.flip(pixels, 1) if rng.random() < 0.5 else pixels


def centre_crop(encoded: bytes, size: int) -> np.ndarray:
    """Decodes the central square of a picture, 7/8 of its shorter side.

    For size 224 this is the usual "shorter side to 256, central 224", in one step.

    Raises:
        ValueError: If the picture cannot be decoded.
    """
    return _resized(encoded, _centred(*_size(encoded), 7 / 8), size)


def _random_box(width: int, height: int, rng: np.random.Generator) -> _Box:
    for _ in range(10):
        area = width * height * rng.uniform(0.08, 1.0)
        ratio = math.exp(rng.uniform(math.log(3 / 4), math.log(4 / 3)))
        wide, high = math.sqrt(area * ratio), math.sqrt(area / ratio)
        if wide <= width and high <= height:
            left = rng.uniform(0, width - wide)
            top = rng.uniform(0, height - high)
            return left, top, left + wide, top + high
    return _centred(width, height, 1.0)


def _centred(width: int, height: int, share: float) -> _Box:
    """The centred square whose side is a share of the shorter side."""
    half = share * min(width, height) / 2
    return width / 2 - half, height / 2 - half, width / 2 + half, height / 2 + half


def _size(encoded: bytes) -> tuple[int, int]:
    """The width and height of a picture, which stand at its beginning."""
    try:
        with Image.open(io.BytesIO(encoded)) as picture:
            return picture.size
    except OSError as error:
        raise _not_decoded(encoded) from error


def _resized(encoded: bytes, box: _Box, size: int) -> np.ndarray:
    """Decodes a picture and resizes a box of it, whose edges are rounded to pixels."""
    sides = box[2] - box[0], box[3] - box[1]
    # A picture is decoded at a half, a quarter or an eighth of its size where the box
    # then still has `size` pixels on each side.
    reduction = max([r for r in _REDUCED if min(sides) >= r * size], default=1)
    # TensorFlow does not turn pictures as their EXIF data say, and neither do we.
    flags = _REDUCED[reduction] | cv2.IMREAD_IGNORE_ORIENTATION
    pixels = cv2.imdecode(np.frombuffer(encoded, np.uint8), flags)
    if pixels is None:
        raise _not_decoded(encoded)
    left, top, right, bottom = (round(edge / reduction) for edge in box)
    part = pixels[top : max(bottom, top + 1), left : max(right, left + 1)]
    resized = cv2.resize(part, (size, size), interpolation=cv2.INTER_LINEAR)
    return cv2.cvtColor(resized, cv2.COLOR_BGR2RGB)


def _not_decoded(encoded: bytes) -> ValueError:
    return ValueError(
        f"A picture of {len(encoded)} bytes that begin with {encoded[:8]!r} cannot be "
        "decoded; a whole JPEG or PNG is required. Prepare the data set again, or "
        "leave this example out."
    )
