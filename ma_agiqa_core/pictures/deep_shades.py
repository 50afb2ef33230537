"""Grey pictures of more than 8 bits: which value is white, and their shades in 8 bits.

White is what the file declares, and values beyond it are clipped:

- 16-bit PNG, PGM, JPEG 2000 and TIFF, and PIL's modes "I;16": 65535; signed 16-bit TIFF: 32767; 12-bit TIFF: 4095.
- A 16-bit TIFF whose MaxSampleValue or SMaxSampleValue is 2^n - 1 (255, 1023, 4095, ...) holds n bits, and that value
  is white. Any other value is a statistic, which must not change how a picture looks (TIFF 6.0, section 8).
- A float or 32-bit TIFF with one of these tags: its value, for floats at least 1.

Floats and 32-bit integers without such a tag declare nothing. They are read where no reading but one is possible:
the white is 1 (floats only), 255, 65535 or the largest integer if the peak lies between a quarter below it and a
quarter above it, for whites above 1 from a quarter of it on, no value is further below 0 than a quarter of it, and, for
whites above 1, at least a tenth of the positive values are beyond what the next smaller white allows. All else is
refused. The ranges do not touch: no small change of a pixel, and no single pixel of many, changes the others.

NaN and -inf are black, inf is white; they do not take part in this.
"""

import math
from typing import Any

import numpy as np
import PIL.Image

from ..errors import UnreadablePictureError

DEEP_MODES = frozenset({"I", "F", "I;16", "I;16B", "I;16L", "I;16N"})
"""PIL's modes of more than 8 bits."""

_TOLERANCE = 0.25  # of white: sharpening and resampling swing this far above white and below black
_FIRST_SHADE = 0.25  # of white: a picture whose peak is darker may be a bright one of a smaller white
_BEYOND = 0.1  # the share of positive values that shows that a larger white is meant, and not a few hot pixels
_SCALED_FORMATS = frozenset({"PNG", "PPM", "JPEG2000"})  # of these Pillow gives mode "I" only for 16 bits, full scale
_BITS, _PHOTOMETRIC, _MAX, _FORMAT, _S_MAX = 258, 262, 281, 339, 341  # TIFF 6.0
_WHITE_IS_ZERO, _UNSIGNED, _SIGNED = 0, 1, 2


def eight_bit(image: PIL.Image.Image) -> PIL.Image.Image:
    """A loaded picture of one of `DEEP_MODES` in mode "L"; the rule is in the module's head.

    Raises:
        UnreadablePictureError: Nothing says which value is white.
    """
    values = _values(image)
    white = _declared_white(image) or _only_possible_white(values, is_float=image.mode == "F")
    shades = np.nan_to_num(values.astype(np.float64), nan=0, posinf=white, neginf=0) * (255 / white)
    grey = np.rint(shades.clip(0, 255)).astype(np.uint8)
    if _tag(image, _PHOTOMETRIC) == _WHITE_IS_ZERO:  # Pillow turns these around only up to 8 bits
        grey = 255 - grey
    if "transparency" in image.info:  # the one value that a 16-bit PNG declares transparent
        grey[values == image.info["transparency"]] = 255
    return PIL.Image.fromarray(grey)


def _values(image: PIL.Image.Image) -> np.ndarray:
    values = np.asarray(image)
    is_unsigned = _tag(image, _FORMAT, _UNSIGNED) == _UNSIGNED and _tag(image, _BITS) == 32
    return values.view(np.uint32) if image.mode == "I" and is_unsigned else values


def _declared_white(image: PIL.Image.Image) -> float | None:
    maximum = _tag(image, _S_MAX) or _tag(image, _MAX)
    if image.mode == "F":
        return maximum if maximum and math.isfinite(maximum) and maximum >= 1 else None
    bits = _tag(image, _BITS)
    if image.mode == "I" and bits != 16:
        if image.format in _SCALED_FORMATS:
            return 65535
        return maximum if maximum and maximum >= 1 else None
    if maximum in [2**n - 1 for n in range(8, 16)]:
        return maximum
    if bits == 16 and _tag(image, _FORMAT) == _SIGNED:
        return 32767
    return 4095 if bits == 12 else 65535


def _only_possible_white(values: np.ndarray, *, is_float: bool) -> float:
    """Of a picture that declares none."""
    finite = values[np.isfinite(values)] if is_float else values
    if finite.size == 0:
        raise UnreadablePictureError("has no finite values")
    low, peak = float(finite.min()), float(finite.max())
    whites = (1.0, 255.0, 65535.0) if is_float else (255.0, 65535.0, float(np.iinfo(values.dtype).max))
    for smaller, white in zip((0.0, *whites), whites, strict=False):
        darkest = 0 if white == 1 else _FIRST_SHADE * white
        if peak <= 0 or darkest <= peak <= (1 + _TOLERANCE) * white:
            if low >= -_TOLERANCE * white and _reaches_beyond(finite, (1 + _TOLERANCE) * smaller):
                return white
            break
    kind = "floats" if is_float else "integers"
    raise UnreadablePictureError(
        f"{kind} from {low:.6g} to {peak:.6g}, and nothing says which of them is white: save it with 8 or 16 bits"
    )


def _reaches_beyond(values: np.ndarray, limit: float) -> bool:
    positive = np.count_nonzero(values > 0)
    return limit == 0 or bool(np.count_nonzero(values > limit) >= _BEYOND * positive)


def _tag(image: PIL.Image.Image, number: int, default: float | None = None) -> float | None:
    """A number in the head of a TIFF."""
    value: Any = getattr(image, "tag_v2", {}).get(number, default)
    first = value[0] if isinstance(value, tuple) and value else value
    try:
        return None if first is None else float(first)
    except (TypeError, ValueError):  # the tag of a broken file
        return None
