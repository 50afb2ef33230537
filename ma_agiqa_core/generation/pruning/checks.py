"""What the callback is asked for and what its pipeline is called with; what of it is refused before the first step."""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from torch import Tensor

from ...arguments.numbers import real_number
from ...errors import MaAgiqaError
from ...scorers.scorer import Scorer
from ..pipelines.family import Family
from ..pipelines.schedulers import UnsupportedPipelineError, draws_noise
from .rule import judge_of_previews
from .schedule import PruneSchedule

_ATTENTION_ARGUMENTS = ("cross_attention_kwargs", "joint_attention_kwargs", "attention_kwargs")
_VECTORS = ("prompt_embeds", "pooled_prompt_embeds", "prompt_embeds_t5")
_ADAPTER_ENTRIES = ("ip_adapter_masks", "ip_adapter_image_embeds")  # known not to have rows, or where they have them


def check_options(scorer: Scorer, is_pruned: bool, min_score: Any, strategy: str) -> float | None:
    """Gives `min_score` back as Python's own number."""
    if not isinstance(scorer, Scorer):
        raise MaAgiqaError(
            f"Expected a scorer with .info and .score, got {scorer!r}. Use load_scorer or CallableScorer."
        )
    if strategy not in ("batch", "sequential"):
        raise MaAgiqaError(f"Expected strategy 'batch' or 'sequential', got {strategy!r}.")
    limit = finite_min_score(min_score)
    if limit is not None:
        scorer.info.require_scale(f"for min_score={limit:g}")
        if not is_pruned:
            raise MaAgiqaError(f"Expected prune_at with min_score = {limit:g}, got none. Say when rows may be dropped.")
    if strategy == "sequential":
        scorer.info.require_scale("for strategy='sequential'")
    return limit


def check_early_scorer(early: Any, scorer: Scorer, schedule: PruneSchedule) -> None:
    """Refuses what cannot judge previews by this schedule in place of the scorer.

    Raises:
        ValueError: It is no scorer, it was taught beside another one, there is nothing for it to judge, or there are
            margins, which are in the scorer's units.
    """
    if early is None:
        return
    if not schedule.stages:
        raise MaAgiqaError("Expected prune_at with early_scorer, got none. It judges previews: say when to look.")
    if schedule.margins:
        raise MaAgiqaError(
            f"Expected counts with early_scorer, got the margins {list(schedule.margins)}, which are in units of "
            f"{scorer.info.name}. Give counts, such as prune_at={{0.4: 4, 0.7: 2}}."
        )
    for fraction in schedule.fractions:
        one = judge_of_previews(scorer, early, fraction)
        if not isinstance(one, Scorer):
            raise MaAgiqaError(
                f"Expected early_scorer with .info and .score, got {one!r}. Use load_early_scorer or load_scorer."
            )


def checked_prompts(given: Any) -> str | list[str] | None:
    """Texts for the scorer, as they were given; a tuple or array of them as a list.

    Raises:
        ValueError: Something else than text.
    """
    if given is None or isinstance(given, str):
        return given
    texts = list(given) if isinstance(given, Iterable) else []
    if not texts or not all(isinstance(text, str) for text in texts):
        raise MaAgiqaError(f"Expected a text or a list of texts as prompts, got {given!r}.")
    return texts


def finite_min_score(given: Any) -> float | None:
    """`min_score` as Python's own number; None if there is none.

    Raises:
        ValueError: It is no finite number.
    """
    if given is None:
        return None
    limit = real_number(given)
    if limit is None or not math.isfinite(limit):
        raise MaAgiqaError(f"Expected a finite min_score, or None, got {given!r}. Leave it out to take all.")
    return limit


def check_installed(call: Mapping[str, Any], wanted: Sequence[str]) -> None:
    if call.get("callback_on_step_end") is None:
        raise MaAgiqaError(
            "Expected the callback in the pipeline call, got callback_on_step_end=None. Pass callback_on_step_end="
            "callback."
        )
    given = call.get("callback_on_step_end_tensor_inputs") or ()
    if missing := [name for name in wanted if name not in given]:
        raise MaAgiqaError(
            f"Expected callback_on_step_end_tensor_inputs with {', '.join(missing)}, got {list(given)}. Pass "
            "callback_on_step_end_tensor_inputs=callback.tensor_inputs."
        )


def prompts_of(call: Mapping[str, Any]) -> tuple[list[str | None], int]:
    """The call's prompts, None for each that is given as vectors, and the rows of each."""
    prompt = call.get("prompt")
    vectors = next((call[name] for name in _VECTORS if call.get(name) is not None), None)
    if isinstance(prompt, str):
        prompts: list[str | None] = [prompt]
    elif prompt is not None:
        prompts = list(prompt)
    elif isinstance(call.get("batch_size"), int):  # known to the loop already, which may have repeated the vectors
        prompts = [None] * call["batch_size"]
    else:
        prompts = [None] * (1 if vectors is None else len(vectors))
    return prompts, int(call.get("num_images_per_prompt") or call.get("num_videos_per_prompt") or 1)


def row_texts(given: str | Sequence[str] | None, called: Sequence[str | None], per_prompt: int) -> list[str] | None:
    """A text per row for the scorer, or None."""
    total = len(called) * per_prompt
    if given is None:
        texts = [text for text in called if isinstance(text, str)]
        return [text for text in texts for _ in range(per_prompt)] if len(texts) == len(called) else None
    if isinstance(given, str):
        return [given] * total
    if len(given) == total:
        return list(given)
    if len(given) == len(called):
        return [text for text in given for _ in range(per_prompt)]
    raise MaAgiqaError(
        f"Expected one prompt, one for each of {len(called)} prompts or one for each of {total} rows, got "
        f"{len(given)}. Leave prompts out to take those of the call."
    )


def check_randomness(pipe: Any, family: Family, call: Mapping[str, Any], total: int) -> None:
    if not draws_noise(pipe.scheduler, float(call.get("eta") or 0.0)):
        return
    kind, generators = type(pipe.scheduler).__name__, call.get("generator")
    if not family.generator_in_step:
        raise UnsupportedPipelineError(
            f"Expected a scheduler that draws no noise in its steps, got {kind} with these settings: "
            f"{type(pipe).__name__} gives it no generators, so that a row's noise depends on the other rows. Use "
            "another scheduler, or strategy='sequential'."
        )
    if not isinstance(generators, list) or len({id(generator) for generator in generators}) != total:
        got = f"{len(generators)}" if isinstance(generators, list) else type(generators).__name__
        raise MaAgiqaError(
            f"Expected a list of {total} generators, one of its own for each row, because {kind} draws noise in its "
            f"steps, got {got}. Pass generator=[torch.Generator('cpu').manual_seed(seed + i) for i in range({total})]."
        )


def check_attention_arguments(call: Mapping[str, Any]) -> None:
    for name in _ATTENTION_ARGUMENTS:
        for entry, value in (call.get(name) or {}).items():
            if entry not in _ADAPTER_ENTRIES and _holds_tensor(value):
                raise UnsupportedPipelineError(
                    f"Expected {name} without tensors, got one in {entry!r}, which may have rows. Leave it out, or use "
                    "strategy='sequential'."
                )


def _holds_tensor(value: object) -> bool:
    if isinstance(value, Mapping):
        return any(map(_holds_tensor, value.values()))
    if isinstance(value, list | tuple):
        return any(map(_holds_tensor, value))
    return isinstance(value, Tensor)
