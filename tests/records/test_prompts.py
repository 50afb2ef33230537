"""Prompts by picture, from every kind of table that labels are read from."""

import codecs
import json
import os
from pathlib import Path

import pytest

from ma_agiqa_core import MaAgiqaError
from ma_agiqa_core.records.prompts import missing_prompts, read_prompt_lines, read_prompts
from ma_agiqa_core.records.record import CSV_HEADER, Record, csv_line, path_key


def test_csv_and_json_lines_agree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    elsewhere = tmp_path / "elsewhere" / "x.png"
    (tmp_path / "p.csv").write_text(f'\ufeffseed,path,prompt\n1,a.png,"a ""cat"",\nblack"\n2,{elsewhere},猫\n', "utf-8")
    rows = [
        {"path": "sub/../a.png", "prompt": 'a "cat",\nblack'},
        {"path": str(elsewhere), "prompt": "猫", "seed": 2},
    ]
    (tmp_path / "p.jsonl").write_text("\n\n".join(map(json.dumps, rows)), "utf-8")

    expected = {str(tmp_path / "a.png"): 'a "cat",\nblack', str(elsewhere): "猫"}
    assert read_prompts(tmp_path / "p.csv") == expected
    assert read_prompts(tmp_path / "p.jsonl") == expected
    monkeypatch.chdir(tmp_path)
    assert read_prompts(Path("p.csv"))[path_key("a.png")] == 'a "cat",\nblack'


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("semicolons.csv", "path;prompt\na.png;a cat, red\n"),
        ("capitals.csv", 'Path,PROMPT\na.png,"a cat, red"\n'),
        ("spaces.csv", 'path, Prompt \na.png, "a cat, red"\n'),
        ("tabs.tsv", "path\tprompt\na.png\ta cat, red\n"),
        ("tabs.txt", "path\tprompt\na.png\ta cat, red\n"),
        ("excel.csv", "sep=;\r\npath;prompt\r\na.png;a cat, red\r\n"),
        ("begins-and-ends-empty.csv", '\n\npath,prompt,\n,,\na.png,"a cat, red",\n,,\n\n'),
        ("synonym.csv", 'File_Name,prompt\na.png,"a cat, red"\n'),
        ("path-first.csv", 'name,path,prompt\nx,a.png,"a cat, red"\n'),
        ("dot.csv", 'path,prompt\n./a.png,"a cat, red"\nsub/../a.png,"a cat, red"\n'),
        ("list.jsonl", '[{"path": "a.png", "prompt": "a cat, red"}]\n'),
        ("list.json", '[\n {"path": "a.png",\n  "prompt": "a cat, red"}\n]\n'),
        ("one.json", '{"path": "a.png",\n "prompt": "a cat, red"}'),
        ("lines.json", '{"path": "a.png", "Prompt": "a cat, red", "steps": 20, "tags": ["x"]}\n\n'),
    ],
)
def test_all_spellings_say_the_same(tmp_path: Path, name: str, content: str) -> None:
    (tmp_path / name).write_text(content, "utf-8", newline="")
    assert read_prompts(tmp_path / name) == {str(tmp_path / "a.png"): "a cat, red"}


@pytest.mark.parametrize(
    ("mark", "encoding"), [(codecs.BOM_UTF8, "utf-8"), (codecs.BOM_UTF16_LE, "utf-16-le"), (b"\xfe\xff", "utf-16-be")]
)
@pytest.mark.parametrize(("name", "content"), [("p.csv", "path,prompt\na.png,猫\n"), ("p.jsonl", None)])
def test_byte_order_marks(tmp_path: Path, mark: bytes, encoding: str, name: str, content: str | None) -> None:
    text = content or json.dumps({"path": "a.png", "prompt": "猫"}, ensure_ascii=False)
    (tmp_path / name).write_bytes(mark + text.encode(encoding))
    assert read_prompts(tmp_path / name) == {str(tmp_path / "a.png"): "猫"}


def test_spreadsheets(tmp_path: Path) -> None:
    openpyxl = pytest.importorskip("openpyxl")
    book = openpyxl.Workbook()
    for row in (["Path", "Prompt", None], ["a.png", "a cat, red", None], [None] * 3, ["b.png", None, None]):
        book.active.append(row)
    book.save(tmp_path / "p.xlsx")
    assert read_prompts(tmp_path / "p.xlsx") == {str(tmp_path / "a.png"): "a cat, red", str(tmp_path / "b.png"): ""}
    whole = (tmp_path / "p.xlsx").read_bytes()
    (tmp_path / "p.xlsx").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(MaAgiqaError, match=r"Expected a spreadsheet, got .*p\.xlsx"):
        read_prompts(tmp_path / "p.xlsx")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("p.csv", "file,image,prompt\na.png,b.png,x\n", r"got no path, but 'image' and 'file' without it"),
        ("p.csv", "path,text\na.png,x\n", r"path and prompt in .*got no prompt, but 'path', 'text' alone"),
        ("p.csv", "path,Prompt,PROMPT\na.png,x,y\n", r"one column called 'prompt' .*got 'Prompt' and 'PROMPT'"),
        (
            "p.csv",
            "path,prompt\na.png,a red cat, highly detailed, 8k\n",
            r"Expected 2 cells in row 2 of .*, got 4\..*quot",
        ),
        ("p.csv", 'path,prompt\na.png,x\nb.png,"red" cat\n', r"row 3: .*expected after"),
        ("p.csv", 'path,prompt\na.png,x\nb.png,"a cat\nc.png,y\n', r"row 3: unexpected end of data"),
        ("p.csv", "path,prompt\na.png,x\nb.png\n", "Expected 2 cells in row 3 of .*, got 1"),
        ("p.csv", "path,prompt\n,x\n", "row 2 of .*p.csv, got no path"),
        ("p.csv", "path,prompt\n", "header and rows in .*the header alone"),
        ("p.csv", "", "got an empty file"),
        ("p.csv", "path,prompt\na.png,a cat\n./a.png,a dog\n", r"got 'a cat' in row 2 and 'a dog' in row 3"),
        ("p.csv", "path,prompt\na.png,a\0cat\n", r"UTF-8, got .*p\.csv with NUL"),
        ("p.jsonl", '{"path": "a.png", "prompt": 3}\n', "a text as prompt in row 1 of .*, got 3"),
        ("p.jsonl", '\n{"path": "a.png", "prompt": ["x"]}\n', r"a text as prompt in row 2 of .*, got \[\"x\"\]"),
        ("p.jsonl", '{"path": "a.png", "prompt": "x", "prompt": "y"}\n', r"row 1 of .*'prompt' stands 2 times"),
        (
            "p.jsonl",
            '{"path": "a\\u0000.png", "prompt": "x"}\n{"path": "\\ud83d", "prompt": "x"}',
            "path in row 2 of",
        ),
        ("p.jsonl", '["a.png", "x"]\n', r"an object in row 1 of .*, got \"a.png\""),
        ("p.jsonl", "a.png x\n", "an object in row 1 of"),
        ("p.jsonl", "[" * 100_000, "a list of objects in"),
        ("p.json", '[{"path": "a.png", "prompt": "x"}', "a list of objects in"),
        ("p.json", "[]", "Expected rows in"),
        ("p.json", '{"a.png": "x"}', "got no path, but 'a.png' alone"),
        ("p.doc", "", r"Expected prompts in a \.csv or \.jsonl file, got .*p\.doc.*also .*\.xlsx"),
    ],
)
def test_other_content_is_refused(tmp_path: Path, name: str, content: str, message: str) -> None:
    (tmp_path / name).write_text(content, "utf-8")

    with pytest.raises(MaAgiqaError, match=message):
        read_prompts(tmp_path / name)


def test_binary_and_other_encodings_are_refused(tmp_path: Path) -> None:
    for content in (b"\x89PNG\r\n\x1a\n\0\0", "path,prompt\na.png,é\n".encode("latin-1"), b"\xff\xfea"):
        (tmp_path / "p.csv").write_bytes(content)
        with pytest.raises(MaAgiqaError, match=r"Expected prompts in UTF-8, got .*p\.csv.*Save it again as UTF-8"):
            read_prompts(tmp_path / "p.csv")
    with pytest.raises(MaAgiqaError, match=r"table of prompts, got the folder .*\. Name the file in it\."):
        read_prompts(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"table of prompts, got .*none\.csv: no such file"):
        read_prompts(tmp_path / "none.csv")


def test_prompts_to_make_pictures_from(tmp_path: Path) -> None:
    (tmp_path / "p.txt").write_text("a cat\n\n 猫 \n", encoding="utf-16")
    assert read_prompt_lines(tmp_path / "p.txt") == ["a cat", "猫"]
    with pytest.raises(MaAgiqaError, match=r"a file with prompts, got the folder .*\. Name the file in it"):
        read_prompt_lines(tmp_path)
    (tmp_path / "p.txt").write_bytes(b"\x89PNG\0")
    with pytest.raises(MaAgiqaError, match=r"Expected prompts in UTF-8, got .*p\.txt"):
        read_prompt_lines(tmp_path / "p.txt")


def test_a_prompt_of_a_megabyte_and_half_a_character_are_read(tmp_path: Path) -> None:
    long = "a cat, " * 150_000 + "red"
    (tmp_path / "p.csv").write_text(f'path,prompt\na.png,"{long}"\n')
    assert read_prompts(tmp_path / "p.csv") == {str(tmp_path / "a.png"): long}
    (tmp_path / "p.jsonl").write_text('{"path": "a.png", "prompt": "cut \\ud83d"}')
    assert read_prompts(tmp_path / "p.jsonl") == {str(tmp_path / "a.png"): "cut \ud83d"}


def test_only_our_own_csv_has_an_apostrophe_before_formulas(tmp_path: Path) -> None:
    record = Record(str(Path("-a.png")), 1.0, None, 8, 8, "lite@1", None, prompt="=cat", modified=None, digest=None)
    (tmp_path / "ours.csv").write_bytes(CSV_HEADER + csv_line(record))
    assert b"'-a.png" in (tmp_path / "ours.csv").read_bytes()
    assert read_prompts(tmp_path / "ours.csv") == {str(tmp_path / "-a.png"): "=cat"}
    (tmp_path / "theirs.csv").write_text("path,prompt\n'a.png,'twas a cat\n")
    assert read_prompts(tmp_path / "theirs.csv") == {str(tmp_path / "'a.png"): "'twas a cat"}


@pytest.mark.skipif(os.name == "nt", reason="there both are separators")
def test_backslashes_are_those_of_windows_unless_a_file_is_called_so(tmp_path: Path) -> None:
    (tmp_path / "im").mkdir()
    (tmp_path / "p.csv").write_text("path,prompt\nim\\a.png,a cat\n.\\im\\b\\c.png,a dog\n")
    expected = {str(tmp_path / "im/a.png"): "a cat", str(tmp_path / "im/b/c.png"): "a dog"}
    assert read_prompts(tmp_path / "p.csv") == expected
    (tmp_path / "im\\a.png").touch()
    assert str(tmp_path / "im\\a.png") in read_prompts(tmp_path / "p.csv")


@pytest.mark.skipif(os.name == "nt", reason="links need a right of their own there")
def test_a_picture_is_one_however_its_path_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "in")
    monkeypatch.chdir(tmp_path)
    for other in (tmp_path / "in/a.png", "link/a.png", "in/../in//a.png"):
        Path("p.csv").write_text(f"path,prompt\nin/a.png,a cat\n{other},a dog\n")
        with pytest.raises(MaAgiqaError, match=r"one prompt .* got 'a cat' in row 2 and 'a dog' in row 3"):
            read_prompts(Path("p.csv"))
        Path("p.csv").write_text(f"path,prompt\nin/a.png,a cat\n{other},a cat\n")
        assert set(read_prompts(Path("p.csv")).values()) == {"a cat"}
    monkeypatch.setattr(os.path, "normcase", str.lower)  # as on Windows
    Path("p.csv").write_text("path,prompt\na.png,a cat\nA.PNG,a dog\n")
    with pytest.raises(MaAgiqaError, match="one prompt for each picture"):
        read_prompts(Path("p.csv"))


def test_wrong_paths_are_told_from_a_file_for_more_or_fewer_pictures(tmp_path: Path) -> None:
    file, pictures = tmp_path / "p.csv", [tmp_path / "in" / name for name in ("a.png", "b.png", "c.png")]
    by_picture = {path_key(picture): "x" for picture in pictures}
    assert missing_prompts(by_picture, pictures, file) is None
    assert missing_prompts(by_picture, pictures[:1], file) is None, "more prompts than pictures"
    assert missing_prompts({path_key(pictures[1]): "x"}, pictures, file) is None, "fewer prompts than pictures"
    wrong = {path_key(tmp_path / "b.png"): "x", path_key(tmp_path / "z.png"): "x", path_key(pictures[0]): "x"}
    said = missing_prompts(wrong, pictures, file)
    assert said is not None
    assert f"for 2 of 3 pictures, e.g. {pictures[1]}; 2 of its 3 prompts" in said
    assert f"e.g. {tmp_path / 'b.png'}. Paths" in said, "the row that means the same picture"
