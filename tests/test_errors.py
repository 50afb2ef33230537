"""A user's mistake is a `MaAgiqaError`, one line and exit code 2; a bug of ours is anything else, and shows itself."""

import ast
import pickle
from pathlib import Path

import pytest

import ma_agiqa_core
from ma_agiqa_core import MaAgiqaError, PictureError, cli, errors

CORE = Path(ma_agiqa_core.__file__).parent


@pytest.mark.parametrize(
    ("kind", "builtin"),
    [
        (errors.MissingFileError, FileNotFoundError),
        (errors.OutputExistsError, FileExistsError),
        (errors.MissingPackageError, ImportError),
        (errors.MisusedCallbackError, RuntimeError),
        (errors.NotAPictureError, TypeError),
        (errors.PictureError, ValueError),
        (errors.UnusableModelError, ValueError),
    ],
)
def test_errors_are_also_the_builtin_that_fits(kind: type[Exception], builtin: type[Exception]) -> None:
    assert issubclass(kind, MaAgiqaError)
    assert issubclass(kind, builtin)


def test_errors_survive_pickling() -> None:
    again = pickle.loads(pickle.dumps(errors.MissingFileError("Expected a file, got none.")))
    assert (type(again), str(again)) == (errors.MissingFileError, "Expected a file, got none.")
    picture = pickle.loads(pickle.dumps(PictureError(3, "a.png", "file is empty")))
    assert (picture.index, picture.path, picture.reason) == (3, "a.png", "file is empty")


def test_the_core_raises_no_bare_value_error() -> None:
    bare = [
        f"{path.relative_to(CORE)}:{node.lineno}"
        for path in CORE.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Raise)
        and isinstance(node.exc, ast.Call)
        and isinstance(node.exc.func, ast.Name)
        and node.exc.func.id in ("ValueError", "TypeError", "FileNotFoundError", "ImportError")
    ]
    assert bare == []


@pytest.mark.parametrize("bug", [ValueError("not enough values to unpack"), KeyError("width"), ImportError("no nms")])
def test_a_bug_shows_its_traceback(
    bug: Exception, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def broken(*_: object, **__: object) -> None:
        raise bug

    monkeypatch.setattr("ma_agiqa_core.pictures.folders.find_pictures", broken)
    assert cli.run(["score", "."]) == cli.BUG
    printed = capfd.readouterr().err
    assert "Traceback" in printed
    assert type(bug).__name__ in printed
    assert "bug" in printed


def test_a_users_mistake_shows_one_line(capfd: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["score", "nowhere"]) == cli.WRONG_USAGE
    printed = capfd.readouterr().err
    assert "Traceback" not in printed
    assert "nowhere" in printed


@pytest.mark.parametrize("command", ["score", "rank"])
@pytest.mark.parametrize("bug", [AttributeError("no such attribute"), KeyError("width"), TypeError("unhashable")])
def test_a_bug_in_the_scorers_thread_shows_its_traceback(
    command: str, bug: Exception, folder: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def broken(*_: object, **__: object) -> None:
        raise bug

    monkeypatch.setattr("ma_agiqa_core.scorers.lite.LiteScorer.outcomes", broken)
    assert cli.run([command, str(folder / "photos"), "--device", "cpu"]) == cli.BUG
    assert "Traceback" in capfd.readouterr().err
