"""Tables of labels: what is read, found and refused."""

import json
import logging
import os
from pathlib import Path
from typing import Any

import PIL.Image
import pytest

from ma_agiqa_core import MaAgiqaError
from ma_agiqa_core.labels.labelled_set import LabelledPicture, LabelledSet, read_labels, score_columns

HEADER = "name,mos,prompt\n"


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """pictures/ with a.jpg, b.png, sub/c.png, and text.txt."""
    folder = tmp_path / "pictures"
    (folder / "sub").mkdir(parents=True)
    for number, name in enumerate(("a.jpg", "b.png", "sub/c.png")):
        PIL.Image.new("RGB", (8, 8), (number, 2, 3)).save(folder / name)
    (folder / "text.txt").write_text("no picture")
    return folder


@pytest.fixture
def read(tmp_path: Path, images: Path) -> Any:
    """Reads a table of this text."""

    def read(text: str, **options: Any) -> LabelledSet:
        table = tmp_path / "labels.csv"
        table.write_text(text, encoding="utf-8")
        return read_labels(table, images, **({"score_column": "mos"} | options))

    return read


def test_a_table_and_a_folder_become_pictures_in_the_tables_order(read: Any, images: Path) -> None:
    found = read(HEADER + 'sub/c.png,2.5,"a cat, asleep"\na.jpg,1,\n')

    assert found.name == "labels"
    assert found.pictures == (
        LabelledPicture(images / "sub/c.png", "sub/c.png", {"quality": 2.5}, "a cat, asleep"),
        LabelledPicture(images / "a.jpg", "a.jpg", {"quality": 1.0}),
    )
    assert (found.low, found.high, found.unlabelled, found.targets) == (1.0, 2.5, 1, ("quality",))
    assert len(found) == 2


def test_names_are_paths_or_names_anywhere_in_the_folder_with_or_without_ending(read: Any, images: Path) -> None:
    found = read(f"{HEADER}c.png,1,\n{images / 'b.png'},2,\na,3,\n")

    assert [picture.path for picture in found.pictures] == [images / "sub/c.png", images / "b.png", images / "a.jpg"]
    assert found.unlabelled == 0


def test_an_absolute_path_is_the_same_picture(read: Any, images: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(images.parent)
    table = Path("labels.csv")
    table.write_text(f"{HEADER}{images / 'b.png'},2,\n")
    found = read_labels(table, Path("pictures"), score_column="mos")
    assert (found.unlabelled, [picture.path for picture in found.pictures]) == (2, [Path("pictures/b.png")])
    table.write_text(f"{HEADER}b.png,1,\n{images / 'b.png'},2,\n")
    with pytest.raises(ValueError, match="Expected each picture once"):
        read_labels(table, Path("pictures"), score_column="mos")


def test_one_name_for_two_pictures_is_refused(read: Any, images: Path) -> None:
    PIL.Image.new("RGB", (8, 8)).save(images / "c.png")

    assert read(HEADER + "c.png,1,\nsub/c.png,2,\n").pictures[0].path == images / "c.png", "a path comes first"
    PIL.Image.new("RGB", (8, 8)).save(images / "sub/a.png")
    with pytest.raises(ValueError, match=r"one picture called 'a' \(row 2 of .*got 2: .*Write the path within"):
        read(HEADER + "a,1,\n")


@pytest.mark.parametrize(
    ("separator", "name"), [(",", "Image Name"), (";", "image_name"), ("\t", "filename"), (",", "IMG")]
)
def test_usual_separators_and_names_of_columns_are_known(read: Any, separator: str, name: str) -> None:
    lines = [[name, "MOS", "Generator", "Prompt"], ["a.jpg", "1.5", "sd", "x"]]

    [picture] = read("\ufeff" + "\n\n".join(separator.join(line) for line in lines), score_column="mos").pictures

    assert (picture.name, picture.scores, picture.generator, picture.prompt) == ("a.jpg", {"quality": 1.5}, "sd", "x")


def test_columns_can_be_named(read: Any) -> None:
    [picture] = read(
        "x,y,z,w,s\na.jpg,1,a cat,sd,validation\n",
        score_column="y",
        name_column="x",
        prompt_column="z",
        generator_column="w",
        split_column="s",
    ).pictures

    assert (picture.prompt, picture.generator, picture.split) == ("a cat", "sd", "val")


def test_several_targets_and_rows_that_lack_one(read: Any) -> None:
    found = read(
        "name,mos,mos_align\na.jpg,,4\nb.png,2,\nc.png,3,1\n",
        score_column=["mos", "alignment=mos_align"],
        low=0,
        high=5,
    )

    assert [dict(picture.scores) for picture in found.pictures] == [
        {"alignment": 4.0},
        {"quality": 2.0},
        {"quality": 3.0, "alignment": 1.0},
    ]
    assert found.targets == ("quality", "alignment")
    assert found.range_of("alignment") == (0.0, 5.0)
    with pytest.raises(ValueError, match="target of labels, quality, alignment, got 'beauty'"):
        found.range_of("beauty")


def test_the_scale_is_the_datas_own_unless_it_is_given(read: Any) -> None:
    text = "name,q,authenticity\na.jpg,1,10\nb.png,2,30\n"

    own = read(text, score_column=["q", "authenticity"])
    assert (own.low, own.high, own.range_of("quality"), own.range_of("authenticity")) == (1, 2, (1, 2), (10, 30))
    half = read(text, score_column="q", low=0)
    assert (half.low, half.high) == (0.0, 2.0)


def test_a_set_made_by_hand_knows_its_targets_and_scales(tmp_path: Path) -> None:
    pictures = tuple(LabelledPicture(tmp_path, str(i), {"quality": i, "alignment": 2 * i}) for i in range(3))
    made = LabelledSet("made", pictures, 0.0, 5.0)

    assert made.targets == ("quality", "alignment")
    assert (made.range_of("quality"), made.range_of("alignment")) == ((0, 5), (0, 4))


def test_a_row_without_any_score_is_an_unlabelled_picture(read: Any) -> None:
    found = read(HEADER + "a.jpg,1,\nb.png,,\n")

    assert [picture.name for picture in found.pictures] == ["a.jpg"]
    assert found.unlabelled == 2


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a.jpg,good,\n", r"Expected a number as mos in row 2 of .*labels.csv, got 'good'. Leave it empty"),
        ('a.jpg,"3,5",\n', r"as mos in row 2 .*got '3,5'. Write decimals with a dot."),
        ("a.jpg,1,x\nb.png,3,5,x\n", r"Expected 3 cells in row 3 of .*got 4. Write decimals with a dot"),
        ("a.jpg,1\n", r"Expected 3 cells in row 2 of .*got 2"),
        ("a.jpg,nan,\n", r"a finite number as mos in row 2 .*got 'nan'"),
        ("\n\na.jpg,inf,\n", r"a finite number as mos in row 4 .*got 'inf'"),
        ("a.jpg,1_0,\n", "got '1_0'"),
        ("a.jpg,1,\na.jpg,2,\n", r"each picture once, got 'a.jpg' in row 2 and in row 3"),
        ("a.jpg,1,\na,2,\n", r"each picture once, got 'a' in row 2 and in row 3"),
        (",1,x\n", r"a picture's name in row 2"),
        ("a.jpg,,\n", r"Expected scores in mos of .*got none"),
        ("", r"Expected a header and rows in .*got the header alone"),
        ("a.jpg,1,\nb.png,-1e38,\n", r"Expected mos from -1e\+09 to 1e\+09 in row 3 .*got '-1e38'"),
    ],
)
def test_rows_that_cannot_be_used_are_named(read: Any, text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        read(HEADER + text)


def test_scores_out_of_the_scale_are_named(read: Any) -> None:
    with pytest.raises(ValueError, match=r"Expected mos from 0 to 5 in row 3 .*got 5.1"):
        read(HEADER + "a.jpg,5,\nb.png,5.1,\n", low=0, high=5)


def test_missing_pictures_are_counted_and_the_first_five_named(read: Any, images: Path) -> None:
    rows = "".join(f"no{number}.jpg,1,\n" for number in range(7))

    with pytest.raises(FileNotFoundError) as refusal:
        read(HEADER + "a.jpg,1,\n" + rows)
    assert str(refusal.value) == (
        f"Expected a picture for each labelled row in {images}, got none for 7 of 8: "
        "no0.jpg, no1.jpg, no2.jpg, no3.jpg, no4.jpg and 2 more."
    )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"score_column": "score"}, r"the column 'score' in .*got name, mos, prompt"),
        ({"name_column": "file"}, r"the column 'file' in"),
        ({"split_column": "part"}, r"the column 'part' in"),
        ({"split_column": "prompt"}, r"train, val or test as prompt in row 2 .*got 'a cat'"),
        ({"score_column": ["mos", "prompt"]}, r"one column for each target, got 'mos' and 'prompt' for quality"),
    ],
)
def test_columns_that_are_not_there_are_named(read: Any, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        read(HEADER + "a.jpg,1,a cat\n", **options)


def test_without_a_column_of_names_it_asks_for_one(read: Any) -> None:
    with pytest.raises(ValueError, match=r"with the pictures' names in .*got x, mos. Say which it is .*--name-column"):
        read("x,mos\na.jpg,1\n")


def test_tables_and_folders_that_are_not_there(tmp_path: Path, images: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"table of labels, got .*none.csv: no such file"):
        read_labels(tmp_path / "none.csv", images, score_column="mos")
    (tmp_path / "labels.csv").write_text(HEADER + "a.jpg,1,\n")
    with pytest.raises(FileNotFoundError, match=r"folder of pictures, got .*none: no such folder"):
        read_labels(tmp_path / "labels.csv", tmp_path / "none", score_column="mos")
    (tmp_path / "labels.mat").write_text("")
    with pytest.raises(ValueError, match=r"a .csv, .tsv or .xlsx file, got .*labels.mat"):
        read_labels(tmp_path / "labels.mat", images, score_column="mos")
    (tmp_path / "latin.csv").write_bytes((HEADER + "a.jpg,1,é\n").encode("latin-1"))
    with pytest.raises(ValueError, match=r"in UTF-8, got .*latin.csv"):
        read_labels(tmp_path / "latin.csv", images, score_column="mos")
    (tmp_path / "twice.csv").write_text("name,mos,mos\na.jpg,1,2\n")
    with pytest.raises(ValueError, match=r"each column once in .*got 'mos' 2 times"):
        read_labels(tmp_path / "twice.csv", images, score_column="mos")


def test_spreadsheets_say_the_same(tmp_path: Path, images: Path) -> None:
    openpyxl = pytest.importorskip("openpyxl")
    book = openpyxl.Workbook()
    for row in (["Image name", "MOS", None], ["a.jpg", 3.25, None], [None, None, None], ["b.png", 4, None]):
        book.active.append(row)
    book.save(tmp_path / "labels.xlsx")

    found = read_labels(tmp_path / "labels.xlsx", images, score_column="MOS")

    assert [(picture.name, picture.scores["quality"]) for picture in found.pictures] == [("a.jpg", 3.25), ("b.png", 4)]
    book.active.append(["a.jpg", "3,5"])
    book.save(tmp_path / "labels.xlsx")
    with pytest.raises(ValueError, match=r"row 5 .*got '3,5'. Write decimals with a dot"):
        read_labels(tmp_path / "labels.xlsx", images, score_column="MOS")
    (tmp_path / "broken.xlsx").write_bytes(b"PK no zip")
    with pytest.raises(ValueError, match=r"a spreadsheet, got .*broken.xlsx, which cannot be read"):
        read_labels(tmp_path / "broken.xlsx", images, score_column="MOS")


def test_a_missing_openpyxl_names_its_pip_line(tmp_path: Path, images: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "openpyxl", None)
    (tmp_path / "labels.xlsx").write_bytes(b"")

    with pytest.raises(ImportError, match=r'pip install "ma-agiqa\[train\]"'):
        read_labels(tmp_path / "labels.xlsx", images, score_column="MOS")


def test_a_folder_is_no_table(images: Path) -> None:
    with pytest.raises(ValueError, match=r"got the folder .*pictures. Name the file in it, or.* --dataset"):
        read_labels(images, images, score_column="mos")


def test_constant_scores_are_said_and_read(read: Any, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        found = read(HEADER + "a.jpg,3,\nb.png,3,\n")

    assert (found.low, found.high) == (3.0, 3.0)
    assert "every score in mos is 3: there is no correlation with them" in caplog.text


def test_which_column_is_which_target() -> None:
    assert score_columns("mos") == {"quality": "mos"}
    assert score_columns(["mos_quality", "alignment=mos_align"]) == {"quality": "mos_quality", "alignment": "mos_align"}
    assert score_columns(["alignment", "quality = q"]) == {"alignment": "alignment", "quality": "q"}
    assert score_columns({"authenticity": "a"}) == {"authenticity": "a"}
    for wrong, message in (
        (["a", "b"], "'a' and 'b' for quality. Write e.g. alignment=b."),
        ({"beauty": "b"}, "target of quality, alignment, authenticity, got 'beauty'"),
        ("alignment=", "a column for alignment, got an empty name"),
        ([], "Expected a column with scores, got none."),
    ):
        with pytest.raises(ValueError, match=message):
            score_columns(wrong)


def test_a_wrong_folder_of_pictures_is_told_from_a_missing_picture(read: Any, tmp_path: Path, images: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"for 1 of 1: x\.png\. .*called e\.g\. a\.jpg; or another"):
        read(HEADER + "x.png,1,\n")
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match="where no pictures are"):
        read_labels(tmp_path / "labels.csv", tmp_path / "empty", score_column="mos")
    with pytest.raises(FileNotFoundError, match=r"labels\.csv: which is a file\. Name the folder"):
        read_labels(tmp_path / "labels.csv", tmp_path / "labels.csv", score_column="mos")


def test_labels_come_in_all_that_prompts_come_in(tmp_path: Path, images: Path) -> None:
    rows = [{"name": "a.jpg", "mos": 1.5, "prompt": "x"}, {"name": "sub\\c.png", "mos": 2, "prompt": None}]
    (tmp_path / "labels.json").write_text(json.dumps(rows, indent=1))
    (tmp_path / "labels.jsonl").write_text("\n".join(map(json.dumps, rows)))
    (tmp_path / "utf16.csv").write_text("sep=;\nname;mos;prompt\na.jpg;1.5;x\nsub\\c.png;2;\n", encoding="utf-16")
    for name in ("labels.json", "labels.jsonl", "utf16.csv"):
        found = read_labels(tmp_path / name, images, score_column="mos")
        assert [(picture.path, picture.scores["quality"], picture.prompt) for picture in found.pictures] == [
            (images / "a.jpg", 1.5, "x"),
            (images / "sub/c.png", 2.0, None),
        ]
    (tmp_path / "labels.json").write_text('[{"name": "a.jpg", "mos": [1, 2]}]')
    with pytest.raises(MaAgiqaError, match=r"a number as mos in row 1 .*got '\[1, 2\]'"):
        read_labels(tmp_path / "labels.json", images, score_column="mos")


@pytest.mark.skipif(os.name == "nt", reason="there a backslash is a separator")
def test_a_file_with_a_backslash_in_its_name_is_found(read: Any, images: Path) -> None:
    PIL.Image.new("RGB", (8, 8)).save(images / "sub\\c.png")
    found = read(HEADER + "sub\\c.png,1,\nsub/c.png,2,\n")
    assert [picture.path for picture in found.pictures] == [images / "sub\\c.png", images / "sub/c.png"]
