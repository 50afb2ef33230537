"""A folder of previews with what their finished pictures scored: written by calibrate, read to teach an early scorer.

One folder a prompt, `prompt-0000/`: `scores.json`, and `candidate-0-at-0.40.png` and the like. A prompt's `scores.json`
is written last, so that one without it was interrupted and is left out.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import PIL.Image

from ...atomic_write import atomic_write
from ...errors import MaAgiqaError, MissingFileError

FORMAT = 1


@dataclass(frozen=True, eq=False)
class KeptPrompt:
    """The candidates of one prompt.

    Attributes:
        prompt: Its text.
        judge: Name of the scorer, with its revision.
        pipeline: Class name.
        fractions: (F,) of the steps, ascending.
        previews: (F, n) scores of the previews by the judge.
        finals: (n,) scores of the finished pictures.
        files: (F, n) the previews.
    """

    prompt: str
    judge: str
    pipeline: str
    fractions: tuple[float, ...]
    previews: np.ndarray
    finals: np.ndarray
    files: tuple[tuple[Path, ...], ...]


def keep_prompt(
    folder: Path,
    number: int,
    pictures: Mapping[float, Sequence[PIL.Image.Image]],
    *,
    prompt: str,
    judge: str,
    pipeline: str,
    previews: np.ndarray,
    finals: np.ndarray,
) -> None:
    """Writes the candidates of one prompt.

    Args:
        folder: Of all prompts; made where it is not there.
        number: Of the prompt.
        pictures: By ascending fraction, the n previews.
        prompt, judge, pipeline, previews, finals: As in `KeptPrompt`.
    """
    own = folder / f"prompt-{number:04d}"
    own.mkdir(parents=True, exist_ok=True)
    files = []
    for fraction, row in pictures.items():
        names = [f"candidate-{candidate}-at-{fraction:.3g}.png" for candidate in range(len(row))]
        for name, picture in zip(names, row, strict=True):
            picture.save(own / name)
        files.append(names)
    facts = {
        "format": FORMAT,
        "prompt": prompt,
        "judge": judge,
        "pipeline": pipeline,
        "fractions": list(pictures),
        "previews": previews.tolist(),
        "finals": finals.tolist(),
        "files": files,
    }
    with atomic_write(own / "scores.json", is_shared=True) as temporary:
        temporary.write_text(json.dumps(facts, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")


def read_kept(folder: Path) -> list[KeptPrompt]:
    """All whole prompts of a folder, or of a folder of such folders.

    Raises:
        FileNotFoundError: No such folder, or nothing kept in it.
        ValueError: A damaged file, or prompts of different judges, pipelines or fractions.
    """
    found = sorted(folder.rglob("scores.json")) if folder.is_dir() else []
    if not found:
        raise MissingFileError(
            f"Expected a folder of kept previews, got {folder}. `ma-agiqa calibrate ... --save-previews {folder}` "
            "writes one."
        )
    kept = [_read(file) for file in found]
    for one in kept[1:]:
        for name in ("judge", "pipeline", "fractions"):
            if getattr(one, name) != getattr(kept[0], name):
                raise MaAgiqaError(
                    f"Expected previews with one {name}, got {getattr(kept[0], name)!r} and {getattr(one, name)!r} in "
                    f"{folder}. Keep each in a folder of its own."
                )
    return kept


def _read(file: Path) -> KeptPrompt:
    try:
        facts = json.loads(file.read_text(encoding="utf-8"))
        kept = KeptPrompt(
            prompt=str(facts["prompt"]),
            judge=str(facts["judge"]),
            pipeline=str(facts["pipeline"]),
            fractions=tuple(float(fraction) for fraction in facts["fractions"]),
            previews=np.array(facts["previews"], dtype=np.float64),
            finals=np.array(facts["finals"], dtype=np.float64),
            files=tuple(tuple(file.parent / Path(name).name for name in row) for row in facts["files"]),
        )
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise MaAgiqaError(f"Expected scores of kept previews in {file}, got {error!r}. Delete its folder.") from error
    shape = (len(kept.fractions), len(kept.finals))
    if facts.get("format") != FORMAT or kept.previews.shape != shape or {len(row) for row in kept.files} != {shape[1]}:
        raise MaAgiqaError(f"Expected {shape} previews with scores in {file}, got others. Delete its folder.")
    return kept
