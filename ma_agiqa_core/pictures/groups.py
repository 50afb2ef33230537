"""Decoded pictures in groups that fit into memory."""

from collections.abc import Iterable, Iterator

from .inputs import Picture, PictureInput, iterate_pictures

PICTURES_AT_ONCE = 64  # decoded and in memory; how many of them a network sees at a time is found out
PIXELS_AT_ONCE = 2**26  # in memory at a time: 67 megapixels, 200 MB; the picture that reaches it is the last


def picture_groups(images: Iterable[PictureInput], size: int = PICTURES_AT_ONCE) -> Iterator[list[Picture]]:
    """Pictures decoded ahead, in groups."""
    return grouped(iterate_pictures(images), size)


def grouped(pictures: Iterable[Picture], size: int = PICTURES_AT_ONCE) -> Iterator[list[Picture]]:
    """Decoded pictures in order, `size` at a time, or as many as reach `PIXELS_AT_ONCE`."""
    group: list[Picture] = []
    pixels = 0
    for picture in pictures:
        group.append(picture)
        pixels += picture.width * picture.height
        if len(group) >= size or pixels >= PIXELS_AT_ONCE:
            yield group
            group, pixels = [], 0
    if group:
        yield group
