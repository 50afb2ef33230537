"""The loop behind `extract`: pictures decoded ahead, asked about in batches, their vectors into the cache."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from .images import Picture, path_text
from .records import path_key
from .score_loop import picture_groups
from .scoring_run import BATCH_SIZE, work_through
from .semantic.extractor import SemanticExtractor


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
    """Puts the semantic vectors of pictures into the extractor's cache, in order, a batch at a time.

    Args:
        extractor: Has a cache.
        paths: Of the pictures.
        batch_size: Pictures at a time.
        prompts: What they were generated from, by `path_key`, if the extractor's questions need it.
    """

    def extract(batch: list[Picture]) -> list[Extracted]:
        texts = None if prompts is None else [prompts.get(path_key(picture.path or "")) for picture in batch]
        errors = extractor.vectors(batch, batch_size, texts).errors
        return [Extracted(path_text(p.path) or "", error) for p, error in zip(batch, errors, strict=True)]

    return work_through(picture_groups(paths, batch_size or BATCH_SIZE), extract)
