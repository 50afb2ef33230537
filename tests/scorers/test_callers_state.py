"""What the program around a scorer has set in torch changes neither its scores nor what is kept of them."""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch.nn.attention import SDPBackend, sdpa_kernel

from ma_agiqa_core import CallableScorer, EnsembleScorer, MaAgiqaError, Scorer, load_scorer
from ma_agiqa_core.checkpoint import load_checkpoint, save_checkpoint
from ma_agiqa_core.compute import caller_state
from ma_agiqa_core.compute.caller_state import as_loaded, autocasts
from ma_agiqa_core.generation.best_of.lockstep import run_in_lockstep
from ma_agiqa_core.metrics import srcc
from ma_agiqa_core.preprocess import visual_pixels
from ma_agiqa_core.scorers.lite import LITE_WEIGHTS, statistics
from ma_agiqa_core.scorers.lite.network import LiteNetwork
from ma_agiqa_core.scorers.lite.student import StudentNetwork
from ma_agiqa_core.scorers.scorer import as_scores
from ma_agiqa_core.semantic import SemanticExtractor
from ma_agiqa_core.semantic.cache import SemanticCache
from ma_agiqa_core.training.distillation.distill import distill

State = Callable[[], AbstractContextManager[Any]]


@contextmanager
def default_dtype(dtype: torch.dtype) -> Iterator[None]:
    torch.set_default_dtype(dtype)
    try:
        yield
        assert torch.get_default_dtype() == dtype  # what was set aside came back
    finally:
        torch.set_default_dtype(torch.float32)


@contextmanager
def default_device(device: str) -> Iterator[None]:
    torch.set_default_device(device)
    try:
        yield
        assert torch.get_default_device().type == device
    finally:
        torch.set_default_device(None)


@contextmanager
def autocast(dtype: torch.dtype) -> Iterator[None]:
    with torch.autocast("cpu", dtype=dtype):
        yield
        assert autocasts() == {"cpu": dtype}


@contextmanager
def products(precision: str) -> Iterator[None]:
    torch.set_float32_matmul_precision(precision)
    try:
        yield
        assert torch.get_float32_matmul_precision() == precision
    finally:
        torch.set_float32_matmul_precision("highest")


@contextmanager
def deterministic() -> Iterator[None]:
    torch.use_deterministic_algorithms(True)
    try:
        yield
        assert torch.are_deterministic_algorithms_enabled()
    finally:
        torch.use_deterministic_algorithms(False)


@contextmanager
def everything() -> Iterator[None]:
    with ExitStack() as stack:
        for state in (lambda: autocast(torch.bfloat16), lambda: default_dtype(torch.float16), torch.inference_mode):
            stack.enter_context(state())
        stack.enter_context(torch.device("meta"))
        yield


STATES: dict[str, State] = {
    "autocast to bfloat16": lambda: autocast(torch.bfloat16),
    "autocast to float16": lambda: autocast(torch.float16),
    "default dtype float64": lambda: default_dtype(torch.float64),
    "default dtype float16": lambda: default_dtype(torch.float16),
    "default dtype bfloat16": lambda: default_dtype(torch.bfloat16),
    "default device meta": lambda: default_device("meta"),
    "inside torch.device": lambda: torch.device("meta"),
    "inference mode": torch.inference_mode,
    "no grad": torch.no_grad,
    "with grad": torch.enable_grad,
    "products in bfloat16": lambda: products("medium"),
    "deterministic": deterministic,
    "one attention kernel": lambda: sdpa_kernel(SDPBackend.EFFICIENT_ATTENTION),  # which the CPU has not
    "everything": everything,
}

in_every_state = pytest.mark.parametrize("state", STATES.values(), ids=STATES)
_LOADING = ("autocast to bfloat16", "default dtype float16", "default device meta", "inference mode", "everything")
loading_states = pytest.mark.parametrize("state", [STATES[name] for name in _LOADING], ids=_LOADING)
"""What reaches the making of tensors; the other settings are about computing with them."""


@pytest.fixture(scope="module")
def pictures(noise_pictures: list[np.ndarray]) -> list[np.ndarray]:
    return noise_pictures[:3]


@pytest.fixture(scope="module")
def student(tmp_path_factory: pytest.TempPathFactory, make_picture: Callable[[Path, int], Path]) -> Path:
    folder = tmp_path_factory.mktemp("student")
    paths = [make_picture(folder / f"{i}.png", 8 * i) for i in range(30)]
    return distill(CallableScorer(mean_brightness, name="brightness"), paths, folder / "s.safetensors").path


@pytest.fixture(scope="module")
def loaders(
    tmp_path_factory: pytest.TempPathFactory,
    tiny_models: ModuleType,
    owl_folder: Path,
    checkpoint: Path,
    visual_checkpoint: Path,
    student: Path,
) -> dict[str, Callable[[], Scorer]]:
    """By name: how each scorer is loaded."""
    folder = tmp_path_factory.mktemp("clip")
    clip, siglip = folder / "clip", folder / "siglip"
    tiny_models.write_clip(clip, seed=4)  # one that sees no cosine below 0, which would be a score of 0
    tiny_models.write_clip(siglip, model_type="siglip")

    def ensemble(combine: str) -> Scorer:
        members = [(load_scorer("lite"), 2.0), (load_scorer(visual_checkpoint), 1.0)]
        return EnsembleScorer(members, combine=combine)

    return {
        "lite": lambda: load_scorer("lite"),
        "student": lambda: load_scorer(student),
        "ma-agiqa": lambda: load_scorer(checkpoint, semantic=owl_folder),
        "ma-agiqa in bfloat16": lambda: load_scorer(checkpoint, semantic=owl_folder, dtype="bfloat16"),
        "visual expert": lambda: load_scorer(visual_checkpoint),
        "clip": lambda: load_scorer(f"clip:{clip}"),
        "siglip": lambda: load_scorer(f"clip:{siglip}"),
        "calibrated": lambda: ensemble("calibrated"),
        "rank": lambda: ensemble("rank"),
        "zscore": lambda: ensemble("zscore"),
        "function": lambda: CallableScorer(lambda images, prompts: [0.1, 0.2, 0.7][: len(images)], name="f"),
    }


NAMES = (
    *("lite", "student", "ma-agiqa", "ma-agiqa in bfloat16", "visual expert", "clip", "siglip"),
    *("calibrated", "rank", "zscore", "function"),
)


@pytest.fixture(scope="module")
def loaded(loaders: dict[str, Callable[[], Scorer]]) -> dict[str, Scorer]:
    return {name: load() for name, load in loaders.items()}


@pytest.fixture(scope="module")
def expected(loaded: dict[str, Scorer], pictures: list[np.ndarray]) -> dict[str, torch.Tensor]:
    scores = {name: score(scorer, pictures) for name, scorer in loaded.items()}
    assert [name for name, found in scores.items() if len(set(found.tolist())) < 2] == []  # or nothing could change
    return scores


def score(scorer: Scorer, pictures: Any) -> torch.Tensor:
    return scorer.score(pictures, prompts="a cat")


def mean_brightness(images: Sequence[Any], prompts: Any) -> list[float]:
    return [float(np.asarray(image).mean()) / 255 for image in images]


def assert_same(scores: torch.Tensor, expected: torch.Tensor) -> None:
    assert (scores.dtype, scores.device.type) == (torch.float32, "cpu")
    assert not scores.requires_grad
    assert not scores.is_inference()
    assert torch.equal(scores, expected)


@in_every_state
@pytest.mark.parametrize("name", NAMES)
def test_a_scorer_scores_as_it_was_loaded(
    name: str, state: State, loaded: dict[str, Scorer], expected: dict[str, torch.Tensor], pictures: list[np.ndarray]
) -> None:
    with state():
        scores = score(loaded[name], pictures)
    assert_same(scores, expected[name])


@loading_states
@pytest.mark.parametrize("name", ["lite", "student", "ma-agiqa", "visual expert", "clip", "siglip"])
def test_a_scorer_loaded_there_scores_the_same_elsewhere(
    name: str,
    state: State,
    loaders: dict[str, Callable[[], Scorer]],
    expected: dict[str, torch.Tensor],
    pictures: list[np.ndarray],
) -> None:
    with state():
        scorer = loaders[name]()
        within = score(scorer, pictures)
    assert_same(within, expected[name])
    assert_same(score(scorer, pictures), expected[name])


@in_every_state
@pytest.mark.parametrize("name", ["lite", "clip", "ma-agiqa"])
def test_pictures_made_there_are_taken(
    name: str, state: State, loaded: dict[str, Scorer], pictures: list[np.ndarray]
) -> None:
    given = torch.from_numpy(pictures[1]).movedim(-1, 0).float() / 255
    plain = score(loaded[name], [given])
    with state():
        assert_same(score(loaded[name], [given * torch.ones(1, device="cpu").to(given)]), plain)
        assert_same(score(loaded[name], (given * torch.ones(1, device="cpu").to(given))[None]), plain)


@in_every_state
def test_vectors_kept_there_are_those_of_elsewhere(
    state: State,
    owl_folder: Path,
    checkpoint: Path,
    tmp_path: Path,
    expected: dict[str, torch.Tensor],
    pictures: list[np.ndarray],
) -> None:
    plain = SemanticExtractor(owl_folder).extract(pictures)
    with state():
        found = SemanticExtractor(owl_folder, cache=tmp_path).extract(pictures)
        pixels = visual_pixels(pictures, size=64)
    again = SemanticExtractor(owl_folder, cache=tmp_path)
    for name, vectors in again.extract(pictures).items():
        assert torch.equal(vectors, plain[name])
        assert torch.equal(found[name], plain[name])
        assert not found[name].is_inference()
    assert not again.is_loaded  # all of them from the cache
    assert torch.equal(pixels, visual_pixels(pictures, size=64))
    with state():
        assert_same(load_scorer(checkpoint, semantic=owl_folder, cache=tmp_path).score(pictures), expected["ma-agiqa"])


def test_vectors_of_earlier_versions_are_not_taken() -> None:
    """Made in whatever state, of which nothing in them tells."""
    key = SemanticCache.key(torch.zeros(3, 4, 5, dtype=torch.uint8), "model;float32", "good?")
    assert key != "2183599acb662a11b40b370ee18e23038c9dd8a2421ea979c001fa3c21fd1b47"


@loading_states
def test_a_checkpoint_written_and_read_there_is_the_same(state: State, visual_checkpoint: Path, tmp_path: Path) -> None:
    plain = load_checkpoint(visual_checkpoint)
    with state():
        model = load_checkpoint(visual_checkpoint)
        save_checkpoint(model, tmp_path / "again.safetensors")
    again = load_checkpoint(tmp_path / "again.safetensors")
    for name, tensor in plain.state_dict().items():
        assert torch.equal(model.state_dict()[name], tensor)
        assert torch.equal(again.state_dict()[name], tensor)
    pixels = visual_pixels([np.zeros((9, 9, 3), np.uint8)], size=64)
    model(pixels).sum().backward()  # what was loaded in inference mode can be trained


def test_the_callers_function_sees_the_callers_state() -> None:
    seen: list[object] = []

    def fn(images: Any, prompts: Any) -> torch.Tensor:
        seen.append((torch.get_default_dtype(), autocasts(), torch.is_inference_mode_enabled()))
        return torch.ones(len(images), dtype=torch.bfloat16)

    scorer = EnsembleScorer([(CallableScorer(fn, name="own"), 1.0)], combine="rank")
    with default_dtype(torch.float64), autocast(torch.bfloat16), torch.inference_mode():
        scores = scorer.score([np.zeros((8, 8, 3), np.uint8)])
    assert seen == [(torch.float64, {"cpu": torch.bfloat16}, True)]
    assert_same(scores, torch.ones(1))


def test_a_list_of_numbers_is_not_rounded_to_the_default_dtype() -> None:
    with default_dtype(torch.bfloat16), torch.device("meta"):
        scores = as_scores([0.1, 0.2], 2, "f")
        assert srcc([0.1, 0.2, 0.3], [1, 2, 3]) == pytest.approx(1)
    assert torch.equal(scores, torch.tensor([0.1, 0.2]))


@pytest.mark.parametrize("name", ["lite", "student", "ma-agiqa", "visual expert", "calibrated", "rank", "zscore"])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float16])
def test_our_own_code_does_not_go_by_the_default_dtype(
    name: str,
    dtype: torch.dtype,
    loaders: dict[str, Callable[[], Scorer]],
    loaded: dict[str, Scorer],
    expected: dict[str, torch.Tensor],
    pictures: list[np.ndarray],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Another thread may change it while it is held, as loading a model of transformers does."""
    monkeypatch.setattr(caller_state, "_DEFAULT_DTYPE", nullcontext())
    with default_dtype(dtype):
        assert_same(score(loaded[name], pictures), expected[name])
        if name != "ma-agiqa":  # whose language model others' libraries load
            assert_same(score(loaders[name](), pictures), expected[name])


def test_other_threads_keep_their_default_dtype_while_our_own_code_scores(
    loaded: dict[str, Scorer], pictures: list[np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []
    network_score = LiteNetwork.score

    def watched(network: LiteNetwork, rgb: torch.Tensor) -> torch.Tensor:
        seen.append(torch.get_default_dtype())
        return network_score(network, rgb)

    monkeypatch.setattr(LiteNetwork, "score", watched)
    with default_dtype(torch.float64):
        loaded["lite"].score(pictures)
    assert set(seen) == {torch.float64}


def test_threads_that_score_at_once_restore_what_was_there(
    loaded: dict[str, Scorer], expected: dict[str, torch.Tensor], pictures: list[np.ndarray]
) -> None:
    def work(number: int) -> tuple[str, torch.Tensor]:
        name = ("clip", "lite", "ma-agiqa", "siglip")[number % 4]
        with autocast(torch.bfloat16) if number % 3 else torch.device("meta"):
            return name, score(loaded[name], pictures)

    with default_dtype(torch.float16), products("medium"), ThreadPoolExecutor(4) as pool:
        for name, scores in pool.map(work, range(12)):
            assert_same(scores, expected[name])


class TestHeldSettings:
    def test_the_last_one_out_restores(self) -> None:
        first, second = as_loaded(), as_loaded()  # as two threads leave it; in one, grad mode has to be put back
        with default_dtype(torch.float64), torch.enable_grad():
            first.__enter__()
            second.__enter__()
            first.__exit__(None, None, None)
            assert torch.get_default_dtype() == torch.float32
            second.__exit__(None, None, None)
            assert torch.get_default_dtype() == torch.float64

    def test_what_the_program_sets_meanwhile_stays(self) -> None:
        with as_loaded():
            torch.set_default_dtype(torch.float16)
            with as_loaded():
                assert torch.get_default_dtype() == torch.float32
        assert torch.get_default_dtype() == torch.float16
        with as_loaded():
            torch.set_default_dtype(torch.float64)
        assert torch.get_default_dtype() == torch.float64
        torch.set_default_dtype(torch.float32)

    def test_an_error_restores_all(self) -> None:
        with everything():
            with pytest.raises(KeyError), as_loaded():
                raise KeyError
            assert torch.is_inference_mode_enabled()
            assert torch.get_default_device().type == "meta"

    @pytest.mark.skipif(not hasattr(torch.backends.cuda.matmul, "fp32_precision"), reason="torch 2.9 brought it")
    def test_products_set_for_one_backend_alone(self) -> None:
        matmul: Any = torch.backends.mkldnn
        matmul = matmul.matmul
        before = matmul.fp32_precision
        matmul.fp32_precision = "bf16"
        try:
            with as_loaded():
                assert torch.get_float32_matmul_precision() == "highest"
            assert matmul.fp32_precision == "bf16"
        finally:
            matmul.fp32_precision = before

    def test_gradients_only_for_who_learns(self) -> None:
        with torch.inference_mode():
            with as_loaded():
                assert not torch.is_grad_enabled()
                assert not torch.zeros(1).is_inference()
            with as_loaded(learns=True):
                assert torch.is_grad_enabled()


def test_a_batch_in_a_thread_is_inside_the_autocasts_of_its_caller(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []

    def run(batch: int, pause: Any) -> None:
        seen.append(autocasts())

    with torch.autocast("cpu", dtype=torch.float16):
        torch.set_autocast_enabled("xpu", True)
        try:
            run_in_lockstep([1, 2], run, lambda reports: reports)
            expected = autocasts()
        finally:
            torch.set_autocast_enabled("xpu", False)
    assert set(expected) == {"cpu", "xpu"}
    assert seen == [expected, expected]


def test_what_is_kept_for_later_calls_can_be_differentiated_through() -> None:
    """Tables made in inference mode could not be saved for a gradient."""
    statistics._shape_table.cache_clear()
    with torch.inference_mode():
        statistics.describe(torch.rand(1, 3, 40, 40, generator=torch.Generator().manual_seed(0)))
    assert not any(table.is_inference() for table in statistics._shape_table())


class TestPrecisionChangedAfterwards:
    @pytest.mark.parametrize("change", [torch.nn.Module.half, torch.nn.Module.bfloat16, torch.nn.Module.double])
    @pytest.mark.parametrize("network", [LiteNetwork, StudentNetwork])
    def test_lite_says_what_to_do(self, network: Any, change: Any, student: Path, pictures: list[np.ndarray]) -> None:
        scorer: Any = load_scorer(student if network is StudentNetwork else "lite")
        change(scorer.network)
        dtype = {"half": "float16", "double": "float64"}.get(change.__name__, change.__name__)
        with pytest.raises(ValueError, match=rf"Expected '\w+' in float32, .* got torch\.{dtype} for .* Load it again"):
            scorer.score(pictures)

    @pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
    @pytest.mark.parametrize("name", ["clip", "visual expert"])
    def test_others_compute_in_it(
        self,
        name: str,
        dtype: torch.dtype,
        loaders: dict[str, Callable[[], Scorer]],
        expected: dict[str, torch.Tensor],
        pictures: list[np.ndarray],
    ) -> None:
        scorer: Any = loaders[name]()
        scorer.model.to(dtype)
        scores = score(scorer, pictures)
        assert scores.dtype == torch.float32
        assert not torch.equal(scores, expected[name])
        assert torch.allclose(scores, expected[name], atol=0.5)

    def test_a_language_model_is_refused_since_its_vectors_are_kept_by_precision(
        self, owl_folder: Path, checkpoint: Path, tmp_path: Path, pictures: list[np.ndarray]
    ) -> None:
        scorer: Any = load_scorer(checkpoint, semantic=owl_folder, cache=tmp_path)
        scorer.extractor.model.network.half()
        with pytest.raises(ValueError, match=r"in torch.float32, as it was loaded, got torch.float16. .*'float16'"):
            scorer.score(pictures)
        assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_the_lite_weights_are_float32_whatever_the_default() -> None:
    with default_dtype(torch.float16):
        network = LiteNetwork.from_state_dict(load_file(LITE_WEIGHTS))
    assert {tensor.dtype for tensor in network.state_dict().values()} == {torch.float32}


@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_weights_that_stay_on_the_meta_device_are_told(visual_checkpoint: Path) -> None:
    from accelerate import init_empty_weights

    for model in ("lite", visual_checkpoint):
        with init_empty_weights(), pytest.raises(MaAgiqaError, match="meta device"):
            load_scorer(model, device="cpu")
