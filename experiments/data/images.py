"""Views of one image: decoded, cropped, flipped and resized, as arrays of uint8."""

import io
import math

import numpy as np
from PIL import Image

_BILINEAR = Image.Resampling.BILINEAR

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
    (log-uniform); if ten draws do not fit, the largest centred square is taken.
    """
    with Image.open(io.BytesIO(encoded)) as picture:
        pixels = _resized(picture, _random_box(*picture.size, rng), size)
    return pixels[:, ::-1] if rng.random() < 0.5 else pixels


def centre_crop(encoded: bytes, size: int) -> np.ndarray:
    """Decodes the central square of a picture, 7/8 of its shorter side.

    For size 224 this is the usual "shorter side to 256, central 224", in one step.
    """
    with Image.open(io.BytesIO(encoded)) as picture:
        return _resized(picture, _centred(*picture.size, 7 / 8), size)


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


def _resized(picture: Image.Image, box: _Box, size: int) -> np.ndarray:
    """Decodes a picture that was opened, and resizes a box of it."""
    width, height = picture.size
    left, top, right, bottom = box
    # A JPEG is decoded at a half, a quarter or an eighth of its size where the box then
    # still has `size` pixels on each side; other pictures are decoded whole.
    needed = width * size / (right - left), height * size / (bottom - top)
    picture.draft("RGB", (math.ceil(needed[0]), math.ceil(needed[1])))
    across, down = picture.size[0] / width, picture.size[1] / height
    box = left * across, top * down, right * across, bottom * down
    if picture.mode != "RGB":  # it would be copied
        picture = picture.convert("RGB")
    return np.asarray(picture.resize((size, size), _BILINEAR, box=box))
