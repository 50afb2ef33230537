"""What users pass that is not quite what was asked for: it works, or the message is true and names the value."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from ma_agiqa_core import CallableScorer, EnsembleScorer, load_scorer, rank
from ma_agiqa_core.compute.devices import resolve_device, resolve_dtype
from ma_agiqa_core.errors import MaAgiqaError
from ma_agiqa_core.pictures.prompts import check_score_options, resolve_prompts


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")


@pytest.mark.parametrize("spelling", [Path("lite"), "lite"])
def test_the_carried_scorer_by_a_path_object(spelling: Any) -> None:
    assert load_scorer(spelling, device="cpu").info.name == "lite"


def test_a_path_object_that_leads_somewhere_is_that_path(tmp_path: Path) -> None:
    (tmp_path / "lite").mkdir()
    with pytest.raises(MaAgiqaError, match=r"Expected a folder with model\.safetensors, got 'lite'"):
        load_scorer(Path("lite"))


@pytest.mark.parametrize("model", ["./lite", "lite/", "LITE", " lite ", Path("models/lite"), "~/lite"])
def test_other_spellings_of_lite_are_advised(model: Any) -> None:
    with pytest.raises(MaAgiqaError, match="Did you mean 'lite', which is carried in the package"):
        load_scorer(model)


@pytest.mark.parametrize("model", ["CLIP:owner/name", "Clip: owner/name"])
def test_other_spellings_of_clip_are_advised(model: str) -> None:
    with pytest.raises(MaAgiqaError, match=r"Did you mean 'clip:owner/name'\?"):
        load_scorer(model)


@pytest.mark.parametrize("spelling", ["clip:{}", "clip: {} ", "clip:{}/", Path("clip:clip model")])
def test_clip_folders(spelling: Any, tmp_path: Path, tiny_models: Any) -> None:
    folder = tiny_models.write_clip(tmp_path / "clip model")
    model = spelling if isinstance(spelling, Path) else spelling.format(folder)
    assert load_scorer(model, device="cpu").info.name == "clipscore(clip model)"


def test_a_home_folder(tmp_path: Path, tiny_models: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    tiny_models.write_checkpoint(tmp_path / "model.safetensors", 0)
    for model in ("~", "~/model.safetensors", Path("~/model.safetensors")):
        assert load_scorer(model, device="cpu").info.name == "tiny"


@pytest.mark.parametrize("model", ["~nobody-7Q/lite.safetensors", "clip:~nobody-7Q/clip"])
def test_a_home_folder_of_nobody(model: str) -> None:
    with pytest.raises(MaAgiqaError, match="nobody-7Q"):
        load_scorer(model)


@pytest.mark.parametrize("model", ["C:\\models\\x.safetensors", "C:/models/x.safetensors", "c:\\lite"])
def test_drive_letters_are_no_family(model: str) -> None:
    with pytest.raises(MaAgiqaError, match="no such file or folder"):
        load_scorer(model)


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (None, "name, path or Hub id, got None"),
        (3, "name, path or Hub id, got 3"),
        (b"lite", "name, path or Hub id, got b'lite'"),
        (["lite"], r"name, path or Hub id, got \['lite'\]"),
        (torch.nn.Linear(200, 2), "name, path or Hub id, got "),
        ("x" * 5000, "got a str"),
        ("a/" + "b" * 5000, "on this machine|got a str"),
        ("li\0te", "got 'li"),
    ],
)
def test_no_models(model: Any, message: str) -> None:
    with pytest.raises(MaAgiqaError, match=message) as raised:
        load_scorer(model, local_files_only=True)
    assert "\n" not in str(raised.value)


@pytest.mark.skipif(os.name == "nt", reason="needs file permissions")
def test_a_file_that_may_not_be_looked_at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> Any:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "stat", refuse)
    with pytest.raises(MaAgiqaError, match=r"secret\.safetensors.*: Permission denied"):
        load_scorer(tmp_path / "secret.safetensors")


def test_one_expert_as_a_string(tmp_path: Path, tiny_models: Any) -> None:
    path = tiny_models.write_checkpoint(tmp_path / "full.safetensors", 64)
    scorer = load_scorer(path, semantic="none", device="cpu", without="coherence")
    assert "coherence" in scorer.info.name


@pytest.mark.parametrize("option", ["semantic", "cache"])
def test_options_that_are_no_paths(option: str) -> None:
    with pytest.raises(MaAgiqaError, match=f"Expected {option} as text or a path, or None, got 3"):
        load_scorer("lite", **{option: 3})  # type: ignore[arg-type]


@pytest.mark.parametrize("device", [3, np.int64(3), None, True, 2.5, [], b"cpu", "gpu", "CPU", "", "cuda:-1"])
def test_no_devices(device: Any) -> None:
    with pytest.raises(MaAgiqaError, match="Expected a device such as 'auto', 'cpu' or 'cuda:0', got") as raised:
        resolve_device(device)
    assert ("Use 'cuda:3'" in str(raised.value)) == (isinstance(device, int | np.integer) and device is not True)


def test_a_processor_that_is_not_there() -> None:
    assert resolve_device("cpu:0") == torch.device("cpu:0")
    with pytest.raises(MaAgiqaError, match="got 'cpu:3'; it has 1 of type 'cpu'"):
        resolve_device("cpu:3")


@pytest.mark.parametrize(
    ("dtype", "meant"),
    [("half", "float16"), ("fp16", "float16"), ("BF16", "bfloat16"), ("fp32", "float32"), (torch.float64, "float32")],
)
def test_precisions_as_others_call_them(dtype: Any, meant: str) -> None:
    with pytest.raises(MaAgiqaError, match=f"got '{dtype}'. Use '{meant}'"):
        resolve_dtype(dtype, torch.device("cpu"))
    with pytest.raises(MaAgiqaError, match="Expected dtype 'auto' or 'float32' for a lite scorer"):
        load_scorer("lite", dtype=dtype)


@pytest.mark.parametrize("dtype", [None, 16, "int8", np.float16, ["float16"]])
def test_no_precisions(dtype: Any) -> None:
    with pytest.raises(MaAgiqaError, match="Expected dtype 'auto'"):
        resolve_dtype(dtype, torch.device("cpu"))


@pytest.mark.parametrize(
    "prompts",
    [("a", "b"), np.array(["a", "b"]), np.array(["a", "b"], dtype=object), iter(["a", "b"]), {"a": 0, "b": 0}.keys()],
)
def test_prompts_in_any_order_of_strings(prompts: Any) -> None:
    assert resolve_prompts(prompts, 2, needs_prompt=True) == ["a", "b"]


def test_a_prompt_in_an_array_without_dimensions() -> None:
    assert resolve_prompts(np.array("a cat"), 1, needs_prompt=True) == ["a cat"]  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("prompts", "message"),
    [
        (3, "as a string, or a list of strings, got 3"),
        (True, "got True"),
        ({"a.png": "a cat"}, r"in the order of the pictures: \[prompts\[path\] for path in paths\]"),
        (b"a cat", r"got b'a cat'. Use prompts.decode\(\)"),
        ({"a", "b"}, "which has no order"),
        ([["a"], ["b"]], r"for picture 0, got \['a'\]. Pass a string"),
        ([b"a", b"b"], "for picture 0, got b'a'"),
        (np.array([1, 2]), "for picture 0, got"),
        (object(), "list of strings, got"),
    ],
)
def test_no_prompts(prompts: Any, message: str) -> None:
    with pytest.raises(MaAgiqaError, match=message):
        resolve_prompts(prompts, 2, needs_prompt=False)


@pytest.mark.parametrize("batch_size", ["4", 2.5, 4.0, True, 0, -1, np.float32(2), [4], np.array([4, 4])])
def test_no_batch_sizes(batch_size: Any) -> None:
    with pytest.raises(MaAgiqaError, match=r"Expected a batch_size of at least 1, or None, got .*whole number"):
        check_score_options(batch_size, "raise")


@pytest.mark.parametrize("batch_size", [4, np.int64(4), np.uint8(4), torch.tensor(4)])
def test_batch_sizes(batch_size: Any) -> None:
    picture = np.zeros((40, 40, 3), dtype=np.uint8)
    scorer = load_scorer("lite", device="cpu")
    assert scorer.score([picture] * 5, batch_size=batch_size).shape == (5,)


@pytest.mark.parametrize("on_error", [None, True, "skip", ["nan"], np.array(["nan"])])
def test_no_error_handling(on_error: Any) -> None:
    with pytest.raises(MaAgiqaError, match="Expected on_error 'raise' or 'nan', got"):
        check_score_options(None, on_error)


def _places(pictures: Any, prompts: Any) -> list[int]:
    return list(range(len(pictures)))


@pytest.mark.parametrize("limits", [{"top_k": "3"}, {"top_k": 2.5}, {"top_k": True}, {"top_k": 0}])
def test_no_top_k(limits: dict[str, Any]) -> None:
    with pytest.raises(MaAgiqaError, match=r"Expected top_k of at least 1, or None, got .*whole number"):
        rank(CallableScorer(_places, name="places"), [], **limits)


@pytest.mark.parametrize("min_score", ["5", True, np.nan, [5], 2j])
def test_no_min_score(min_score: Any) -> None:
    with pytest.raises(MaAgiqaError, match="Expected a number as min_score, got"):
        rank(CallableScorer(_places, name="places"), [], min_score=min_score)


def test_limits_of_numpy_and_torch() -> None:
    pictures = [np.zeros((4, 4, 3), dtype=np.uint8)] * 4
    scorer = CallableScorer(_places, name="places", high=9)
    assert len(rank(scorer, pictures, top_k=np.int64(2)).kept) == 2  # type: ignore[arg-type]
    assert len(rank(scorer, pictures, min_score=np.float32(2)).kept) == 2  # type: ignore[arg-type]
    assert len(rank(scorer, pictures, min_score=torch.tensor(2.0)).kept) == 2  # type: ignore[arg-type]


def test_prompts_of_a_ranking_may_come_one_by_one() -> None:
    def bright(pictures: Any, prompts: Any) -> list[float]:
        return [float("nan") if prompt == "b" else 1.0 for prompt in prompts]

    pictures = [np.zeros((4, 4, 3), dtype=np.uint8)] * 2
    ranking = rank(CallableScorer(bright, name="x"), pictures, prompts=iter(["a", "b"]))  # type: ignore[arg-type]
    assert [picture.index for picture in ranking.failed] == [1]


@pytest.mark.parametrize("members", [["lite"], [("lite", 1)], [(None, 1)], [3]])
def test_no_members(members: Any) -> None:
    with pytest.raises(MaAgiqaError, match=r"Expected \(scorer, weight\) as a member, got"):
        EnsembleScorer(members, combine="rank")


@pytest.mark.parametrize("weight", ["1", None, True, [1]])
def test_no_weights(weight: Any) -> None:
    with pytest.raises(MaAgiqaError, match=r"Expected \(places, weight\) as a member, got the weight"):
        EnsembleScorer([(CallableScorer(_places, name="places"), weight)], combine="rank")


@pytest.mark.parametrize("fn", [None, 3, "brightness"])
def test_no_function(fn: Any) -> None:
    with pytest.raises(MaAgiqaError, match=r"Expected a function \(images, prompts\) -> scores, got"):
        CallableScorer(fn, name="x")
