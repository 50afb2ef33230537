"""What best_of_n is asked for, and what of it is refused before anything is generated."""

from __future__ import annotations

import inspect
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import PIL.Image

from ..errors import MaAgiqaError
from ..scorer import Scorer
from .families import SCHEDULERS, UnsupportedPipelineError, check_exact, draws_noise, family_of
from .finite_scores import finite_scores
from .preview import Previewer

ROWS_ARGUMENTS = ("num_images_per_prompt", "num_videos_per_prompt")
_OURS = {
    "generator": "The seeds make the generators: use seed and n",
    "latents": "The seeds make them: leave it out",
    "callback": "Leave it out",
    "callback_steps": "Leave it out",
    "callback_on_step_end": "For callbacks of your own put a QualityFilterCallback beside them into diffusers' "
    "MultiPipelineCallbacks",
    "callback_on_step_end_tensor_inputs": "Leave it out",
    "return_dict": "Leave it out",
    **dict.fromkeys(ROWS_ARGUMENTS, "Use n"),
}
_OUTPUT_TYPES = ("pil", "np", "pt")
_EMBEDDINGS = ("prompt_embeds", "pooled_prompt_embeds")
_PICTURES = ("image", "mask_image", "control_image")
# These take several pictures to look at for one prompt.
_WITH_REFERENCES = ("Flux2", "QwenImageEditPlus")


@dataclass(frozen=True)
class Options:
    """How many candidates, and which of them are wanted; see `best_of_n`.

    Raises:
        ValueError: A value out of range, or values that contradict each other.
    """

    n: int
    keep: int
    prune_at: Mapping[float, int]
    seed: int
    batch_size: int | None
    min_score: float | None
    max_rounds: int
    on_none: str
    strategy: str

    def __post_init__(self) -> None:
        for name in ("n", "keep", "max_rounds", "batch_size"):
            value = getattr(self, name)
            if not (name == "batch_size" and value is None) and not _is_count(value, 1):
                raise MaAgiqaError(f"Expected {name} as a whole number of at least 1, got {value!r}.")
        if self.keep > self.n:
            raise MaAgiqaError(f"Expected keep of at most n = {self.n}, got {self.keep}. Raise n or lower keep.")
        if not _is_count(self.seed, 0) or self.seed + self.n * self.max_rounds > 2**63:
            raise MaAgiqaError(f"Expected a seed from 0 to 2**63 - n * max_rounds, got {self.seed!r}.")
        self._check_schedule()
        if self.min_score is not None and not math.isfinite(self.min_score):
            raise MaAgiqaError(f"Expected a finite min_score, or None, got {self.min_score}. Leave it out to take all.")
        if self.max_rounds > 1 and self.min_score is None:
            raise MaAgiqaError(
                f"Expected min_score with max_rounds = {self.max_rounds}, got None: nothing says when enough are good "
                "enough. Give a min_score, or raise n."
            )
        for name, known in (("on_none", ("best", "raise")), ("strategy", ("batch", "sequential"))):
            if (value := getattr(self, name)) not in known:
                raise MaAgiqaError(f"Expected {name} {known[0]!r} or {known[1]!r}, got {value!r}.")

    def _check_schedule(self) -> None:
        before = self.n
        for fraction, count in sorted(self.prune_at.items()):
            if not 0 < fraction < 1:
                raise MaAgiqaError(f"Expected fractions of the steps between 0 and 1 in prune_at, got {fraction}.")
            if not _is_count(count, 1):
                raise MaAgiqaError(f"Expected a whole number of at least 1 at {fraction} in prune_at, got {count!r}.")
            if count > before:
                raise MaAgiqaError(
                    f"Expected at most {before} candidates at {fraction} in prune_at, got {count}: there are no more "
                    "by then. Let the counts fall."
                )
            before = count
        if before < self.keep:
            raise MaAgiqaError(
                f"Expected prune_at to leave at least keep = {self.keep} candidates, got {before}. Keep more."
            )


def check_scorers(scorer: Scorer, observe: Scorer | None, prompts: Sequence[str | None], options: Options) -> None:
    """Refuses scorers that cannot do what they are needed for; each is tried on two pictures of noise.

    Raises:
        ValueError: Prompts are needed and missing, `min_score` has no meaning, or the scores are not one finite
            number for each picture.
    """
    for name, one in (("scorer", scorer), ("observe", observe)):
        if one is None and name == "observe":
            continue
        if not isinstance(one, Scorer):
            raise MaAgiqaError(
                f"Expected {name} with .info and .score, got {one!r}. Use load_scorer or CallableScorer."
            )
        if one.info.needs_prompt and None in prompts:
            raise MaAgiqaError(f"Expected a prompt for {one.info.name}, which compares pictures with it, got None.")
    if observe is not None and observe.info.relative:
        raise MaAgiqaError(
            f"Expected a scorer with a scale of its own to observe, got {observe.info.name}, whose scores only compare "
            "the pictures of one group. Use EnsembleScorer with 'calibrated', or a single scorer."
        )
    if scorer.info.relative and options.min_score is not None:
        raise MaAgiqaError(
            f"Expected no min_score with {scorer.info.name}, got {options.min_score}: its scores only compare the "
            "pictures of one group. Use a scorer that is not relative."
        )
    if scorer.info.relative and options.strategy == "sequential" and options.prune_at:
        raise MaAgiqaError(
            f"Expected a scorer with a scale of its own for strategy='sequential', got {scorer.info.name}, whose "
            "scores only compare the pictures of one group. Use strategy='batch', or EnsembleScorer with 'calibrated'."
        )
    for one in (scorer, observe):
        if one is not None:
            _try(one, prompts[0])


def _try(scorer: Scorer, prompt: str | None) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (2, 64, 64, 3), dtype=np.uint8)
    pictures = [PIL.Image.fromarray(picture) for picture in noise]
    advice = "Mend the scorer: nothing can be ranked by that."
    finite_scores(scorer, pictures, prompt, ["a picture of noise"] * 2, advice)


def check_pipeline(pipe: Any, options: Options, arguments: Mapping[str, Any]) -> str | None:
    """Refuses pipelines and arguments that candidates cannot be made with.

    Returns:
        The pipeline's argument for the number of pictures per prompt; None to make one picture a call.

    Raises:
        ValueError: What is in the way.
    """
    kind = type(pipe).__name__
    known = inspect.signature(type(pipe).__call__).parameters
    if "generator" not in known:
        raise MaAgiqaError(
            f"Expected a pipeline that takes a generator, got {kind}: without seeds no picture comes again."
        )
    if options.prune_at and "callback_on_step_end" not in known:
        raise MaAgiqaError(
            f"Expected a pipeline with callback_on_step_end, got {kind}: nothing can be dropped on the way. Leave out "
            "prune_at to finish all candidates."
        )
    for name, fix in _OURS.items():
        if name in arguments:
            raise MaAgiqaError(f"Expected no {name} in the pipeline's arguments, got one. {fix}.")
    # diffusers' own **kwargs are for arguments that are no more: everything else in them is passed over in silence.
    takes_any = type(pipe).__module__.split(".")[0] != "diffusers" and any(
        parameter.kind is inspect.Parameter.VAR_KEYWORD for parameter in known.values()
    )
    for name in arguments:
        if name not in known and not takes_any:
            raise MaAgiqaError(f"Expected arguments of {kind}, got {name!r}. Is it misspelt?")
    if arguments.get("output_type", "pil") not in _OUTPUT_TYPES:
        raise MaAgiqaError(
            f"Expected output_type 'pil', 'np' or 'pt', got {arguments['output_type']!r}. Scorers see pictures."
        )
    if "num_frames" in known and argument_of(pipe, arguments, "num_frames") != 1:
        raise MaAgiqaError(
            f"Expected num_frames=1, got {argument_of(pipe, arguments, 'num_frames')}: pictures are scored, not videos."
        )
    for name in _PICTURES:
        given: Any = arguments.get(name)
        rows = len(given) if isinstance(given, list) or getattr(given, "ndim", 0) == 4 else 1
        if rows > 1 and not kind.startswith(_WITH_REFERENCES):
            raise MaAgiqaError(f"Expected one picture as {name}, got {rows}. Call best_of_n once for each.")
    for name in _EMBEDDINGS:
        given = arguments.get(name)
        if given is not None and not isinstance(given, list) and len(given) != 1:
            raise MaAgiqaError(f"Expected {name} of one prompt, got {len(given)}. Call best_of_n once for each.")
    if _is_unsure_of_rows(pipe, arguments):
        return None
    return next((name for name in ROWS_ARGUMENTS if name in known), None)


def pictures_per_row(pipe: Any, arguments: Mapping[str, Any]) -> tuple[str, ...]:
    """Names of the pictures that candidates begin with; they are to be given once for every row."""
    if not any(word in type(pipe).__name__ for word in ("Img2Img", "Inpaint")):
        return ()
    if arguments.get("padding_mask_crop") is not None:  # takes no list; then there is only one row a call
        return ()
    return tuple(name for name in ("image", "mask_image") if arguments.get(name) is not None)


def _is_unsure_of_rows(pipe: Any, arguments: Mapping[str, Any]) -> bool:
    """Whether rows of one call may differ from calls of their own: with pictures, in pipelines that are not known."""
    if any(arguments.get(name) is not None for name in ("masked_image_latents", "padding_mask_crop")):
        return True
    if all(arguments.get(name) is None for name in _PICTURES):
        return False
    try:
        family_of(pipe)
    except UnsupportedPipelineError:
        return True
    return False


def check_reproducible(pipe: Any, arguments: Mapping[str, Any]) -> None:
    """Refuses what makes another picture of the same seed, depending on the batch or on the run.

    Raises:
        UnsupportedPipelineError: Noise that is not drawn from a candidate's own generator.
    """
    scheduler = pipe.scheduler
    kind = type(scheduler).__name__
    if kind == "DPMSolverSDEScheduler":
        raise UnsupportedPipelineError(
            "Expected a scheduler that draws noise from the generators it is given, got DPMSolverSDEScheduler, which "
            "takes none. Use DPMSolverMultistepScheduler with algorithm_type='sde-dpmsolver++'."
        )
    draws = kind in SCHEDULERS and draws_noise(scheduler, float(arguments.get("eta") or 0.0))
    if not draws and not scheduler.config.get("stochastic_sampling"):
        return
    try:
        family = family_of(pipe)
    except UnsupportedPipelineError:
        return  # most give their generators on
    if not family.generator_in_step:
        raise UnsupportedPipelineError(
            f"Expected a scheduler that draws no noise in its steps, got {kind} with these settings: "
            f"{type(pipe).__name__} gives it no generators, so that no seed makes the same picture twice. Use another."
        )


def argument_of(pipe: Any, arguments: Mapping[str, Any], name: str) -> Any:
    """An argument's value in this call: as given, else the pipeline's default; None if there is no such argument."""
    if name in arguments:
        return arguments[name]
    parameter = inspect.signature(type(pipe).__call__).parameters.get(name)
    return None if parameter is None or parameter.default is parameter.empty else parameter.default


def found_preview(pipe: Any, preview: Any, options: Options, *, local_files_only: bool) -> Any:
    """The preview's decoder, looked for and loaded once for all batches; what cannot be pruned is refused on the way.

    Raises:
        UnsupportedPipelineError: In this pipeline, or with this scheduler, rows cannot be dropped exactly.
        ValueError: No such preview, or a decoder for other latents.
        FileNotFoundError: The decoder that was asked for is not here and cannot be downloaded.
    """
    if not options.prune_at:
        return preview
    try:
        family = family_of(pipe)
    except UnsupportedPipelineError:
        if options.strategy == "sequential":
            return preview
        raise
    if options.strategy == "batch":
        check_exact(pipe, family)
    return Previewer(pipe, family, preview, local_files_only=local_files_only).found


def prompt_list(prompt: Any) -> tuple[list[str | None], bool]:
    """The prompts, and whether they came in a list.

    Raises:
        ValueError: None in a list, or something else than text.
    """
    if prompt is None or isinstance(prompt, str):
        return [prompt], False
    if not isinstance(prompt, Sequence) or not prompt or not all(isinstance(text, str) for text in prompt):
        raise MaAgiqaError(f"Expected a text or a list of at least one text as prompt, got {prompt!r}.")
    return list(prompt), True


def arguments_per_prompt(
    prompts: Sequence[str | None], arguments: Mapping[str, Any], in_list: bool
) -> list[dict[str, Any]]:
    """The pipeline's arguments for each prompt. Lists of texts go with the prompts where these came in a list.

    Raises:
        ValueError: Neither text nor `prompt_embeds`, both for several prompts, or a list of texts of another length.
    """
    has_embeddings = arguments.get("prompt_embeds") is not None
    if None in prompts and not has_embeddings:
        raise MaAgiqaError("Expected a prompt, or prompt_embeds among the pipeline's arguments, got neither.")
    if has_embeddings and in_list:
        raise MaAgiqaError("Expected one prompt with prompt_embeds, got a list. Call best_of_n once for each.")
    calls = []
    for number, prompt in enumerate(prompts):
        call = {} if has_embeddings else {"prompt": prompt}
        for name, value in arguments.items():
            texts = name.startswith(("prompt", "negative_prompt")) and isinstance(value, list)
            if texts and in_list and all(isinstance(text, str) for text in value):
                if len(value) != len(prompts):
                    raise MaAgiqaError(f"Expected one text or {len(prompts)} as {name}, got {len(value)}.")
                value = value[number]
            call[name] = value
        calls.append(call)
    return calls


def _is_count(value: Any, least: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= least
