"""Views of one image: decoded, cropped, flipped and resized, as arrays of uint8."""

import io
import math

import numpy as np
from PIL import Image, ImageOps

_BILINEAR = Image.Resampling.BILINEAR


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
    picture = _decoded(encoded)
    width, height = picture.size
    for _ in range(10):
        area = width * height * rng.uniform(0.08, 1.0)
        ratio = math.exp(rng.uniform(math.log(3 / 4), math.log(4 / 3)))
        wide, high = math.sqrt(area * ratio), math.sqrt(area / ratio)
        if wide <= width and high <= height:
            left = rng.uniform(0, width - wide)
            top = rng.uniform(0, height - high)
            box = (left, top, left + wide, top + high)
            view = picture.resize((size, size), _BILINEAR, box=box)
            break
    else:
        view = ImageOps.fit(picture, (size, size), _BILINEAR)
    pixels = np.asarray(view)
    return pixels[:, ::-1] if rng.random() < 0.5 else pixels


def centre_crop(encoded: bytes, size: int) -> np.ndarray:
    """Decodes the central square of a picture, 7/8 of its shorter side.

    For size 224 this is the usual "shorter side to 256, central 224", in one step.
    """
    # A sixteenth goes at each end of the shorter side.
    view = ImageOps.fit(_decoded(encoded), (size, size), _BILINEAR, bleed=1 / 16)
    return np.asarray(view)


def _decoded(encoded: bytes) -> Image.Image:
    with Image.open(io.BytesIO(encoded)) as picture:
        return picture.convert("RGB")
