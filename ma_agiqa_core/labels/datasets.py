"""The published data sets, read from the folders that their authors' downloads unpack to.

Which file holds what, and on which scale the scores are, is said at each reader. Labels carry the whole set in the
order of its table; how it is split is the caller's choice (`splits`).
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path, PurePosixPath

from ..errors import MaAgiqaError, MissingFileError
from ..records.spreadsheets import Table, read_lines, read_table
from .labelled_set import ALIGNMENT, AUTHENTICITY, QUALITY, LabelledSet, labelled_set

AGIQA_3K_SPLIT_FILES = {"train": "train.csv", "val": "validation.csv", "test": "test.csv"}
AIGCIQA2023_GENERATORS = ("Controlnet", "DALLE", "Glide", "Lafite", "Stable-diffusion", "Unidiffuser")
_AIGCIQA2023_MATRICES = {QUALITY: "mosz1.mat", AUTHENTICITY: "mosz2.mat", ALIGNMENT: "mosz3.mat"}
_AIGCIQA2023_COLUMNS = {
    QUALITY: ("quality_mos", "mos_quality", "quality"),
    AUTHENTICITY: ("authenticity_mos", "mos_authenticity", "authenticity"),
    ALIGNMENT: ("correspondence_mos", "mos_correspondence", "correspondence"),
}
_OF_EACH_GENERATOR, _OF_EACH_PROMPT = 400, 4  # pictures of AIGCIQA2023 in a row


def agiqa_3k(folder: Path, images: Path | None = None, targets: Sequence[str] = (QUALITY,)) -> LabelledSet:
    """AGIQA-3K (Li et al. 2023): 2982 pictures of 6 generators, quality and alignment from 0 to 5.

    Args:
        folder: With data.csv. If train.csv, validation.csv and test.csv lie beside it, they become the pictures'
            `split`: another one than the published seed-20 shuffle (`splits.split_by_ratio`).
        images: Folder of the pictures; None looks below `folder`.
        targets: "quality", "alignment" or both.
    """
    table = read_table(_file(folder, "data.csv"))
    columns = _columns("agiqa-3k", targets, {QUALITY: "mos_quality", ALIGNMENT: "mos_align"})
    parts = _agiqa_3k_parts(table.path.parent)
    table = table.with_column("generator", lambda row: row["name"].partition("_")[0])
    table = table.with_column("split", lambda row: parts.get(row["name"], ""))
    return _set("agiqa-3k", table, images or folder, columns, (0, 5))


def aigcqa_20k(folder: Path, images: Path | None = None, targets: Sequence[str] = (QUALITY,)) -> LabelledSet:
    """AIGCQA-20K, later AIGIQA-20K (Li et al. 2024): the 14000 pictures with public scores, quality from 0 to 5.

    Args:
        folder: With info_train.csv or info_train.xlsx.
        images: Folder of the pictures; None looks below `folder`.
        targets: "quality".
    """
    table = read_table(_file(folder, "info_train.csv", "info_train.xlsx"))
    table = table.with_column("generator", lambda row: row["name"].partition("_")[0])
    return _set("aigcqa-20k", table, images or folder, _columns("aigcqa-20k", targets, {QUALITY: "mos"}), (0, 5))


def aigciqa2023(folder: Path, images: Path | None = None, targets: Sequence[str] = (QUALITY,)) -> LabelledSet:
    """AIGCIQA2023 (Wang et al. 2023): 2400 pictures of 6 generators, three targets from 0 to 100.

    Pictures are 0.png to 2399.png: 400 of each generator, 4 of each of its 100 prompts (the authors' pic-index.xlsx).

    Args:
        folder: With DATA/MOS/mosz1.mat (quality), mosz2.mat (authenticity) and mosz3.mat (correspondence, here
            alignment), and AIGCIQA2023_Prompts.xlsx for the prompts; or with AIGCIQA2023.csv or .xlsx, which has
            name, prompt, quality_mos, authenticity_mos and correspondence_mos.
        images: Folder of the pictures, Image/allimg; None looks there.
        targets: Any of "quality", "alignment" and "authenticity".
    """
    matrices = _columns("aigciqa2023", targets, _AIGCIQA2023_MATRICES)
    spreadsheet = _found(folder, "AIGCIQA2023.csv", "AIGCIQA2023.xlsx")
    if spreadsheet is None:
        table, columns = _aigciqa2023_matrices(folder, matrices), {target: target for target in targets}
    else:
        table = read_table(spreadsheet)
        columns = {
            target: table.first_column(*_AIGCIQA2023_COLUMNS[target]) or table.column(_AIGCIQA2023_COLUMNS[target][0])
            for target in targets
        }
    table = table.with_column("generator", _aigciqa2023_generator)
    return _set("aigciqa2023", table, images or _below(folder, "Image/allimg", "allimg"), columns, (0, 100))


def koniq_10k(folder: Path, images: Path | None = None, targets: Sequence[str] = (QUALITY,)) -> LabelledSet:
    """KonIQ-10k (Hosu et al. 2020): 10073 photographs, quality from 0 to 100.

    Args:
        folder: With koniq10k_distributions_sets.csv, whose `set` becomes the pictures' `split`, or with
            koniq10k_scores_and_distributions.csv, of which MOS_zscore is read.
        images: Folder of the pictures; None takes 1024x768, else 512x384 below `folder`.
        targets: "quality".
    """
    table = read_table(_file(folder, "koniq10k_distributions_sets.csv", "koniq10k_scores_and_distributions.csv"))
    column = table.first_column("MOS_zscore") or "MOS"
    columns = _columns("koniq-10k", targets, {QUALITY: column})
    images = images or _below(folder, "1024x768", "512x384")
    return _set("koniq-10k", table, images, columns, (0, 100), name="image_name", split=table.first_column("set"))


def spaq(folder: Path, images: Path | None = None, targets: Sequence[str] = (QUALITY,)) -> LabelledSet:
    """SPAQ (Fang et al. 2020): 11125 photographs of smartphones, quality from 0 to 100.

    Args:
        folder: With "MOS and Image attribute scores.xlsx", there or in Annotations.
        images: Folder of the pictures; None takes TestImage below `folder`.
        targets: "quality".
    """
    table = read_table(_file(folder, "MOS and Image attribute scores.xlsx", "MOS and Image attribute scores.csv"))
    columns = _columns("spaq", targets, {QUALITY: "MOS"})
    return _set("spaq", table, images or _below(folder, "TestImage"), columns, (0, 100), name="Image name")


DATASETS: Mapping[str, Callable[..., LabelledSet]] = {
    "agiqa-3k": agiqa_3k,
    "aigcqa-20k": aigcqa_20k,
    "aigiqa-20k": aigcqa_20k,
    "aigciqa2023": aigciqa2023,
    "koniq-10k": koniq_10k,
    "spaq": spaq,
}


def read_dataset(
    name: str, folder: Path, images: Path | None = None, targets: Sequence[str] = (QUALITY,)
) -> LabelledSet:
    """A published data set by its name, in any capitals: "AGIQA-3K", "AIGCQA-20K" and so on.

    Raises:
        FileNotFoundError: Labels or pictures are not there; the message names them.
        ImportError: openpyxl or scipy is missing for a spreadsheet or .mat file.
        ValueError: An unknown name, a target that the set has not, or labels that cannot be used.
    """
    reader = DATASETS.get(name.lower())
    if reader is None:
        raise MaAgiqaError(f"Expected a data set of {', '.join(DATASETS)}, got {name!r}. Read others with read_labels.")
    return reader(folder, images, targets)


def _set(
    title: str,
    table: Table,
    images: Path,
    columns: Mapping[str, str],
    bounds: tuple[float, float],
    *,
    name: str = "name",
    split: str | None = None,
) -> LabelledSet:
    return labelled_set(
        table,
        images,
        scores={target: table.column(column) for target, column in columns.items()},
        name=table.column(name),
        prompt=table.first_column("prompt"),
        generator=table.first_column("generator"),
        split=split or table.first_column("split"),
        bounds=bounds,
        title=title,
    )


def _columns(title: str, targets: Sequence[str], known: Mapping[str, str]) -> dict[str, str]:
    if isinstance(targets, str) or not targets or not set(targets) <= set(known):
        raise MaAgiqaError(f"Expected targets of {title}, {', '.join(known)}, got {targets!r}.")
    return {target: known[target] for target in targets}


def _agiqa_3k_parts(folder: Path) -> dict[str, str]:
    """By picture: the part whose file names it."""
    parts: dict[str, str] = {}
    if all((folder / file).is_file() for file in AGIQA_3K_SPLIT_FILES.values()):
        for part, file in AGIQA_3K_SPLIT_FILES.items():
            for row in read_table(folder / file).rows:
                if (name := row["name"]) in parts:
                    first = AGIQA_3K_SPLIT_FILES[parts[name]]
                    raise MaAgiqaError(f"Expected each picture in one part, got {name!r} in {first} and in {file}.")
                parts[name] = part
    return parts


def _aigciqa2023_matrices(folder: Path, matrices: Mapping[str, str]) -> Table:
    from scipy.io import loadmat

    expected = len(AIGCIQA2023_GENERATORS) * _OF_EACH_GENERATOR
    scores = {}
    for target, file in matrices.items():
        path = _file(folder, f"DATA/MOS/{file}", file)
        try:
            scores[target] = loadmat(path)["MOSz"].ravel().tolist()
        except Exception as error:  # a damaged file may raise anything
            raise MaAgiqaError(f"Expected MOSz in {path}, got an error: {error!r}.") from error
        if len(scores[target]) != expected:
            raise MaAgiqaError(f"Expected {expected} scores in {path}, got {len(scores[target])}.")
    prompts = _aigciqa2023_prompts(folder)
    rows = tuple(
        {
            "name": f"{number}.png",
            "prompt": prompts[number % _OF_EACH_GENERATOR // _OF_EACH_PROMPT] if prompts else "",
            **{target: repr(values[number]) for target, values in scores.items()},
        }
        for number in range(expected)
    )
    return Table(path, ("name", "prompt", *scores), rows, tuple(range(1, expected + 1)))


def _aigciqa2023_prompts(folder: Path) -> list[str]:
    """The 100 prompts in order, from a file without a header; none if there is no such file."""
    path = _found(folder, "AIGCIQA2023_Prompts.xlsx", "prompts.xlsx", "prompt.xlsx", "DATA/AIGCIQA2023_Prompts.xlsx")
    if path is None:
        return []
    prompts = [cells[-1] for cells in read_lines(path).values()]
    if len(prompts) != (expected := _OF_EACH_GENERATOR // _OF_EACH_PROMPT):
        raise MaAgiqaError(f"Expected {expected} prompts in {path}, got {len(prompts)}.")
    return prompts


def _aigciqa2023_generator(row: Mapping[str, str]) -> str:
    stem = PurePosixPath(row["name"]).stem
    group = int(stem) // _OF_EACH_GENERATOR if stem.isdecimal() else len(AIGCIQA2023_GENERATORS)
    return AIGCIQA2023_GENERATORS[group] if group < len(AIGCIQA2023_GENERATORS) else ""


def _below(folder: Path, *names: str) -> Path:
    """The first of these folders that exists, else the folder itself."""
    return next((folder / name for name in names if (folder / name).is_dir()), folder)


def _file(folder: Path, *names: str) -> Path:
    if not folder.is_dir():
        what = "which is a file" if folder.exists() else "no such folder"
        raise MissingFileError(f"Expected the folder of a data set, got {folder}: {what}.")
    if (path := _found(folder, *names)) is None:
        nothing = "neither" if len(names) > 1 else "none"
        raise MissingFileError(f"Expected {' or '.join(names)} in {folder} or a folder in it, got {nothing}.")
    return path


def _found(folder: Path, *names: str) -> Path | None:
    """The first of these files, in the folder or in one within it."""
    places = [folder, *sorted(path for path in folder.iterdir() if path.is_dir())] if folder.is_dir() else []
    return next((place / name for name in names for place in places if (place / name).is_file()), None)
