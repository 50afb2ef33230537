"""The published sets: small tables in their authors' layouts, and the true tables where they are; tiny pictures."""

import csv
import io
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
import scipy.io
from project_paths import ROOT

from ma_agiqa_core.labels.datasets import AIGCIQA2023_GENERATORS, DATASETS, agiqa_3k, read_dataset
from ma_agiqa_core.labels.splits import make_split, split_by_column, split_by_ratio

TRUE_TABLES = ROOT.parent / "shared" / "labels"  # beside the repository
needs_true_tables = pytest.mark.skipif(
    not TRUE_TABLES.is_dir(), reason=f"the true label tables are not in {TRUE_TABLES}"
)

AGIQA_HEADER = ("name", "prompt", "adj1", "adj2", "style", "mos_quality", "std_quality", "mos_align", "std_align")
AGIQA_ROWS = (
    ("AttnGAN_normal_000.jpg", "statue of a man", "", "", "", 0.965602553, 0.223270101, 0.40889324, 0.615607722),
    ("xl2.2_normal_147.jpg", "bill, hyper detail", "hyper detail", "", "", 4.205990313, 0.8, 2.087613583, 0.9),
    ("sd1.5_lowcorr_065.jpg", "an art, anime style", "", "", "anime style", 2.203182133, 0.6, 2.856177525, 0.8),
)


def write_pictures(folder: Path, names: Iterable[str]) -> None:
    """The same tiny picture under many names."""
    contents = {}
    for suffix, form in ((".jpg", "JPEG"), (".png", "PNG")):
        file = io.BytesIO()
        PIL.Image.new("RGB", (8, 8), (90, 120, 30)).save(file, form)
        contents[suffix] = file.getvalue()
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        (folder / name).write_bytes(contents[Path(name).suffix])


def write_csv(path: Path, header: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([header, *rows])


def write_xlsx(path: Path, rows: Iterable[Sequence[object]]) -> None:
    openpyxl = pytest.importorskip("openpyxl")
    path.parent.mkdir(parents=True, exist_ok=True)
    book = openpyxl.Workbook()
    for row in rows:
        book.active.append(list(row))
    book.save(path)


@pytest.fixture
def agiqa(tmp_path: Path) -> Path:
    write_csv(tmp_path / "data.csv", AGIQA_HEADER, AGIQA_ROWS)
    write_pictures(tmp_path / "image", [str(row[0]) for row in AGIQA_ROWS])
    return tmp_path


def test_agiqa_3k(agiqa: Path) -> None:
    found = agiqa_3k(agiqa, targets=("quality", "alignment"))

    assert (found.name, found.low, found.high, found.unlabelled) == ("agiqa-3k", 0.0, 5.0, 0)
    assert [picture.generator for picture in found.pictures] == ["AttnGAN", "xl2.2", "sd1.5"]
    second = found.pictures[1]
    assert (second.path, second.prompt) == (agiqa / "image/xl2.2_normal_147.jpg", "bill, hyper detail")
    assert second.scores == {"quality": 4.205990313, "alignment": 2.087613583}
    assert found.range_of("alignment") == (0.0, 5.0)
    assert second.split is None
    assert agiqa_3k(agiqa).targets == ("quality",)


def test_agiqa_3k_takes_its_split_files_for_a_column(agiqa: Path) -> None:
    for file, row in zip(("train.csv", "validation.csv", "test.csv"), AGIQA_ROWS, strict=True):
        write_csv(agiqa / file, AGIQA_HEADER, [row])

    assert [picture.split for picture in agiqa_3k(agiqa).pictures] == ["train", "val", "test"]
    write_csv(agiqa / "test.csv", AGIQA_HEADER, AGIQA_ROWS[1:])
    with pytest.raises(ValueError, match=r"one part, got 'xl2.2_normal_147.jpg' in validation.csv and in test.csv"):
        agiqa_3k(agiqa)


def test_scores_beyond_the_published_scale_are_refused(agiqa: Path) -> None:
    write_csv(agiqa / "data.csv", AGIQA_HEADER, [(*AGIQA_ROWS[0][:5], 60.2, *AGIQA_ROWS[0][6:])])

    with pytest.raises(ValueError, match=r"mos_quality from 0 to 5 in row 2 .*got 60.2"):
        agiqa_3k(agiqa)


@pytest.mark.parametrize("name", ["aigcqa-20k", "AIGIQA-20K"])
def test_aigcqa_20k(tmp_path: Path, name: str) -> None:
    rows = [("DALLE2_0000.png", "a cyberpunk gopnik, Norilsk", 3.6638868235), ("SD1.4_0007.png", "a girl", 0.1)]
    write_csv(tmp_path / "info_train.csv", ("name", "prompt", "mos"), rows)
    write_pictures(tmp_path / "train", [row[0] for row in rows])

    found = read_dataset(name, tmp_path)

    assert (found.name, found.low, found.high) == ("aigcqa-20k", 0.0, 5.0)
    assert [(p.generator, p.prompt, p.scores["quality"]) for p in found.pictures] == [
        ("DALLE2", "a cyberpunk gopnik, Norilsk", 3.6638868235),
        ("SD1.4", "a girl", 0.1),
    ]
    with pytest.raises(ValueError, match=r"targets of aigcqa-20k, quality, got \('alignment',\)"):
        read_dataset(name, tmp_path, targets=("alignment",))


@pytest.fixture
def aigciqa(tmp_path: Path) -> Path:
    """AIGCIQA2023 as its download unpacks: picture n has quality n/100, authenticity 1 and correspondence 2 more."""
    write_pictures(tmp_path / "Image/allimg", [f"{number}.png" for number in range(2400)])
    (tmp_path / "DATA/MOS").mkdir(parents=True)
    for number in (1, 2, 3):
        scores = np.arange(2400)[:, None] / 100 + number - 1
        scipy.io.savemat(tmp_path / f"DATA/MOS/mosz{number}.mat", {"MOSz": scores})
    return tmp_path


def test_aigciqa2023_from_its_matrices(aigciqa: Path) -> None:
    write_xlsx(aigciqa / "AIGCIQA2023_Prompts.xlsx", [("Basic", "Animals", f"a corgi {n}") for n in range(100)])

    found = read_dataset("aigciqa2023", aigciqa, targets=("quality", "alignment", "authenticity"))

    assert (len(found), found.low, found.high, found.unlabelled) == (2400, 0.0, 100.0, 0)
    picture = found.pictures[1207]
    assert (picture.path, picture.prompt) == (aigciqa / "Image/allimg/1207.png", "a corgi 1")
    assert picture.scores == pytest.approx({"quality": 12.07, "authenticity": 13.07, "alignment": 14.07})
    assert Counter(p.generator for p in found.pictures) == dict.fromkeys(AIGCIQA2023_GENERATORS, 400)
    assert (picture.generator, found.pictures[399].generator) == ("Lafite", "Controlnet")
    assert set(Counter(p.prompt for p in found.pictures).values()) == {24}


def test_aigciqa2023_reads_the_matrices_it_needs_and_says_what_is_wrong_with_them(aigciqa: Path) -> None:
    mos = aigciqa / "DATA/MOS"
    (mos / "mosz2.mat").unlink()
    assert read_dataset("aigciqa2023", aigciqa).pictures[0].prompt is None
    with pytest.raises(FileNotFoundError, match=r"Expected DATA/MOS/mosz2.mat or mosz2.mat in"):
        read_dataset("aigciqa2023", aigciqa, targets=("authenticity",))
    (mos / "mosz1.mat").write_bytes(b"no matrix")
    with pytest.raises(ValueError, match=r"MOSz in .*mosz1.mat, got an error"):
        read_dataset("aigciqa2023", aigciqa)
    scipy.io.savemat(mos / "mosz1.mat", {"MOSz": np.zeros((10, 1))})
    with pytest.raises(ValueError, match=r"2400 scores in .*mosz1.mat, got 10"):
        read_dataset("aigciqa2023", aigciqa)
    write_xlsx(aigciqa / "AIGCIQA2023_Prompts.xlsx", [("Basic", "Animals", "a corgi")])
    with pytest.raises(ValueError, match=r"100 prompts in .*got 1"):
        read_dataset("aigciqa2023", aigciqa, targets=("alignment",))


@pytest.mark.parametrize("suffix", [".csv", ".xlsx"])
def test_aigciqa2023_from_its_spreadsheet(tmp_path: Path, suffix: str) -> None:
    header = ("", "name", "prompt", "style", "quality_mos", "authenticity_mos", "correspondence_mos", "quality_std")
    rows = [
        (0, "0.png", "a corgi", "Basic", 60.16417843, 47.2, 59.9, 0.8),
        (1, "2399.png", "x", "Basic", 40, 30, 20, 1),
    ]
    (write_csv if suffix == ".csv" else lambda path, head, rest: write_xlsx(path, [head, *rest]))(
        tmp_path / f"AIGCIQA2023{suffix}", header, rows
    )
    write_pictures(tmp_path / "allimg", ["0.png", "2399.png"])

    found = read_dataset("aigciqa2023", tmp_path, targets=("alignment", "quality"))

    assert [dict(p.scores) for p in found.pictures] == [
        {"alignment": 59.9, "quality": 60.16417843},
        {"alignment": 20.0, "quality": 40.0},
    ]
    assert [(p.generator, p.prompt) for p in found.pictures] == [("Controlnet", "a corgi"), ("Unidiffuser", "x")]


def test_koniq_10k_with_and_without_its_sets(tmp_path: Path) -> None:
    write_pictures(tmp_path / "1024x768", ["10004473376.jpg", "1.jpg"])
    write_pictures(tmp_path / "512x384", ["10004473376.jpg", "1.jpg"])
    counts = ("image_name", "c1", "c2", "c3", "c4", "c5", "c_total", "MOS", "SD")
    rows = [("10004473376.jpg", 0, 0, 25, 73, 7, 105, 3.83, 0.5, 77.4), ("1.jpg", 0, 3, 45, 47, 1, 96, 3.48, 0.6, 66)]
    write_csv(tmp_path / "koniq10k_scores_and_distributions.csv", (*counts, "MOS_zscore"), rows)

    found = read_dataset("koniq-10k", tmp_path)
    assert [p.scores["quality"] for p in found.pictures] == [77.4, 66.0]
    assert (found.pictures[0].path, found.high) == (tmp_path / "1024x768/10004473376.jpg", 100.0)

    sets = [(*row[:7], row[9], 1.0, part) for row, part in zip(rows, ("training", "test"), strict=True)]
    write_csv(tmp_path / "koniq10k_distributions_sets.csv", (*counts, "set"), sets)
    found = read_dataset("koniq-10k", tmp_path, tmp_path / "512x384")
    assert [(p.scores["quality"], p.split) for p in found.pictures] == [(77.4, "train"), (66.0, "test")]
    assert found.pictures[0].path == tmp_path / "512x384/10004473376.jpg"


def test_spaq(tmp_path: Path) -> None:
    write_xlsx(
        tmp_path / "Annotations/MOS and Image attribute scores.xlsx",
        [("Image name", "MOS", "Brightness"), ("00001.jpg", 32.44, 52.5), ("00002.jpg", 39, 51)],
    )
    write_pictures(tmp_path / "TestImage", ["00001.jpg", "00002.jpg"])

    found = read_dataset("SPAQ", tmp_path)

    assert [(p.name, p.scores["quality"], p.prompt) for p in found.pictures] == [
        ("00001.jpg", 32.44, None),
        ("00002.jpg", 39.0, None),
    ]
    assert (found.low, found.high) == (0.0, 100.0)


def test_what_is_no_set_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"a data set of agiqa-3k, .*spaq, got 'imagenet'"):
        read_dataset("imagenet", tmp_path)
    for name in DATASETS:
        with pytest.raises(FileNotFoundError, match=r"in .*, got n(one|either)"):
            read_dataset(name, tmp_path)
    with pytest.raises(FileNotFoundError, match=r"the folder of a data set, got .*none: no such folder"):
        read_dataset("spaq", tmp_path / "none")
    (tmp_path / "MOS and Image attribute scores.csv").write_text("Image name,MOS\nx.jpg,1\n")
    with pytest.raises(ValueError, match="targets of spaq, quality, got 'quality'"):
        read_dataset("spaq", tmp_path, targets="quality")


@needs_true_tables
def test_the_true_table_of_agiqa_3k_splits_as_published(tmp_path: Path) -> None:
    """125 of the 597 test names of the split files are in the published test set (the figure of the files' authors)."""
    folder = TRUE_TABLES / "AGIQA-3K"
    with (folder / "data.csv").open(encoding="utf-8-sig", newline="") as file:
        write_pictures(tmp_path, [row["name"] for row in csv.DictReader(file)])

    found = read_dataset("agiqa-3k", folder, tmp_path, ("quality", "alignment"))

    assert (len(found), found.unlabelled, found.targets) == (2982, 0, ("quality", "alignment"))
    assert Counter(p.generator for p in found.pictures).most_common(2) == [("sd1.5", 1200), ("midjourney", 592)]
    published, files = split_by_ratio(found), split_by_column(found)
    assert [len(rows) for rows in (files.train, files.val, files.test)] == [1789, 596, 597]
    assert [len(rows) for rows in (published.train, published.val, published.test)] == [2087, 298, 597]
    assert len(set(published.test) & set(files.test)) == 125
    apart = make_split(found, "prompt:70/10/20")
    prompts = [{found.pictures[row].prompt for row in rows} for rows in (apart.train, apart.val, apart.test)]
    assert sum(map(len, prompts)) == len(set.union(*prompts)) == 300


@needs_true_tables
def test_the_true_table_of_aigcqa_20k(tmp_path: Path) -> None:
    with (TRUE_TABLES / "AIGCQA-20K/info_train.csv").open(encoding="utf-8-sig", newline="") as file:
        write_pictures(tmp_path, [row["name"] for row in csv.DictReader(file)])

    found = read_dataset("aigcqa-20k", TRUE_TABLES / "AIGCQA-20K", tmp_path)

    assert (len(found), len({p.generator for p in found.pictures})) == (14000, 12)
    assert [len(rows) for rows in vars(make_split(found)).values()] == [9800, 1400, 2800]
    assert len(make_split(found, "generator:DALLE3").test) == 350
