"""The node pack as ComfyUI imports it, against the fakes in `fakes/`, or against the real ComfyUI.

The real modules are taken where `MA_AGIQA_TEST_NODES_AGAINST=comfyui` and `COMFYUI_PATH` names a checkout.
`test_against_comfyui.py` runs all of this folder so in a process of its own, since a process can hold only one of the
two. The fakes are for schemas, sockets and scorers; what samples is marked with `comfyui_only`.
"""

import importlib
import importlib.util
import inspect
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

ROOT = Path(__file__).parents[2]
HERE = Path(__file__).parent
FAKES = HERE / "fakes"
PACK = "ma_agiqa_pack"  # the name of the package that ComfyUI would make of the folder's path
IS_REAL = os.environ.get("MA_AGIQA_TEST_NODES_AGAINST") == "comfyui"
_OF_COMFYUI = ("comfy", "comfy_api", "comfy_execution", "folder_paths", "latent_preview")

collect_ignore = ["fakes"]


@pytest.fixture(scope="session")
def published_archive() -> ModuleType:
    """Which files the registry's archive holds; `copy_published(folder)` installs it there."""
    import published_archive

    return published_archive


@pytest.fixture(scope="session")
def front_end_tools() -> ModuleType:
    """ComfyUI's front end in a browser."""
    import front_end

    return front_end


@pytest.fixture(scope="session")
def workflow_to_api() -> ModuleType:
    """Makes prompts of workflows."""
    import workflow_to_api

    return workflow_to_api


@pytest.fixture(scope="session")
def comfyui(
    tmp_path_factory: pytest.TempPathFactory,
    tiny_models: ModuleType,
    tiny_checkpoint: ModuleType,
    published_archive: ModuleType,
) -> Iterator[Any]:
    """A running ComfyUI with the published pack and small random models; see `comfyui_server.ComfyuiServer`."""
    if "COMFYUI_PATH" not in os.environ:
        pytest.skip("COMFYUI_PATH names no checkout of ComfyUI")
    pytest.importorskip("aiohttp", reason="ComfyUI's requirements are not installed: there is no aiohttp")
    base = tmp_path_factory.mktemp("comfyui")
    models = base / "models"
    tiny_checkpoint.write_tiny_checkpoint(models / "checkpoints" / "tiny.safetensors")
    tiny_checkpoint.write_tiny_taesd(models / "vae_approx")
    tiny_models.write_clip(models / "ma_agiqa" / "tiny-clip")
    tiny_models.write_checkpoint(models / "ma_agiqa" / "visual.safetensors", semantic_dim=0)
    tiny_models.write_clip(base / "elsewhere" / "scorers" / "other-clip", seed=1)
    (base / "extra_model_paths.yaml").write_text(f"mine:\n  base_path: {base / 'elsewhere'}\n  ma_agiqa: scorers\n")
    broken = base / "custom_nodes" / "broken-ma-agiqa"  # as after a download that was cut off
    broken.mkdir(parents=True)
    shutil.copy(ROOT / "__init__.py", broken)
    checkout = Path(os.environ["COMFYUI_PATH"]).resolve()
    from comfyui_server import comfyui_server

    with comfyui_server(checkout, base, published_archive.copy_published) as server:
        yield server


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "comfyui_only: needs ComfyUI's own sampler or loader")


def pytest_runtest_setup(item: pytest.Item) -> None:
    if not IS_REAL and item.get_closest_marker("comfyui_only"):
        pytest.skip("needs the real ComfyUI")


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def comfy_modules(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Puts the fakes, or the real ComfyUI, where `import comfy` finds them; says which: "fakes" or "comfyui"."""
    base = tmp_path_factory.mktemp("comfyui")
    root = Path(os.environ["COMFYUI_PATH"]) if IS_REAL else FAKES
    sys.path.insert(0, str(root))
    sys.modules.pop("comfy", None)  # pytest's name for this project, where its folder is called so
    try:
        if IS_REAL:
            _import_comfyui(base)
        else:
            _point_fakes_to(base)
        yield "comfyui" if IS_REAL else "fakes"
    finally:
        sys.path.remove(str(root))
        for name in [name for name in sys.modules if name.partition(".")[0] in (*_OF_COMFYUI, PACK)]:
            del sys.modules[name]


@pytest.fixture(scope="session")
def pack(comfy_modules: str) -> ModuleType:
    """The root package, imported by its path as ComfyUI does; its core is not the installed one."""
    spec = importlib.util.spec_from_file_location(PACK, ROOT / "__init__.py", submodule_search_locations=[str(ROOT)])
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[PACK] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def pack_module(pack: ModuleType) -> Callable[[str], Any]:
    """Imports a module of the pack: `pack_module("nodes.sockets.images")`, `pack_module("ma_agiqa_core")`."""
    return lambda name: importlib.import_module(f"{PACK}.{name}")


@pytest.fixture
def run_node(comfy_modules: str) -> Callable[..., Any]:
    """Executes a node class as ComfyUI does, in inference mode, on a locked clone of the class.

    `run_node(Node, images=batch, top_k=2)` returns its NodeOutput. Inputs left out get their defaults. For nodes with
    `is_input_list` every input becomes a list; a list is taken as the list that arrives.
    `hidden={"unique_id": ..., "prompt": ..., "extra_pnginfo": ...}` fills `cls.hidden`.
    """
    from comfy_api.internal import make_locked_method_func
    from comfy_api.latest import io

    def run(node: Any, hidden: dict[str, Any] | None = None, **inputs: Any) -> Any:
        schema = node.GET_SCHEMA()
        known = {given.id: given for given in schema.inputs or []}
        assert not (strange := set(inputs) - set(known)), f"{schema.node_id} has no inputs {sorted(strange)}"
        for name, given in known.items():
            if name not in inputs and getattr(given, "default", None) is not None:
                inputs[name] = given.default
        missing = [name for name, given in known.items() if name not in inputs and not given.optional]
        assert not missing, f"{schema.node_id} needs the inputs {missing}"
        if schema.is_input_list:
            inputs = {name: value if isinstance(value, list) else [value] for name, value in inputs.items()}
        clone = node.PREPARE_CLASS_CLONE(_hidden({io.Hidden[name]: value for name, value in (hidden or {}).items()}))
        with torch.inference_mode():
            return make_locked_method_func(node, "EXECUTE_NORMALIZED", clone)(**inputs)

    return run


@pytest.fixture(scope="session")
def tiny_checkpoint() -> ModuleType:
    """Writes files that ComfyUI's own loaders take: a checkpoint, a TAESD."""
    import tiny_checkpoint

    return tiny_checkpoint


@pytest.fixture(scope="session")
def tiny_diffusion(comfy_modules: str) -> ModuleType:
    """A diffusion model of random numbers for ComfyUI's sampler, its conditioning and its VAE."""
    import tiny_diffusion

    return tiny_diffusion


@pytest.fixture
def progress(comfy_modules: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[tuple[float, float, Any]]]:
    """What progress bars show while the test runs: (value, total, node id)."""
    import comfy.utils

    for throttle in ("PROGRESS_THROTTLE_MIN_INTERVAL", "PROGRESS_THROTTLE_MIN_PERCENT"):  # of newer versions
        monkeypatch.setattr(comfy.utils, throttle, 0, raising=False)
    shown: list[tuple[float, float, Any]] = []
    before = comfy.utils.PROGRESS_BAR_HOOK
    comfy.utils.set_progress_bar_global_hook(
        lambda value, total, preview, node_id=None: shown.append((value, total, node_id))
    )
    yield shown
    comfy.utils.set_progress_bar_global_hook(before)


@pytest.fixture
def managed(pack_module: Callable[[str], Any]) -> Callable[..., Any]:
    """Makes a SCORER of a function of pictures: `managed(lambda images, prompts: [...])`; the mean by default."""

    def make(fn: Callable[[Any, Any], Any] | None = None, **info: Any) -> Any:
        core = pack_module("ma_agiqa_core")
        mean = lambda images, prompts: [float(image.mean()) for image in images]  # noqa: E731
        scorer = core.CallableScorer(fn or mean, **{"name": "mean", **info})
        return pack_module("nodes.scorers.managed_scorer").ManagedScorer(scorer, identity=scorer.info.name)

    return make


@pytest.fixture
def batch() -> torch.Tensor:
    """Five pictures [5, 24, 32, 3], each of one grey: number 3 is the brightest, then 0, 4, 1, 2."""
    greys = torch.tensor([0.7, 0.3, 0.1, 0.9, 0.5])
    return greys[:, None, None, None].expand(5, 24, 32, 3).contiguous()


def _hidden(values: dict[Any, Any]) -> dict[Any, Any]:
    """As the version of ComfyUI wants them: one dictionary among others since 0.4."""
    from comfy_api.latest import io

    wants_more = "v3_data" in inspect.signature(io.ComfyNode.PREPARE_CLASS_CLONE).parameters
    return {"hidden_inputs": values} if wants_more else values


def _import_comfyui(base: Path) -> None:
    """Imports ComfyUI's modules with a command line of their own: on the CPU, all folders under `base`."""
    before, sys.argv = sys.argv, ["main.py", "--cpu", "--base-directory", str(base)]
    try:
        import comfy.options

        comfy.options.enable_args_parsing()
        import comfy.cli_args
        import comfy.model_management
        import folder_paths  # noqa: F401
    finally:
        sys.argv = before


def _point_fakes_to(base: Path) -> None:
    import folder_paths

    folder_paths.base_path = str(base)
    folder_paths.models_dir = str(base / "models")
    folder_paths.folder_names_and_paths = {
        "vae_approx": ([str(base / "models" / "vae_approx")], {".safetensors", ".pth"})
    }
    for kind in ("output", "temp", "input", "user"):
        setattr(folder_paths, f"{kind}_directory", str(base / kind))
