"""Fixtures: pictures, a scorer that needs no weights, small random models in their published layouts."""

import importlib.util
import os
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

# Workers share the cores: torch and numpy in each of them, and in what it starts, would otherwise take all of them.
# They read this when they are imported. The process that starts the workers sets nothing, for they inherit it.
if "PYTEST_XDIST_WORKER" in os.environ:
    share = (os.cpu_count() or 1) // int(os.environ["PYTEST_XDIST_WORKER_COUNT"])
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, share)))

import numpy as np
import PIL.Image
import pytest

pytest_plugins = ["generation_fixtures", "picks_fixtures", "semantic_fixtures", "training_fixtures"]  # in tests/support

LoadModule = Callable[[Path], ModuleType]

# A shell starts background jobs with Ctrl-C ignored, and children inherit that: the tests of Ctrl-C need it back.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True)
def torch_as_it_was() -> Iterator[None]:
    """A test that leaves gradients off, or another default dtype, fails itself and not one long after it."""
    yield
    if "torch" in sys.modules:
        import torch

        state = torch.is_grad_enabled(), torch.is_inference_mode_enabled(), torch.get_default_dtype()
        torch.set_grad_enabled(True)
        torch.set_default_dtype(torch.float32)
        assert state == (True, False, torch.float32)


@pytest.fixture(scope="session")
def load_module() -> LoadModule:
    """Imports a file by its path, once: the tests' folders, examples and benchmarks are no packages."""

    def load(path: Path) -> ModuleType:
        if path.stem not in sys.modules:
            spec = importlib.util.spec_from_file_location(path.stem, path)
            assert spec is not None
            assert spec.loader is not None
            sys.modules[path.stem] = module = importlib.util.module_from_spec(spec)
            spec.loader.exec_module(module)
        return sys.modules[path.stem]

    return load


@pytest.fixture(scope="module")
def small_crops() -> Iterator[None]:
    """lite looks at crops of 48 px instead of 192: its description of small pictures then costs a tenth."""
    from ma_agiqa_core.scorers.lite import crop_network

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(crop_network, "CROP", 48)
        yield


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
    import brightness_cli

    from ma_agiqa_core.cli import scoring_run

    monkeypatch.setattr(scoring_run, "load_scorer", brightness_cli.load_scorer)
    return brightness_cli


@pytest.fixture
def run(brightness: ModuleType, capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """Runs a command line in this process; gives its exit code, stdout and stderr."""
    from ma_agiqa_core import cli

    def run(*arguments: object) -> tuple[int, str, str]:
        code = cli.run([str(argument) for argument in arguments])
        output = capsys.readouterr()
        return code, output.out, output.err

    return run


@pytest.fixture(scope="session")
def chromium_tools() -> ModuleType:
    """Opens a browser."""
    import chromium

    return chromium


@pytest.fixture(scope="session")
def tiny_models() -> ModuleType:
    import tiny_models

    return tiny_models


@pytest.fixture(scope="session")
def owl_folder(tiny_models: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small mPLUG-Owl2 in the published layout, width 64."""
    return tiny_models.write_owl(tmp_path_factory.mktemp("models") / "owl")


@pytest.fixture(scope="session")
def checkpoint(tiny_models: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small MA-AGIQA checkpoint for semantic vectors of width 64."""
    return tiny_models.write_checkpoint(tmp_path_factory.mktemp("checkpoint") / "tiny.safetensors", 64)


@pytest.fixture(scope="session")
def visual_checkpoint(tiny_models: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small MA-AGIQA checkpoint of the visual expert alone."""
    return tiny_models.write_checkpoint(tmp_path_factory.mktemp("checkpoint") / "visual.safetensors", 0)


@pytest.fixture(scope="session")
def noise_pictures() -> list[np.ndarray]:
    """Five random pictures of unlike sizes, (H, W, 3) uint8."""
    random = np.random.default_rng(0)
    sizes = [(40, 30), (64, 64), (17, 90), (64, 64), (100, 80)]
    return [random.integers(0, 256, (*size, 3), dtype=np.uint8) for size in sizes]
