"""Fixtures for the command line's tests: pictures, and a scorer that needs no weights."""

import importlib.util
import signal
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import PIL.Image
import pytest

# A shell starts background jobs with Ctrl-C ignored, and children inherit that: the tests of Ctrl-C need it back.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

BRIGHTNESS_CLI = Path(__file__).with_name("brightness_cli.py")


@pytest.fixture(scope="session")
def make_picture() -> Callable[[Path, int], Path]:
    """Writes a grey picture of 12 × 8 pixels and gives its path back."""

    def make(path: Path, brightness: int) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        PIL.Image.new("RGB", (12, 8), (brightness,) * 3).save(path)
        return path

    return make


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, make_picture: Callable[[Path, int], Path]) -> Path:
    """The working directory; photos/ holds a, b and sub/c.png of brightness 51, 204 and 102, and broken.png."""
    monkeypatch.chdir(tmp_path)
    for name, brightness in (("a", 51), ("b", 204), ("sub/c", 102)):
        make_picture(tmp_path / "photos" / f"{name}.png", brightness)
    (tmp_path / "photos" / "broken.png").write_bytes(b"no picture")
    return tmp_path


@pytest.fixture
def brightness(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """Scores by mean brightness in this process."""
    spec = importlib.util.spec_from_file_location("brightness_cli", BRIGHTNESS_CLI)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    from ma_agiqa_core import scoring_run

    monkeypatch.setattr(scoring_run, "load_scorer", module.load_scorer)
    return module


@pytest.fixture
def run(brightness: ModuleType, capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """Runs a command line in this process; gives its exit code, stdout and stderr."""
    from ma_agiqa_core import cli

    def run(*arguments: object) -> tuple[int, str, str]:
        code = cli.run([str(argument) for argument in arguments])
        output = capsys.readouterr()
        return code, output.out, output.err

    return run
