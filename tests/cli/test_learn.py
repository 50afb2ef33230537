"""`ma-agiqa learn`: from what the report exports to a scorer that ranks."""

import json
from pathlib import Path

import pytest

from ma_agiqa_core.cli import SOME_FAILED, WRONG_USAGE, run


def learn(folder: Path, out: Path, *more: str) -> int:
    return run(
        ["learn", "--liked", str(folder / "liked"), "--disliked", str(folder / "disliked"), "--out", str(out), *more]
    )


def test_learns_and_ranks(warm_and_cold, tmp_path, capsys):
    out = tmp_path / "mine.safetensors"
    assert learn(warm_and_cold, out) == 0
    said = capsys.readouterr().out
    assert "12 likes, 12 dislikes" in said
    assert f"--model {out}" in said
    assert run(["rank", str(warm_and_cold), "--model", str(out), "--json"]) == 0
    ranked = [record["path"] for record in json.loads(capsys.readouterr().out)["kept"]]
    assert sum("/liked/" in path for path in ranked[:12]) >= 10


def test_json_and_missing_pictures(warm_and_cold, tmp_path, capsys):
    picks = tmp_path / "picks.json"
    picks.write_text(json.dumps({"format": 1, "picks": [{"path": "/gone.png", "mark": "like"}]}))
    assert learn(warm_and_cold, tmp_path / "m.safetensors", str(picks), "--json") == SOME_FAILED
    said = json.loads(capsys.readouterr().out)
    assert said["missing"] == ["/gone.png"]
    assert said["evidence"]["likes"] == 12
    assert said["model"]["name"] == "m"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--out", "m.safetensors"], "Expected picks, got none"),
        (["none.json", "--out", "m.safetensors"], "no such file"),
        (["none.json", "--out", "m.onnx"], r"ending in .safetensors"),
        (["none.json"], "--out"),
    ],
)
def test_mistakes_are_one_line(tmp_path, monkeypatch, capsys, arguments, message):
    monkeypatch.chdir(tmp_path)
    assert run(["learn", *arguments]) == WRONG_USAGE
    said = capsys.readouterr().err
    assert message in said
    assert len(said.splitlines()) == 1
    assert list(tmp_path.iterdir()) == []
