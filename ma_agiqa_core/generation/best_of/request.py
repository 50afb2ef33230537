"""What best_of_n is asked for, and what of it is refused before anything is generated."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import PIL.Image

from ...arguments.numbers import count_of, whole_number
from ...errors import MaAgiqaError
from ...pictures.prompts import prompt_fault
from ...scorers.scorer import Scorer
from ..pipelines.families import check_exact, family_of
from ..pipelines.family import Family
from ..pipelines.rows_of_a_call import PICTURES, ROWS_ARGUMENTS
from ..pipelines.schedulers import SCHEDULERS, UnsupportedPipelineError, draws_noise
from ..planning.plan import PruningPlan
from ..preview.decoding import Previewer
from ..pruning.checks import check_early_scorer, finite_min_score
from ..pruning.finite_scores import finite_scores
from ..pruning.rule import judge_of_previews
from ..pruning.schedule import PruneSchedule

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
_NOISY = ("FlowMatchLCMScheduler",)  # not in SCHEDULERS, and they draw noise in pipelines that give no generators
_OUTPUT_TYPES = ("pil", "np", "pt")
_EMBEDDINGS = ("prompt_embeds", "pooled_prompt_embeds", "prompt_embeds_t5")
# These take several pictures to look at for one prompt.
_WITH_REFERENCES = ("Flux2", "QwenImageEditPlus", "QwenImage21", "ZImageOmni")


@dataclass(frozen=True)
class Options:
    """How many candidates, and which of them are wanted; see `best_of_n`. Numbers become Python's own.

    Raises:
        ValueError: A value out of range, or values that contradict each other.
    """

    n: int
    keep: int
    schedule: PruneSchedule
    seed: int
    batch_size: int | None
    min_score: float | None
    max_rounds: int
    on_none: str
    strategy: str

    def __post_init__(self) -> None:
        for name in ("n", "keep", "max_rounds", "batch_size"):
            if name != "batch_size" or self.batch_size is not None:
                object.__setattr__(self, name, count_of(name, getattr(self, name)))
        if self.keep > self.n:
            raise MaAgiqaError(f"Expected keep of at most n = {self.n}, got {self.keep}. Raise n or lower keep.")
        object.__setattr__(self, "seed", checked_seed(self.seed, self.n * self.max_rounds))
        self.schedule.check(self.n, self.keep)
        object.__setattr__(self, "schedule", replace(self.schedule, least=self.keep))
        object.__setattr__(self, "min_score", finite_min_score(self.min_score))
        if self.max_rounds > 1 and self.min_score is None:
            raise MaAgiqaError(
                f"Expected min_score with max_rounds = {self.max_rounds}, got None: nothing says when enough are good "
                "enough. Give a min_score, or raise n."
            )
        for name, known in (("on_none", ("best", "raise")), ("strategy", ("batch", "sequential"))):
            if (value := getattr(self, name)) not in known:
                raise MaAgiqaError(f"Expected {name} {known[0]!r} or {known[1]!r}, got {value!r}.")


def checked_seed(given: Any, candidates: int) -> int:
    """The first of the seeds of this many candidates, as Python's own number.

    Raises:
        ValueError: It is no whole number, or the seeds are out of range.
    """
    seed = whole_number(given)
    if seed is None:
        raise MaAgiqaError(f"Expected seed as a whole number, got {given!r}.")
    if not 0 <= seed <= 2**63 - candidates:
        raise MaAgiqaError(f"Expected a seed from 0 to 2**63 - n * max_rounds, got {seed}.")
    return seed


def check_scorers(scorer: Scorer, observers: Sequence[Scorer], prompts: Sequence[str | None]) -> None:
    """Refuses scorers that cannot do what they are needed for; each is tried on two pictures of noise.

    Raises:
        ValueError: Prompts are needed and missing, or the scores are not one finite number for each picture.
    """
    for one in (scorer, *observers):
        if not isinstance(one, Scorer):
            raise MaAgiqaError(
                f"Expected scorer with .info and .score, got {one!r}. Use load_scorer or CallableScorer."
            )
        if one.info.needs_prompt and None in prompts:
            raise MaAgiqaError(f"Expected a prompt for {one.info.name}, which compares pictures with it, got None.")
    for one in observers:
        one.info.require_scale("to observe")
    for one in (scorer, *observers):
        _try(one, prompts[0])


def check_scale(scorer: Scorer, options: Options) -> None:
    """Refuses a relative scorer where scores of different groups are compared.

    Raises:
        ValueError: `min_score` or strategy="sequential" would have no meaning.
    """
    info = getattr(scorer, "info", None)
    if info is None:
        return  # `check_scorers` says so
    if options.min_score is not None:
        info.require_scale(f"for min_score={options.min_score}")
    if options.strategy == "sequential" and options.schedule.stages:
        info.require_scale("for strategy='sequential'", "Use strategy='batch', or combine='calibrated'.")


def budgeted(plan: Any, budget: Any) -> PruningPlan:
    """The plan that spends a budget.

    Raises:
        ValueError: There is no plan to spend it by, or the budget is no number of candidates.
    """
    if not isinstance(plan, PruningPlan):
        raise MaAgiqaError(
            f"Expected a plan as prune_at with budget={budget!r}, got {plan!r}. Take `calibrate(...).plan`, or what "
            "plan_pruning returns."
        )
    return plan.for_budget(budget)


def try_early_scorer(early: Any, scorer: Scorer, schedule: PruneSchedule, prompts: Sequence[str | None]) -> None:
    """Refuses an early scorer that cannot score pictures at every fraction that is pruned at; tried like the others.

    Raises:
        ValueError: See `check_early_scorer`; or its scores are not one finite number for each picture.
    """
    check_early_scorer(early, scorer, schedule)
    for fraction in schedule.fractions if early is not None else ():
        one = judge_of_previews(scorer, early, fraction)
        if one.info.needs_prompt and None in prompts:
            raise MaAgiqaError(f"Expected a prompt for {one.info.name}, which compares pictures with it, got None.")
        _try(one, prompts[0])


def _try(scorer: Scorer, prompt: str | None) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (2, 64, 64, 3), dtype=np.uint8)
    pictures = [PIL.Image.fromarray(picture) for picture in noise]
    advice = "Fix the scorer: nothing can be ranked by such scores."
    finite_scores(scorer, pictures, prompt, ["a picture of noise"] * 2, advice)


def check_pipeline(pipe: Any, arguments: Mapping[str, Any], *, is_pruned: bool) -> None:
    """Refuses pipelines and arguments that candidates cannot be made with.

    Raises:
        ValueError: What is in the way.
    """
    kind = type(pipe).__name__
    known = inspect.signature(type(pipe).__call__).parameters
    if "generator" not in known:
        raise MaAgiqaError(
            f"Expected a pipeline that takes a generator, got {kind}: without seeds no picture can be made again."
        )
    if is_pruned and "callback_on_step_end" not in known:
        raise MaAgiqaError(
            f"Expected a pipeline with callback_on_step_end, got {kind}: nothing can be dropped on the way. Leave out "
            "prune_at to finish all candidates."
        )
    for name, fix in _OURS.items():
        if name in arguments:
            raise MaAgiqaError(f"Expected no {name} in the pipeline's arguments, got one. {fix}.")
    # diffusers' own **kwargs are for arguments that it no longer has: everything else in them is silently ignored.
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
    for name in PICTURES:
        given: Any = arguments.get(name)
        rows = len(given) if isinstance(given, list) or getattr(given, "ndim", 0) == 4 else 1
        if rows > 1 and not kind.startswith(_WITH_REFERENCES):
            raise MaAgiqaError(f"Expected one picture as {name}, got {rows}. Call best_of_n once for each.")
    for name in _EMBEDDINGS:
        given = arguments.get(name)
        if given is not None and len(given) != 1:
            raise MaAgiqaError(f"Expected {name} of one prompt, got {len(given)}. Call best_of_n once for each.")
    if arguments.get("caption_upsample_temperature"):
        raise MaAgiqaError(
            f"Expected no caption_upsample_temperature, got {arguments['caption_upsample_temperature']!r}: each call "
            "would draw another text, which no seed repeats. Call pipe.upsample_prompt once and give its text."
        )
    if arguments.get("prompt_upsampling"):
        raise MaAgiqaError(
            f"Expected no prompt_upsampling, got {arguments['prompt_upsampling']!r}: each call would draw another "
            "text. Call pipe.upsample_prompt once and give its text."
        )
    if getattr(pipe, "pe", None) is not None and argument_of(pipe, arguments, "use_pe"):
        raise MaAgiqaError(
            f"Expected use_pe=False, got {argument_of(pipe, arguments, 'use_pe')!r}: each call would draw another "
            "text. Let the enhancer write one text, and give that."
        )


def checked_frames(pipe: Any, arguments: Mapping[str, Any], frames: Any, save_dir: Any) -> tuple[int, ...]:
    """Which frames of a finished video are judged, as Python's own numbers.

    Raises:
        ValueError: They are none, out of range, or the pipeline makes pictures; a PNG is to hold a video.
    """
    given = (
        list(frames) if isinstance(frames, Sequence | range | np.ndarray) and not isinstance(frames, str) else [None]
    )
    wanted = [whole_number(frame) for frame in given]
    chosen = tuple(frame for frame in wanted if frame is not None and frame >= 0)
    if not chosen or len(chosen) < len(wanted):
        raise MaAgiqaError(f"Expected frames as whole numbers of at least 0, got {frames!r}. (0,) is the first frame.")
    count = argument_of(pipe, arguments, "num_frames")
    count = count if isinstance(count, int) else 1
    if max(chosen) >= count:
        raise MaAgiqaError(
            f"Expected frames below num_frames = {count}, got {max(chosen)}. Judge those that are made."
            if count > 1
            else f"Expected frames=(0,) for pictures, got {frames!r}. Frames are chosen of videos only."
        )
    if save_dir is not None and count > 1:
        raise MaAgiqaError(
            f"Expected no save_dir with num_frames={count}, got {str(save_dir)!r}: a PNG holds one picture. Write "
            "result.images with diffusers.utils.export_to_video."
        )
    return chosen


def check_reproducible(pipe: Any, arguments: Mapping[str, Any]) -> None:
    """Refuses what makes another picture of the same seed, depending on the batch or on the run.

    Raises:
        UnsupportedPipelineError: Noise that is not drawn from a candidate's own generator.
    """
    scheduler = pipe.scheduler
    kind = type(scheduler).__name__
    try:
        family: Family | None = family_of(pipe)
    except UnsupportedPipelineError:
        family = None
    if family is not None and (unseeded := family.unseeded.get(type(pipe).__name__)) is not None:
        raise UnsupportedPipelineError(
            f"Expected a pipeline that draws from the generators it is given, got {type(pipe).__name__}, which draws "
            f"{unseeded} from torch's global random numbers: no seed makes the same picture twice. Prune one call of "
            "it with QualityFilterCallback, whose survivors are those of that call."
        )
    if kind == "DPMSolverSDEScheduler":
        raise UnsupportedPipelineError(
            "Expected a scheduler that draws noise from the generators it is given, got DPMSolverSDEScheduler, which "
            "takes none. Use DPMSolverMultistepScheduler with algorithm_type='sde-dpmsolver++'."
        )
    draws = kind in _NOISY or (kind in SCHEDULERS and draws_noise(scheduler, float(arguments.get("eta") or 0.0)))
    if not draws and not scheduler.config.get("stochastic_sampling"):
        return
    if family is None:
        return  # most pass their generators on
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
    if not options.schedule.stages:
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
    """The prompts, and whether they came in a list, a tuple or an array.

    Raises:
        ValueError: None in a list, or something else than text.
    """
    if isinstance(prompt, np.ndarray):
        prompt = prompt.tolist()
    if prompt is None or isinstance(prompt, str):
        return [prompt], False
    if not isinstance(prompt, Sequence) or not prompt or not all(isinstance(text, str) for text in prompt):
        raise MaAgiqaError(f"Expected a text or a list of at least one text as prompt, got {prompt!r}.")
    return list(prompt), True


def arguments_per_prompt(
    prompts: Sequence[str | None], arguments: Mapping[str, Any], in_list: bool
) -> list[dict[str, Any]]:
    """The pipeline's arguments for each prompt, each with one text where lists of texts were given.

    Raises:
        ValueError: Neither text nor `prompt_embeds`, both for several prompts, a list of texts of another length than
            that of prompts, or a text with half a character.
    """
    has_embeddings = any(arguments.get(name) is not None for name in _EMBEDDINGS)
    if None in prompts and not has_embeddings:
        raise MaAgiqaError("Expected a prompt, or prompt_embeds among the pipeline's arguments, got neither.")
    if has_embeddings and in_list:
        raise MaAgiqaError("Expected one prompt with prompt_embeds, got a list. Call best_of_n once for each.")
    calls = []
    for number, prompt in enumerate(prompts):
        call = {} if has_embeddings else {"prompt": whole_text("prompt", prompt)}
        for name, value in arguments.items():
            if name.startswith(("prompt", "negative_prompt")) and (texts := _texts(value)) is not None:
                if len(texts) != len(prompts):
                    several = f" or {len(prompts)}" if in_list else ""
                    raise MaAgiqaError(f"Expected one text{several} as {name}, got {len(texts)}.")
                value = texts[number]
            call[name] = whole_text(name, value)
        calls.append(call)
    return calls


def whole_text(name: str, value: Any) -> Any:
    """The same value; a text with half a character, which no tokenizer takes, is refused.

    Raises:
        ValueError: A text with half a character.
    """
    if isinstance(value, str) and (fault := prompt_fault(value)) is not None:
        raise MaAgiqaError(f"Expected whole characters in {name}, got {value[:100]!a}: {fault}.")
    return value


def _texts(value: Any) -> list[str] | None:
    """The texts of a list, tuple or array of texts; None for everything else."""
    if isinstance(value, np.ndarray):
        value = value.tolist()
    if isinstance(value, list | tuple) and all(isinstance(text, str) for text in value):
        return list(value)
    return None
