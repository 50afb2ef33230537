"""Model files: one .safetensors with the tensors, and in its metadata all that a scorer must know beside them."""

from __future__ import annotations

import dataclasses
import json
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from ..arguments.numbers import checked_quantiles
from ..atomic_write import atomic_write
from ..compute.caller_state import as_loaded
from ..errors import MaAgiqaError, MissingFileError
from ..model import MaAgiqa, MaAgiqaConfig
from ..model.config import ALIGNMENT
from ..model.without_weights import without_weights
from ..semantic.questions import PROMPT, QUESTIONS, names_prompt, questions_for
from .published import convert_reference, listed, read_published

__all__ = [
    "CheckpointFacts",
    "TargetScale",
    "agiqa_3k_facts",
    "convert_file",
    "convert_reference",
    "load_checkpoint",
    "read_facts",
    "read_published",
    "save_checkpoint",
]

FORMAT = "1"
KIND = "ma-agiqa"
_KEYS = ("config", "name", "trained_on", "low", "high", "quantiles", "semantic")
_ADVICE = "Use a file that `ma-agiqa convert` or `ma-agiqa train` wrote."


@dataclass(frozen=True)
class TargetScale:
    """What the scores for one target mean.

    Attributes:
        low: Lower end of the score range.
        high: Upper end; higher is better.
        quantiles: Scores at evenly spaced shares, 0 % to 100 %, of the pictures behind percentiles; may be empty.

    Raises:
        ValueError: An empty score range, or quantiles that are not ascending finite numbers.
    """

    low: float = 0.0
    high: float = 5.0
    quantiles: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        if not (math.isfinite(self.low) and math.isfinite(self.high) and self.low < self.high):
            raise MaAgiqaError(f"Expected low < high, got {self.low} and {self.high}.")
        checked_quantiles(self.quantiles)


@dataclass(frozen=True)
class CheckpointFacts:
    """What a model file says about itself, besides its sizes.

    Attributes:
        name: Short name of the scorer.
        trained_on: The data behind the scores.
        low: Lower end of the score range of the first target.
        high: Upper end; higher is better.
        quantiles: Scores at evenly spaced shares, 0 % to 100 %, of the pictures behind percentiles; may be empty.
        further: The same of the model's other targets, by name; one that is not there has the first one's range.
        semantic_model: Hub id of the semantic model; None if any may have been used, or none is.
        semantic_revision: Its revision; None for the newest.
        questions: What the semantic model is asked, by the name of the expert that reads the answer; empty for the
            usual ones, or if there is no semantic model. That of "alignment" holds "{prompt}".

    Raises:
        ValueError: An empty score range, quantiles that are not ascending finite numbers, or questions for other
            experts.
    """

    name: str = "ma-agiqa"
    trained_on: str = ""
    low: float = 0.0
    high: float = 5.0
    quantiles: tuple[float, ...] = ()
    further: Mapping[str, TargetScale] = field(default_factory=dict)
    semantic_model: str | None = None
    semantic_revision: str | None = None
    questions: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        TargetScale(self.low, self.high, self.quantiles)  # refuses what is impossible
        if self.questions and set(self.questions) - {ALIGNMENT} != set(QUESTIONS):
            raise MaAgiqaError(f"Expected questions for {' and '.join(QUESTIONS)}, got {', '.join(self.questions)}.")
        if not names_prompt(self.questions.get(ALIGNMENT, PROMPT)):
            raise MaAgiqaError(f"Expected {PROMPT} in the question of alignment, got {self.questions[ALIGNMENT]!r}.")

    def scale_of(self, target: str, targets: Sequence[str]) -> TargetScale:
        """What the scores for one of a model's `targets` mean."""
        if target == targets[0]:
            return TargetScale(self.low, self.high, self.quantiles)
        return self.further.get(target, TargetScale(self.low, self.high))


@as_loaded(float32_by_default=False)
def save_checkpoint(model: MaAgiqa, path: str | os.PathLike[str], facts: CheckpointFacts | None = None) -> None:
    """Writes a model file, whole or not at all.

    Args:
        model: Its weights are written in the dtype that they have.
        path: Ends in .safetensors.
        facts: Default: those of a model that nothing is known about.

    Raises:
        ValueError: Another suffix.

    Example:
        >>> import tempfile
        >>> from ma_agiqa_core.model import MaAgiqa, MaAgiqaConfig
        >>> config = MaAgiqaConfig(
        ...     backbone="test_vit", image_size=32, backbone_blocks=(0, 1), stage_widths=(16, 8),
        ...     swin_heads=(2, 2), window_size=2, swin_mlp_width=16, semantic_dim=0,
        ... )
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     save_checkpoint(MaAgiqa(config), f"{folder}/mine.safetensors")
        ...     [file.name for file in Path(folder).iterdir()]
        ['mine.safetensors']
    """
    target = _target(path)
    facts = facts or CheckpointFacts()
    if strange := sorted(set(facts.further) - set(model.config.targets[1:])):
        raise MaAgiqaError(
            f"Expected scales of {', '.join(model.config.targets[1:]) or 'no target'}, got {strange[0]}."
        )
    questions = {**questions_for(model.config.targets), **facts.questions} if model.config.semantic_dim else {}
    semantic = {"model": facts.semantic_model, "revision": facts.semantic_revision, "questions": dict(questions)}
    metadata = {
        "format": FORMAT,
        "kind": KIND,
        "config": json.dumps(model.config.to_dict()),
        "name": facts.name,
        "trained_on": facts.trained_on,
        "low": repr(float(facts.low)),
        "high": repr(float(facts.high)),
        "quantiles": json.dumps(list(facts.quantiles)),
        "semantic": json.dumps(semantic, ensure_ascii=False),
        "further": json.dumps({target: dataclasses.asdict(scale) for target, scale in facts.further.items()}),
    }
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()}
    with atomic_write(target) as temporary:
        save_file(tensors, temporary, {f"ma_agiqa.{key}": value for key, value in metadata.items()})


@as_loaded()
def load_checkpoint(path: str | os.PathLike[str]) -> MaAgiqa:
    """The model of a file that `save_checkpoint` wrote: float32, on the CPU, in eval mode.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: The file is damaged, or holds another model; the message names it and what is wrong.

    Example:
        >>> import tempfile
        >>> from ma_agiqa_core.checkpoint import CheckpointFacts, load_checkpoint, read_facts, save_checkpoint
        >>> from ma_agiqa_core.model import MaAgiqa, MaAgiqaConfig
        >>> config = MaAgiqaConfig(
        ...     backbone="test_vit", image_size=32, backbone_blocks=(0, 1), stage_widths=(16, 8),
        ...     swin_heads=(2, 2), window_size=2, swin_mlp_width=16, semantic_dim=4,
        ... )
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = f"{folder}/mine.safetensors"
        ...     save_checkpoint(MaAgiqa(config), path, CheckpointFacts(name="mine", low=1, high=5))
        ...     model, facts = load_checkpoint(path), read_facts(path)
        >>> model.config == config, facts.name, facts.high
        (True, 'mine', 5.0)
    """
    file = Path(path)
    metadata = _read_metadata(file)
    try:
        model = without_weights(MaAgiqaConfig.from_dict(json.loads(metadata["config"])))
    except (ValueError, RecursionError) as error:
        raise MaAgiqaError(f"Expected the config of a model in {str(file)!r}, got another: {error}") from error
    expected = model.state_dict()
    weights = {}
    with _opened(file) as checkpoint:
        names = checkpoint.keys()
        _check_names(set(names), set(expected), file)
        for name in names:
            tensor = _checked(checkpoint.get_tensor(name), name, expected[name], file)
            weights[name] = tensor.to(torch.float32, copy=True)  # what safetensors gives may be the file itself
    model.load_state_dict(weights, assign=True)
    return model.eval()


def read_facts(path: str | os.PathLike[str]) -> CheckpointFacts:
    """What a model file says about itself, without its tensors.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: The file is damaged, or holds another model.
    """
    file = Path(path)
    metadata = _read_metadata(file)
    try:
        semantic = json.loads(metadata["semantic"])
        return CheckpointFacts(
            name=metadata["name"],
            trained_on=metadata["trained_on"],
            low=float(metadata["low"]),
            high=float(metadata["high"]),
            quantiles=tuple(float(score) for score in json.loads(metadata["quantiles"])),
            further={
                str(target): TargetScale(scale["low"], scale["high"], tuple(scale["quantiles"]))
                for target, scale in json.loads(metadata.get("further", "{}")).items()
            },
            semantic_model=semantic["model"],
            semantic_revision=semantic["revision"],
            questions={str(name): str(question) for name, question in semantic["questions"].items()},
        )
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise MaAgiqaError(
            f"Expected the metadata of a ma-agiqa checkpoint in {str(file)!r}, got {error!r}. {_ADVICE}"
        ) from error


def agiqa_3k_facts() -> CheckpointFacts:
    """The facts of the published model; its percentiles are among the 2982 pictures of AGIQA-3K."""
    labels = json.loads(Path(__file__).with_name("agiqa_3k.json").read_text(encoding="utf-8"))
    return CheckpointFacts(
        name="ma-agiqa-agiqa-3k",
        trained_on="AGIQA-3K",
        quantiles=tuple(labels["quantiles"]),
        semantic_model="MAGAer13/mplug-owl2-llama2-7b",
        questions=QUESTIONS,
    )


@as_loaded()
def convert_file(
    published: str | os.PathLike[str], out: str | os.PathLike[str], *, trained_on: str | None = None
) -> MaAgiqaConfig:
    """Writes the published checkpoint as a model file.

    Args:
        published: The authors' file, a torch pickle; nothing in it is executed.
        out: The .safetensors file to write.
        trained_on: The data it was trained on. None: AGIQA-3K, whose checkpoint is the only one published.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: The file holds something else; the message names it.
    """
    _target(out)  # said before the file is read
    facts = agiqa_3k_facts()
    if trained_on not in (None, facts.trained_on):
        facts = CheckpointFacts(
            trained_on=str(trained_on), semantic_model=facts.semantic_model, questions=facts.questions
        )
    state_dict = read_published(Path(published))
    try:
        converted, config = convert_reference(state_dict)
    except MaAgiqaError as error:
        raise MaAgiqaError(f"{str(published)!r} cannot be converted: {error}") from error
    model = without_weights(config)
    model.load_state_dict(converted, assign=True)
    save_checkpoint(model, out, facts)
    return config


def _target(path: str | os.PathLike[str]) -> Path:
    target = Path(path)
    if target.suffix.lower() != ".safetensors":
        raise MaAgiqaError(f"Expected a path that ends in .safetensors, got {str(path)!r}.")
    return target


def _read_metadata(path: Path) -> dict[str, str]:
    """The entries of `_KEYS`, without their prefix."""
    with _opened(path) as checkpoint:
        metadata = {key.removeprefix("ma_agiqa."): value for key, value in (checkpoint.metadata() or {}).items()}
    found = (metadata.get("format"), metadata.get("kind"))
    if found != (FORMAT, KIND):
        raise MaAgiqaError(
            f"Expected a checkpoint of format {FORMAT!r} and kind {KIND!r}, got {found[0]!r} and {found[1]!r} in "
            f"{str(path)!r}. {_ADVICE}"
        )
    if missing := [key for key in _KEYS if key not in metadata]:
        raise MaAgiqaError(f"Expected ma_agiqa.{missing[0]} in the metadata of {str(path)!r}, got none. {_ADVICE}")
    return metadata


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    if not path.is_file():
        raise MissingFileError(f"Expected a checkpoint, got {str(path)!r}: no such file.")
    try:
        with safe_open(path, framework="pt") as checkpoint:
            yield checkpoint
    except (SafetensorError, OSError) as error:
        raise MaAgiqaError(f"Expected a whole safetensors file, got {str(path)!r}: {error}. {_ADVICE}") from error


def _check_names(found: set[str], expected: set[str], path: Path) -> None:
    for names, what in ((found - expected, "unknown"), (expected - found, "missing")):
        if names:
            raise MaAgiqaError(
                f"Expected the tensors of its config in {str(path)!r}, got {listed(names, what)}. {_ADVICE}"
            )


def _checked(tensor: Tensor, name: str, expected: Tensor, path: Path) -> Tensor:
    if tensor.shape != expected.shape or not tensor.is_floating_point():
        raise MaAgiqaError(
            f"Expected {name} of shape {tuple(expected.shape)} in {str(path)!r}, got {tensor.dtype} "
            f"{tuple(tensor.shape)}. {_ADVICE}"
        )
    low, high = tensor.aminmax()  # a NaN is both; much faster than to look at each value
    if not (low.isfinite() and high.isfinite()):
        raise MaAgiqaError(f"Expected finite weights in {str(path)!r}, got NaN or infinity in {name}. {_ADVICE}")
    return tensor
