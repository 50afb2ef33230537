"""Inside the caller's autocast the pipeline computes as the caller wants it, and the scorer as it was loaded.

A default dtype of float64 or float16 is not tried around whole calls: diffusers' own pipelines break under it.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import AutoencoderTiny

from ma_agiqa_core import CallableScorer, Scorer, load_scorer
from ma_agiqa_core.compute.caller_state import autocasts
from ma_agiqa_core.generation import QualityFilterCallback, best_of_n, calibrate
from ma_agiqa_core.generation.pipelines.families import family_of
from ma_agiqa_core.generation.pipelines.latents import scaled_for_vae
from ma_agiqa_core.generation.preview.decoding import Previewer

STATES: dict[str, Callable[[], AbstractContextManager[Any]]] = {
    "autocast to bfloat16": lambda: torch.autocast("cpu", dtype=torch.bfloat16),
    "autocast to float16": lambda: torch.autocast("cpu", dtype=torch.float16),
    "inference mode": torch.inference_mode,
}
PROMPT = "a red cube"

in_every_state = pytest.mark.parametrize("state", STATES.values(), ids=STATES)


@pytest.fixture
def pipe(tiny_pipelines: ModuleType) -> Any:
    pipe = tiny_pipelines.pipeline("sd")
    pipe.set_progress_bar_config(disable=True)
    return pipe


class Watching:
    """Lite, and all pictures that it was given, with what it said of them."""

    def __init__(self) -> None:
        self.lite = load_scorer("lite")
        self.info = self.lite.info
        self.seen: list[tuple[list[Any], torch.Tensor]] = []

    def score(self, images: Any, prompts: Any = None, batch_size: int | None = None, on_error: str = "raise") -> Any:
        scores = self.lite.score(images, prompts, batch_size, on_error)
        self.seen.append((list(images), scores))
        return scores


@in_every_state
@pytest.mark.parametrize(
    ("strategy", "batch_size"),
    [("batch", None), ("batch", 2), ("sequential", None)],
    ids=["one batch", "batches in threads", "one after the other"],
)
def test_best_of_n_scores_as_the_scorer_was_loaded(
    pipe: Any, state: Callable[[], AbstractContextManager[Any]], batch_size: int | None, strategy: str
) -> None:
    scorer: Any = Watching()
    options = {"num_inference_steps": 4, "height": 16, "width": 16}
    with state():
        result = best_of_n(
            pipe,
            scorer,
            PROMPT,
            n=4,
            keep=2,
            prune_at={0.5: 3},
            batch_size=batch_size,
            strategy=strategy,
            preview="vae",
            **options,
        )
    assert list(result.scores) == scorer.lite.score(list(result.images)).tolist()
    for images, scores in scorer.seen:
        assert torch.equal(scores, scorer.lite.score(images))
        assert not scores.is_inference()


def test_the_pipeline_keeps_computing_in_the_callers_autocast(pipe: Any) -> None:
    kinds = []
    pipe.unet.conv_in.register_forward_hook(lambda module, inputs, output: kinds.append(output.dtype))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        for batch_size in (None, 2):  # alone, and in threads
            best_of_n(
                pipe, load_scorer("lite"), PROMPT, n=4, prune_at={0.5: 2}, batch_size=batch_size, preview="vae",
                num_inference_steps=4, height=16, width=16,
            )  # fmt: skip
    assert set(kinds) == {torch.bfloat16}


@in_every_state
def test_the_callback_and_calibrate_score_previews(
    pipe: Any, tiny_pipelines: ModuleType, state: Callable[[], AbstractContextManager[Any]]
) -> None:
    scorer: Any = Watching()
    with state():
        with QualityFilterCallback(pipe, scorer, prune_at={0.5: 1}, preview="vae") as callback:
            pipe(
                **tiny_pipelines.FAMILIES["sd"].arguments(2),
                output_type="pt",
                callback_on_step_end=callback,
                callback_on_step_end_tensor_inputs=callback.tensor_inputs,
            )
        calibrate(
            pipe, scorer, [PROMPT], n=2, fractions=(0.5,), preview="vae", num_inference_steps=4, height=16, width=16
        )
    assert len(callback.survivors) == 1
    for images, scores in scorer.seen:
        assert torch.equal(scores, scorer.lite.score(images))
    previews = [image for images, _ in scorer.seen for image in images if isinstance(image, torch.Tensor)]
    assert {preview.dtype for preview in previews} == {torch.float32}


def test_the_callers_function_and_preview_see_the_callers_autocast(pipe: Any) -> None:
    seen = []

    def preview(latents: torch.Tensor) -> torch.Tensor:
        seen.append(autocasts())
        return latents[:, :3].sigmoid().half()

    def fn(images: Any, prompts: Any) -> list[float]:
        seen.append(autocasts())
        return [float(np.asarray(image).mean()) for image in images]

    scorer: Scorer = CallableScorer(fn, name="own")
    with torch.autocast("cpu", dtype=torch.bfloat16):
        best_of_n(
            pipe, scorer, PROMPT, n=2, prune_at={0.5: 1}, preview=preview, num_inference_steps=4, height=16, width=16
        )
    assert len(seen) >= 3  # the preview, its score and the finished picture's
    assert all(kinds == {"cpu": torch.bfloat16} for kinds in seen)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16])
@in_every_state
def test_a_tiny_decoder_loaded_here_decodes_as_it_was_loaded(
    pipe: Any, tmp_path: Path, dtype: torch.dtype, state: Callable[[], AbstractContextManager[Any]]
) -> None:
    torch.manual_seed(0)
    decoder: Any = AutoencoderTiny(
        encoder_block_out_channels=(8, 8),
        decoder_block_out_channels=(8, 8),
        num_encoder_blocks=(1, 1),
        num_decoder_blocks=(1, 1),
        latent_channels=4,
    )
    decoder.save_pretrained(tmp_path)
    x0 = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    plain = Previewer(pipe, family_of(pipe), tmp_path).pictures(x0)
    torch.set_default_dtype(dtype)
    try:
        with state() if dtype == torch.float32 else nullcontext():
            pictures = Previewer(pipe, family_of(pipe), tmp_path).pictures(x0)
    finally:
        torch.set_default_dtype(torch.float32)
    assert pictures.dtype == torch.float32
    assert torch.equal(pictures, plain)


def test_the_mean_of_latents_is_not_rounded_to_the_default_dtype() -> None:
    class Vae:
        config = {"latents_mean": [0.1] * 4, "latents_std": [0.3] * 4, "scaling_factor": 1.0}  # noqa: RUF012

    latents = torch.randn(1, 4, 2, 2, generator=torch.Generator().manual_seed(0))
    plain = scaled_for_vae(latents, Vae(), "image", "")
    torch.set_default_dtype(torch.bfloat16)
    try:
        with torch.device("meta"):
            scaled = scaled_for_vae(latents, Vae(), "image", "")
    finally:
        torch.set_default_dtype(torch.float32)
    assert torch.equal(scaled, plain)
