"""Copies of scorers: deep copies, pickles and spawned workers score the same, and share nothing that changes."""

from __future__ import annotations

import copy
import multiprocessing
import pickle
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import tiny_chat_models
import torch

from ma_agiqa_core import CallableScorer, EnsembleScorer, load_scorer
from ma_agiqa_core.scorers.scorer import Scorer
from ma_agiqa_core.semantic.extractor import SemanticExtractor

PROMPT = "a cat"
FN = "def brightness(pictures, prompts):\n    return [float(picture.mean()) for picture in pictures]\n"


@pytest.fixture(scope="module")
def scorers(
    tiny_models: ModuleType, tmp_path_factory: pytest.TempPathFactory, owl_folder: Path
) -> dict[str, Callable[[], Scorer]]:
    folder = tmp_path_factory.mktemp("copies")
    clip, siglip = (tiny_models.write_clip(folder / kind, model_type=kind) for kind in ("clip", "siglip"))
    visual = tiny_models.write_checkpoint(folder / "visual.safetensors", 0)
    full = tiny_models.write_checkpoint(folder / "full.safetensors", 64, ("quality", "alignment"))
    (folder / "functions_of_a_user.py").write_text(FN)
    made: dict[str, Callable[[], Scorer]] = {
        "lite": lambda: load_scorer("lite", device="cpu"),
        "clip": lambda: load_scorer(f"clip:{clip}", device="cpu"),
        "siglip": lambda: load_scorer(f"clip:{siglip}", device="cpu"),
        "visual expert": lambda: load_scorer(visual, device="cpu"),
        "with a language model": lambda: load_scorer(
            full, semantic=owl_folder, target="alignment", device="cpu", cache=folder / "cache"
        ),
        "function": lambda: CallableScorer(_imported(folder).brightness, name="brightness", high=255.0),
    }
    made["ensemble"] = lambda: EnsembleScorer(
        [(make(), 1) for name, make in made.items() if name != "ensemble"], "rank"
    )
    return made


def _imported(folder: Path) -> Any:
    import importlib
    import sys

    if str(folder) not in sys.path:  # which spawned processes get as well
        sys.path.append(str(folder))
    return importlib.import_module("functions_of_a_user")


KINDS = ("lite", "clip", "siglip", "visual expert", "with a language model", "function", "ensemble")


def test_spawned_workers_score(
    scorers: dict[str, Callable[[], Scorer]], noise_pictures: list[np.ndarray], tmp_path: Path
) -> None:
    made = [scorers[kind]() for kind in KINDS]
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        for scorer in made:
            scores = pool.apply(scorer.score, (noise_pictures, PROMPT))
            _assert_close(scores, scorer.score(noise_pictures, PROMPT))


@pytest.mark.parametrize("tokenizer", ["tokenizer.model", "tokenizer.json"])
def test_extractors_and_their_models(
    tokenizer: str, owl_folder: Path, tmp_path: Path, noise_pictures: list[np.ndarray]
) -> None:
    folder = _with_tokenizer(owl_folder, tmp_path / "owl", tokenizer)
    extractor = SemanticExtractor(folder, device="cpu", cache=tmp_path / "cache")
    wanted = extractor.extract(noise_pictures)
    asked = {"question": "What is it?"}
    pictures = [torch.from_numpy(picture).movedim(-1, 0) for picture in noise_pictures]
    answers = extractor.model.features(pictures, asked)["question"]
    for copied in (copy.deepcopy(extractor), pickle.loads(pickle.dumps(extractor))):
        assert copied.extract(noise_pictures)["coherence"].allclose(wanted["coherence"], atol=1e-4)
        assert copied.model is not extractor.model
    for model in (copy.deepcopy(extractor.model), pickle.loads(pickle.dumps(extractor.model))):
        assert model.features(pictures, asked)["question"].allclose(answers, atol=1e-4)


def test_a_pickle_leaves_out_the_language_model(owl_folder: Path, noise_pictures: list[np.ndarray]) -> None:
    extractor = SemanticExtractor(owl_folder, device="cpu")
    before = len(pickle.dumps(extractor))
    extractor.extract(noise_pictures[:1])
    assert len(pickle.dumps(extractor)) < before + 1000


def test_chat_models(tmp_path: Path, noise_pictures: list[np.ndarray]) -> None:
    tiny_chat_models.FAMILIES["llava_onevision"][1](tmp_path / "chat")
    extractor = SemanticExtractor(tmp_path / "chat", device="cpu")
    wanted = extractor.extract(noise_pictures)["coherence"]
    asked = {"question": "What is it?"}
    pictures = [torch.from_numpy(picture).movedim(-1, 0) for picture in noise_pictures]
    answers = extractor.model.features(pictures, asked)["question"]
    assert pickle.loads(pickle.dumps(extractor)).extract(noise_pictures)["coherence"].allclose(wanted, atol=1e-4)
    model = copy.deepcopy(extractor.model)
    assert model.features(pictures, asked)["question"].allclose(answers, atol=1e-4)


def _assert_close(scores: torch.Tensor, wanted: torch.Tensor) -> None:
    """Weights at another place in memory are summed in another order."""
    torch.testing.assert_close(scores, wanted, atol=1e-4, rtol=1e-5)


def _with_tokenizer(owl: Path, folder: Path, kind: str) -> Path:
    import shutil

    shutil.copytree(owl, folder)
    if kind == "tokenizer.json":
        from tokenizers import Tokenizer, models

        (folder / "tokenizer.model").unlink()
        tokens = ["<unk>", "<s>", "</s>", *"abcdefghij"]
        Tokenizer(models.WordLevel({token: i for i, token in enumerate(tokens)}, unk_token="<unk>")).save(
            str(folder / "tokenizer.json")
        )
    return folder
