"""Scores pictures with MA-AGIQA: the visual features, the semantic vectors and the mixture of experts together."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..checkpoint import CheckpointFacts, load_checkpoint, read_facts
from ..compute.batching import run_in_batches
from ..compute.devices import precision_setting, resolve_device, resolve_dtype
from ..compute.progress import tick
from ..errors import MaAgiqaError, MissingFileError
from ..model import MaAgiqa, MaAgiqaConfig
from ..model_files.digest import file_digest
from ..pictures.inputs import Picture
from ..preprocess import visual_pixels_of
from ..semantic.extractor import SemanticExtractor, SemanticVectors
from ..semantic.questions import questions_for
from .family import Request
from .picture_features.features import PictureFeatures
from .picture_features.load import load_described
from .picture_scorer import Outcome, PictureScorer, in_groups, joined, precision_reason
from .scorer import ScorerInfo

NO_SEMANTIC = "none"
_DESCRIPTION = "MA-AGIQA (Wang et al. 2024): quality features of a vision transformer"
_WITH_SEMANTIC = ", joined by a mixture of experts with what a large multimodal model says about coherence and meaning."
_VISUAL_ALONE = "; the visual expert alone, without a language model."


def load(request: Request) -> MaAgiqaScorer:
    """Loads a checkpoint: see `MaAgiqaScorer.from_file`."""
    return MaAgiqaScorer.from_file(
        Path(request.model),
        semantic=request.semantic,
        cache=request.cache,
        device=request.device,
        dtype=request.dtype,
        quantization=request.quantization,
        device_map=request.device_map,
        local_files_only=request.local_files_only,
        target=request.target,
        without=request.without,
    )


class MaAgiqaScorer(PictureScorer):
    """The `Scorer` of MA-AGIQA checkpoints: predicted mean opinion scores of one target, higher is better.

    A score depends neither on the other pictures nor on the batch size.

    Args:
        model: In eval mode, on the device and in the dtype to compute in.
        info: What the scorer says about itself.
        extractor: Where the semantic vectors come from; None for the visual expert alone. It is asked what the
            target of `info` needs.
        features: What describes pictures, for a model that takes descriptions.
    """

    def __init__(
        self,
        model: MaAgiqa,
        info: ScorerInfo,
        extractor: SemanticExtractor | None,
        features: PictureFeatures | None = None,
    ) -> None:
        self.model, self._info, self.extractor, self.features = model, info, extractor, features

    @property
    def info(self) -> ScorerInfo:
        return self._info

    @classmethod
    def from_file(
        cls,
        path: Path,
        *,
        semantic: str | os.PathLike[str] | None = None,
        cache: str | os.PathLike[str] | None = None,
        device: str | torch.device = "auto",
        dtype: str | torch.dtype = "auto",
        quantization: str | None = None,
        device_map: Any = None,
        local_files_only: bool = False,
        target: str | None = None,
        without: Collection[str] = (),
    ) -> MaAgiqaScorer:
        """Loads a checkpoint; the language model itself is loaded when the first picture needs it.

        Args:
            path: A .safetensors checkpoint.
            semantic: Folder or Hub id of the semantic model; None takes the one that the checkpoint names. "none"
                silences all experts that read its vectors, and needs no language model.
            cache: Folder of semantic vectors.
            device: "auto" takes cuda, then mps, then cpu.
            dtype: Of all parts. "auto" computes the network of this checkpoint in float32 and the language
                model as `SemanticExtractor` says.
            quantization: Of the language model: None, "int8" or "nf4".
            device_map: Of the language model.
            local_files_only: Never use the network.
            target: What to score; None takes the checkpoint's first.
            without: Experts to silence, for an ablation: see `MaAgiqa.switch_off`.

        Raises:
            FileNotFoundError: The semantic model is not on this machine and cannot be downloaded.
            ValueError: A damaged checkpoint, a semantic model that does not fit it, a target that it does not have, or
                a wrong option.
        """
        model, facts = load_checkpoint(path), read_facts(path)
        targets = model.config.targets
        target = targets[0] if target is None else target
        if target not in targets:
            raise MaAgiqaError(f"Expected a target of {str(path)!r}, {', '.join(targets)}, got {target!r}.")
        where = resolve_device(device)
        if semantic == NO_SEMANTIC:
            semantic, without = None, {*without, *model.config.vectors}
        model.switch_off(without)
        extractor = None
        if asked := [name for name in model.config.vectors_for([target]) if name not in without]:
            extractor = _extractor(
                path,
                facts,
                semantic,
                model.config,
                target,
                asked,
                cache=cache,
                device=where,
                dtype=dtype,
                quantization=quantization,
                device_map=device_map,
                local_files_only=local_files_only,
            )
        else:
            _refuse_semantic_options(path, semantic=semantic, quantization=quantization, device_map=device_map)
        features = load_described(model.config.backbone, where, path) if model.config.description_columns else None
        is_auto = dtype == "auto"
        model = model.to(where, torch.float32 if is_auto else resolve_dtype(dtype, where)).eval()
        revision = file_digest(path)[:12]
        scale = facts.scale_of(target, targets)
        info = ScorerInfo(
            name="-".join([facts.name, *([target] if target != targets[0] else []), *_silenced(without)]),
            revision=revision,
            low=scale.low,
            high=scale.high,
            trained_on=facts.trained_on,
            needs_prompt=extractor is not None and extractor.needs_prompt,
            quantiles=scale.quantiles,
            description=_DESCRIPTION + (_VISUAL_ALONE if extractor is None else _WITH_SEMANTIC),
            targets=targets,
            target=target,
        )
        return cls(model, info, extractor, features)

    def outcomes(
        self, pictures: Iterable[Picture], prompts: Sequence[str] | None, batch_size: int | None
    ) -> Iterator[Outcome]:
        """Scores, or reasons why there are none; see `PictureScorer.outcomes`. Prompts are looked at only if
        `info.needs_prompt`.

        Raises:
            OSError: The cache of semantic vectors cannot be written.
            UnusableModelError: The language model cannot be loaded.
        """
        for group, texts in in_groups(pictures, prompts):
            yield from self._score_group(group, texts, batch_size)

    def _score_group(self, pictures: list[Picture], prompts: list[str] | None, batch_size: int | None) -> list[Outcome]:
        semantic = None if self.extractor is None else self.extractor.vectors(pictures, batch_size, prompts)
        errors = list([picture.error for picture in pictures] if semantic is None else semantic.errors)
        described: dict[int, Tensor] = {}
        if self.features is not None:
            ready = [row for row, error in enumerate(errors) if error is None]
            found = self.features.describe_group([pictures[row] for row in ready], batch_size)
            for row, description in zip(ready, found, strict=True):
                if isinstance(description, str):
                    errors[row] = description
                else:
                    described[row] = description
        rows = [row for row, error in enumerate(errors) if error is None]
        if not rows:
            return joined(errors, (), precision_reason)
        results = run_in_batches(
            rows,
            lambda batch: self._score_batch(self._network_inputs(pictures, described, batch), batch, semantic),
            device=self._device,
            what=("ma-agiqa", self.model.config, self._dtype),
            batch_size=batch_size,
        )
        return joined(errors, results.tolist(), precision_reason)

    def _network_inputs(self, pictures: Sequence[Picture], described: dict[int, Tensor], rows: Sequence[int]) -> Tensor:
        """Of these rows the pixels (B, 3, S, S), or the descriptions (B, D)."""
        if self.features is not None:
            return torch.stack([described[row] for row in rows]).to(self._device)
        return visual_pixels_of(
            [pixels for row in rows if (pixels := pictures[row].pixels) is not None],
            size=self.model.config.image_size,
            device=self._device,
        )

    def _score_batch(self, pixels: Tensor, rows: Any, semantic: SemanticVectors | None) -> Tensor:
        vectors = {}
        if semantic is not None:
            vectors = {
                name: vector[list(rows)].to(self._device, self._dtype) for name, vector in semantic.vectors.items()
            }
        with torch.inference_mode():
            scores = self.model(pixels.to(self._dtype), **vectors, target=self.info.target).float().cpu()
        if self.features is None:  # else it was told when they were described
            tick(len(pixels))
        return scores

    @property
    def settings(self) -> tuple[str, ...]:
        """Precision and language model, for `scorer_identity`."""
        semantic = () if self.extractor is None else self.extractor.settings
        return (*precision_setting(self._dtype), *semantic)

    @property
    def networks(self) -> tuple[torch.nn.Module, ...]:
        """What holds its weights, the language model apart; it computes wherever these are at each call."""
        return (self.model,) if self.features is None else (*self.features.networks, self.model)

    @property
    def _device(self) -> torch.device:
        return next(self.model.parameters()).device

    @property
    def _dtype(self) -> torch.dtype:
        return next(self.model.parameters()).dtype


def _silenced(experts: Collection[str]) -> list[str]:
    return [f"without-{'-'.join(sorted(experts))}"] if experts else []


def _extractor(
    path: Path,
    facts: CheckpointFacts,
    semantic: str | os.PathLike[str] | None,
    config: MaAgiqaConfig,
    target: str,
    vectors: Sequence[str],
    **options: Any,
) -> SemanticExtractor:
    model = semantic if semantic is not None else facts.semantic_model
    if model is None:
        raise MaAgiqaError(
            f"Expected a semantic model for {str(path)!r}, whose checkpoint names none, got None. "
            "Pass semantic=FOLDER (on the command line --semantic)."
        )
    if semantic is None:
        options["revision"] = facts.semantic_revision
    try:
        known = {**questions_for([target]), **facts.questions}
        asked = {name: known[name] for name in vectors}
        extractor = SemanticExtractor(model, questions=asked, **options)
    except FileNotFoundError as error:
        if semantic is not None:
            raise
        raise MissingFileError(
            f"{error} {str(path)!r} was trained with it; if you have it in a folder, pass semantic=FOLDER "
            "(on the command line --semantic)."
        ) from error
    if extractor.hidden_size != (width := config.semantic_dim):
        raise MaAgiqaError(
            f"Expected a semantic model of width {width} for {str(path)!r}, got {extractor.hidden_size} from "
            f"{str(model)!r}. Use the one it was trained with"
            f"{f', {facts.semantic_model}' if facts.semantic_model else ''}."
        )
    return extractor


def _refuse_semantic_options(path: Path, **options: Any) -> None:
    for option, value in options.items():
        if value is not None:
            raise MaAgiqaError(
                f"Expected no {option}= for {str(path)!r}, got {value!r}. It is a visual expert alone, without a "
                "semantic model."
            )
