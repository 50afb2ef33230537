"""`score --engine`, and `rank` of the parts that it writes."""

import json
import socket
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest
from brightness_judge import judge
from scale_fixtures import rows_of, shade_of, write_pictures

from ma_agiqa_core.cli import run
from ma_agiqa_core.errors import MaAgiqaError
from ma_agiqa_core.scale import judges


@pytest.fixture(autouse=True)
def _brightness(monkeypatch: pytest.MonkeyPatch) -> None:
    """The command line loads judges that need no weights."""

    def load(model: str, **options: object) -> object:
        if model == "missing":
            raise MaAgiqaError("Expected a known model, got 'missing'.")
        return judge("brightness" if model == "lite" else model)

    monkeypatch.setattr(judges, "load_scorer", load)


def test_score_then_rank(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_pictures(tmp_path / "in", 200)
    assert run(["score", "in", "--engine", "local"]) == 0
    assert "200 pictures scored by lite" in (err := capsys.readouterr().err)
    assert "Parts: scores" in err
    assert run(["score", "in", "--engine", "local", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["scored"], told["already"], told["out"]) == (0, 200, "scores")

    assert run(["rank", "scores", "--top", "1%", "--json", "--report", "r.html", "--copy-best", "best"]) == 0
    printed = capsys.readouterr()
    answer = json.loads(printed.out)
    best = sorted((shade_of(number) for number in range(200)), reverse=True)[:2]
    assert [round(255 * record["score"]) for record in answer["kept"]] == best
    assert len(answer["rejected"]) == 198
    assert answer["model"]["name"] == "brightness"
    assert "200 pictures in scores: 2 kept, 198 rejected, 0 failed." in printed.err
    assert len(list((tmp_path / "best").iterdir())) == 2
    assert "brightness" in (tmp_path / "r.html").read_text("utf-8")

    assert run(["rank", "scores/", "--min-score", "0.5"]) == 0
    assert run(["rank", "scores", "--model", "nope"]) == 2
    assert "Expected a judge of the parts, brightness, got 'nope'" in capsys.readouterr().err


def test_a_table_needs_no_engine_named(tmp_path, capsys):
    paths = [str(path) for path in write_pictures(tmp_path / "in", 3)]
    pyarrow.parquet.write_table(
        pyarrow.table({"path": [*paths, "none.png"], "id": list("abcd")}), tmp_path / "t.parquet"
    )
    out = tmp_path / "out"
    assert run(["score", str(tmp_path / "t.parquet"), "--id", "id", "--out", str(out), "--report", f"{out}.html"]) == 1
    assert {row["key"]: row["error"] for row in rows_of(out)} == {**dict.fromkeys("abc"), "d": "no such file"}
    assert "3 pictures scored by lite" in capsys.readouterr().err
    assert "no such file" in Path(f"{out}.html").read_text("utf-8")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["score", "in", "--engine", "local", "--out", "x.csv"], "Expected a folder for the parts"),
        (["score", "in", "--engine", "local", "--model", "missing"], "got 'missing'"),
        (["score", "nowhere", "--engine", "local"], "does not exist"),
        (["score", "s3://bucket/x", "--offline"], "got s3://bucket/x"),
        (["rank", "in", "--top", "0%"], "Expected a whole number, or a share such as 1%, got '0%'"),
        (["rank", "in", "--top", "0"], "Expected at least 1, got 0"),
        (["rank", "in", "--top", "x"], "got 'x'"),
    ],
)
def test_mistakes(tmp_path, capsys, monkeypatch, arguments, message):
    monkeypatch.chdir(tmp_path)
    write_pictures(tmp_path / "in", 1)
    assert run(arguments) == 2
    assert message in capsys.readouterr().err


def test_a_share_of_a_folder(tmp_path, capsys, monkeypatch):
    from ma_agiqa_core.cli import scoring_run

    monkeypatch.setattr(scoring_run, "load_scorer", lambda model, **options: judge())
    write_pictures(tmp_path, 10)
    assert run(["rank", str(tmp_path), "--top", "20%", "--json"]) == 0
    assert len(json.loads(capsys.readouterr().out)["kept"]) == 2


def test_offline_opens_no_connection(tmp_path, monkeypatch, capsys):
    """A library that tries is refused, and afterwards it may again."""
    tried: list[str] = []

    def load(model: str, **options: object) -> object:
        if model == "asks":
            socket.getaddrinfo("huggingface.co", 443)
        if model == "connects":
            socket.create_connection(("192.0.2.1", 443), timeout=0.01)
        listening = socket.socket()
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        socket.create_connection(listening.getsockname()).close()  # this machine
        tried.append(str(options.get("local_files_only")))
        return judge()

    monkeypatch.setattr(judges, "load_scorer", load)
    write_pictures(tmp_path / "in", 1)
    for number, model in enumerate(("asks", "connects")):
        out = str(tmp_path / f"out{number}")
        assert (
            run(["score", str(tmp_path / "in"), "--engine", "local", "--offline", "--model", model, "--out", out]) == 2
        )
        assert "Expected no network, as --offline says, got a connection to" in capsys.readouterr().err
    arguments = ["score", str(tmp_path / "in"), "--engine", "local", "--offline", "--out", str(tmp_path / "out")]
    assert run(arguments) == 0
    assert tried == ["True"]
    with socket.socket() as free:
        free.settimeout(0.001)
        with pytest.raises(OSError, match=r"."):  # not refused any more, and it leads nowhere: RFC 5737
            free.connect(("192.0.2.1", 9))


def test_offline_needs_no_sockets_at_all(tmp_path, monkeypatch, capsys):
    """With every socket broken, the scorer in the package still scores."""

    def broken(*given: object, **options: object) -> None:
        raise AssertionError("a socket was opened")

    monkeypatch.undo()
    monkeypatch.setattr(socket, "socket", broken)
    monkeypatch.setattr(socket, "create_connection", broken)
    monkeypatch.setattr(socket, "getaddrinfo", broken)
    write_pictures(tmp_path / "in", 2)
    for arguments in (["score"], ["rank"], ["score", "--engine", "local", "--out", str(tmp_path / "out")]):
        command, *options = arguments
        assert run([command, str(tmp_path / "in"), "--offline", "--device", "cpu", *options]) == 0
    assert run(["models", "--all"]) == 0
    capsys.readouterr()
    assert run(["rank", str(tmp_path / "in"), "--offline", "--model", "clip:nobody/nothing"]) == 2
    assert "Expected 'nobody/nothing' on this machine" in capsys.readouterr().err


def test_urls_in_a_table_are_not_followed_offline(tmp_path):
    pyarrow.parquet.write_table(pyarrow.table({"url": ["https://example.org/a.png"]}), tmp_path / "t.parquet")
    assert run(["score", str(tmp_path / "t.parquet"), "--offline", "--out", str(tmp_path / "out")]) == 1
    (row,) = rows_of(tmp_path / "out")
    assert row["error"] == "it lies at a URL, and the network is forbidden"


def test_several_judges_with_percentiles_of_ones_own(tmp_path, capsys):
    write_pictures(tmp_path / "in", 20)
    scale = tmp_path / "scale.json"
    models = ["--model", "lite", "--model", "stumbles"]
    assert run(["score", str(tmp_path / "in"), "--engine", "local", "--out", str(tmp_path / "out"), *models]) == 1
    rows = rows_of(tmp_path / "out")
    assert {"brightness", "stumbles"} <= set(rows[0])
    scale.write_text("{}", "utf-8")
    arguments = ["score", str(tmp_path / "in"), "--engine", "local", "--out", str(tmp_path / "other")]
    assert run([*arguments, "--percentiles", str(scale)]) == 2
    assert "Expected" in capsys.readouterr().err
