"""The loop behind `extract`: pictures decoded ahead, asked about in groups, their vectors into the cache."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from ..compute.work_groups import work_in_groups
from ..pictures.inputs import Picture, iterate_pictures
from ..records.record import path_key
from ..semantic.extractor import SemanticExtractor


@dataclass(frozen=True)
class Extracted:
    """What became of one picture: its vectors are in the cache, or `error` says why not."""

    path: str
    error: str | None


def extract_pictures(
    extractor: SemanticExtractor,
    paths: Iterable[Path],
    batch_size: int | None = None,
    prompts: Mapping[str, str] | None = None,
) -> Iterator[list[Extracted]]:
    """Puts the semantic vectors of pictures into the extractor's cache, in order, a group at a time.

    Args:
        extractor: Has a cache.
        paths: Of the pictures.
        batch_size: Pictures at a time; None leaves it to the extractor.
        prompts: What they were generated from, by `path_key`, if the extractor's questions need it.
    """

    def extract(batch: list[Picture]) -> list[Extracted]:
        texts = None if prompts is None else [prompts.get(path_key(picture.path or "")) for picture in batch]
        errors = extractor.vectors(batch, batch_size, texts).errors
        return [Extracted(p.path or "", error) for p, error in zip(batch, errors, strict=True)]

    return work_in_groups(
        iterate_pictures(paths), extract, pixels_of=lambda picture: picture.width * picture.height, size=batch_size
    )
