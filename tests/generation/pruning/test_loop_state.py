"""What the loops keep: caches shrink, and everything is as before after whatever was raised."""

import weakref
from collections.abc import Callable
from types import ModuleType
from typing import Any

import pytest
import torch

from ma_agiqa_core import CallableScorer
from ma_agiqa_core.generation import QualityFilterCallback

ROWS = 4
BRIGHTNESS = CallableScorer(lambda pictures, prompts: pictures.mean((1, 2, 3)), name="brightness")


@pytest.fixture
def call(tiny_pipelines: ModuleType) -> Callable[..., Any]:
    def call(name: str, scorer: Any = BRIGHTNESS, **changes: Any) -> tuple[torch.Tensor, tuple[int, ...]]:
        pipe = tiny_pipelines.pipeline(name)
        with QualityFilterCallback(pipe, scorer, prune_at={0.3: 3, 0.6: 1}, preview="vae") as callback:
            output = pipe(
                **tiny_pipelines.FAMILIES[name].arguments(ROWS) | changes,
                output_type="pt",
                callback_on_step_end=callback,
                callback_on_step_end_tensor_inputs=callback.tensor_inputs,
            )
        return tiny_pipelines.pictures_of(output), callback.survivors

    return call


@pytest.mark.parametrize(
    ("name", "layers"), [("qwen_image_21", "layer_caches"), ("flux2_klein_kv", "double_block_caches")]
)
def test_the_memory_of_dropped_keys_and_values_is_freed(
    tiny_pipelines: ModuleType, call: Callable[..., Any], name: str, layers: str
) -> None:
    pipe = tiny_pipelines.pipeline(name)
    rows: list[set[int]] = []
    seen: dict[int, list[weakref.ref[torch.Tensor]]] = {}  # by rows
    living: list[int] = []  # of larger ones, once a single row is left

    def watch(module: Any, args: Any, kwargs: dict[str, Any]) -> None:
        if (cache := kwargs.get("kv_cache")) is not None:
            layer_values = [vars(layer).values() for layer in getattr(cache, layers)]
            tensors = [one for values in layer_values for one in values if isinstance(one, torch.Tensor)]
            rows.append({len(one) for one in tensors})
            for one in tensors:
                seen.setdefault(len(one), []).append(weakref.ref(one))
            if rows[-1] == {1}:
                living.extend(size for size in seen if size > 1 for ref in seen[size] if ref() is not None)

    hook = pipe.transformer.register_forward_pre_hook(watch, with_kwargs=True)
    try:
        call(name)
    finally:
        hook.remove()
    assert rows[-1] == {1}
    assert {1, 3} <= set(seen)
    assert not living


@pytest.mark.parametrize("name", ["z_image", "qwen_image_21", "flux2_klein_kv", "ideogram4", "hunyuan_image", "krea2"])
@pytest.mark.parametrize("raised", [KeyboardInterrupt, RuntimeError])
def test_an_interruption_leaves_the_pipeline_usable(
    tiny_pipelines: ModuleType, call: Callable[..., Any], name: str, raised: type[BaseException]
) -> None:
    calls = []

    def breaks(pictures: torch.Tensor, prompts: Any) -> torch.Tensor:
        calls.append(1)
        if len(calls) == 2:  # rows have been dropped by then
            raise raised
        return pictures.mean((1, 2, 3))

    pipe = tiny_pipelines.pipeline(name)
    before, survivors = call(name)
    own = set(vars(pipe))
    with pytest.raises(raised):
        call(name, CallableScorer(breaks, name="breaking"))
    assert set(vars(pipe)) == own
    assert not pipe.transformer._forward_pre_hooks
    assert "step" not in vars(pipe.scheduler)
    after, again = call(name)
    assert again == survivors
    assert (after - before).abs().max() <= 1e-4


def test_vectors_of_the_caller_stay_whole(tiny_pipelines: ModuleType, call: Callable[..., Any]) -> None:
    """Z-Image may use the caller's own lists as they are, when there is one picture of each prompt."""
    given = tiny_pipelines.FAMILIES["z_image"].arguments(1, prompts=3)
    pipe = tiny_pipelines.pipeline("z_image")
    sizes = [tuple(vector.shape) for vector in given["prompt_embeds"]]
    with QualityFilterCallback(pipe, BRIGHTNESS, prune_at={0.5: 1}, min_score=None, preview="vae") as callback:
        pipe(
            **given,
            output_type="pt",
            callback_on_step_end=callback,
            callback_on_step_end_tensor_inputs=callback.tensor_inputs,
        )
    assert [tuple(vector.shape) for vector in given["prompt_embeds"]] == sizes
    assert len(given["generator"]) == 3
