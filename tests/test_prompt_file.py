"""Prompts by picture, from CSV and JSON Lines."""

import json
from pathlib import Path

import pytest

from ma_agiqa_core.prompt_file import read_prompts
from ma_agiqa_core.records import path_key


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
    ("name", "content", "message"),
    [
        ("p.csv", "file,prompt\na.png,x\n", r"row 1 is .*\"file\": \"a.png\""),
        ("p.csv", "path,prompt\na.png,x\nb.png\n", "row 2 is"),
        ("p.csv", "path,prompt\n,x\n", "row 1 is"),
        ("p.jsonl", '{"path": "a.png", "prompt": 3}\n', "row 1 is"),
        ("p.jsonl", '["a.png", "x"]\n', "Expected path and prompt in every row"),
        ("p.jsonl", "a.png x\n", "Expected path and prompt in every row"),
        ("p.txt", "", r"Expected prompts in a \.csv or \.jsonl file, got .*p\.txt"),
    ],
)
def test_other_content_is_refused(tmp_path: Path, name: str, content: str, message: str) -> None:
    (tmp_path / name).write_text(content)

    with pytest.raises(ValueError, match=message):
        read_prompts(tmp_path / name)
