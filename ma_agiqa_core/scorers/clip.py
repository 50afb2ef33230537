"""How well a picture fits its prompt, as CLIP-family models see it: CLIPScore, PickScore, SigLIP.

With cos the cosine between the picture's and the prompt's embedding:

- CLIPScore, 100 * max(cos, 0): Hessel et al. 2021 (arXiv 2104.08718) with the factor of torchmetrics, for any CLIP.
- PickScore, exp(logit_scale) * cos: Kirstain et al. 2023 (arXiv 2305.01569), for yuvalkirstain/PickScore_v1 and what
  was tuned from it, known by "pickscore" in the name of the model or in its config's `_name_or_path`.
- SigLIP, exp(logit_scale) * cos + logit_bias: the logarithm of the odds that the two belong together, as it was
  trained (Zhai et al. 2023, arXiv 2303.15343). Its cosines lie around 0, where CLIPScore would cut half of them off.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from typing import Any

import PIL.Image
import torch
from torch import Tensor
from torch.nn import functional as F

from ..compute.batching import run_in_batches
from ..compute.caller_state import as_loaded
from ..compute.devices import precision_setting, resolve_device, resolve_dtype
from ..compute.own_lock import OwnLock
from ..compute.progress import tick
from ..errors import MaAgiqaError
from ..model_files.transformers_folder import fingerprint
from ..pictures.inputs import Picture
from ..pictures.prompts import prompt_fault
from ..preprocess import to_bytes
from .clip_files import ClipFiles, find_clip, load_clip, load_clip_processor
from .family import Request
from .picture_scorer import Outcome, PictureScorer, in_groups, joined, precision_reason
from .scorer import ScorerInfo

logger = logging.getLogger(__name__)

CLIPSCORE_WEIGHT = 100.0  # torchmetrics.functional.multimodal.clip_score; Hessel et al. have 2.5
_FORMULAS = {
    "clipscore": "CLIPScore, 100 * max(cos, 0)",
    "pickscore": "PickScore, exp(logit_scale) * cos",
    "siglip": "SigLIP's logit, exp(logit_scale) * cos + logit_bias",
}
_DESCRIPTION = (
    "How well a picture fits its prompt: {formula}, cos between the embeddings of {name}. The prompt is cut at "
    "{limit} tokens."
)
_MOST_REMEMBERED = 1000  # prompts whose truncation was told


def load(request: Request) -> ClipScorer:
    """Loads a CLIP, SigLIP or PickScore: see `ClipScorer.from_pretrained`.

    Raises:
        ValueError: No model is named, or an option does not apply.
    """
    if not request.model:
        raise MaAgiqaError(
            "Expected a folder or Hub id after 'clip:', got none. Use 'clip:openai/clip-vit-base-patch32'."
        )
    request.refuse_semantic_options(f"'clip:{request.model}'")
    return ClipScorer.from_pretrained(
        request.model,
        device=request.device,
        dtype=request.dtype,
        revision=request.revision,
        local_files_only=request.local_files_only,
    )


class ClipScorer(PictureScorer):
    """The `Scorer` of text-image models: how well a picture fits its prompt, higher is better.

    A score depends neither on the other pictures nor on the batch size. Prompts longer than the model reads (77
    tokens for most) are cut there, and the log says so once for each.

    Args:
        model: A CLIPModel or SiglipModel of transformers in eval mode, where it is to compute.
        processor: Its tokenizer and image processor.
        formula: "clipscore", "pickscore" or "siglip".
        name: Of the model.
        revision: Which weights.

    Attributes:
        formula: How a cosine becomes a score.
    """

    def __init__(self, model: Any, processor: Any, *, formula: str, name: str, revision: str) -> None:
        if formula not in _FORMULAS:
            raise MaAgiqaError(f"Expected formula {', '.join(map(repr, _FORMULAS))}, got {formula!r}.")
        self.model, self.formula = model, formula
        self._processor = processor
        self._limit = _token_limit(model.config, processor.tokenizer)
        self._tokenizing = OwnLock()  # a tokenizer's padding and truncation are settings of its own
        self._cut: set[str] = set()
        scale, bias = self._scale_and_bias()
        low, high = (0.0, CLIPSCORE_WEIGHT) if formula == "clipscore" else (bias - scale, bias + scale)
        self._info = ScorerInfo(
            name=f"{formula}({name})",
            revision=revision,
            low=low,
            high=high,
            trained_on="Pick-a-Pic" if formula == "pickscore" else "pairs of pictures and texts, see the model's page",
            needs_prompt=True,
            targets=("alignment",),
            target="alignment",
            description=_DESCRIPTION.format(formula=_FORMULAS[formula], name=name, limit=self._limit),
        )

    @property
    def info(self) -> ScorerInfo:
        return self._info

    @classmethod
    @as_loaded()
    def from_pretrained(
        cls,
        model: str | os.PathLike[str],
        *,
        device: str | torch.device = "auto",
        dtype: str | torch.dtype = "auto",
        revision: str | None = None,
        local_files_only: bool = False,
    ) -> ClipScorer:
        """Loads a model of transformers, whose files and options are checked before anything is loaded.

        Args:
            model: Folder, or Hub id (`owner/name`, `owner/name@revision`).
            device: "auto" takes cuda, then mps, then cpu.
            dtype: "auto" is float32: in half precision seeds of one prompt change places.
            revision: Of a Hub id a branch, tag or commit; of a folder the first digits of its fingerprint.
            local_files_only: Never use the network. Models already on this machine never do.

        Raises:
            FileNotFoundError: The model is not on this machine and cannot be downloaded.
            ValueError: A file is missing or damaged, it is another kind of model, or an option is wrong.
        """
        from ..model_files.hub import is_hub_id

        where = resolve_device(device)
        precision = torch.float32 if dtype == "auto" else resolve_dtype(dtype, where)
        is_remote = is_hub_id(model)
        files = find_clip(model, revision=revision if is_remote else None, local_files_only=local_files_only)
        digits = fingerprint(files.folder)[:12]
        if not is_remote and revision is not None and revision != digits:
            raise MaAgiqaError(f"Expected revision {revision!r}, got {digits!r} in {str(files.folder)!r}.")
        processor = load_clip_processor(files)
        network = load_clip(files, precision, where)
        return cls(network, processor, formula=_formula_of(files), name=files.name, revision=digits)

    def set_up(self) -> AbstractContextManager[None]:
        """The caller's default dtype too, since transformers goes by it."""
        return as_loaded()

    def outcomes(
        self, pictures: Iterable[Picture], prompts: Sequence[str] | None, batch_size: int | None
    ) -> Iterator[Outcome]:
        """Scores with the prompts that the pictures were made from, or reasons; see `PictureScorer.outcomes`."""
        faults = {text: prompt_fault(text) for text in prompts or ()}
        distinct = [text for text, fault in faults.items() if fault is None]
        embeddings = dict(zip(distinct, self._text_embeddings(distinct, batch_size), strict=True)) if distinct else {}
        for group, texts in in_groups(pictures, prompts or ()):
            of_group = texts or []
            errors = [picture.error or faults[text] for picture, text in zip(group, of_group, strict=True)]
            yield from self._score_group(group, errors, [embeddings.get(text) for text in of_group], batch_size)

    def _score_group(
        self,
        pictures: list[Picture],
        errors: list[str | None],
        texts: Sequence[Tensor | None],
        batch_size: int | None,
    ) -> list[Outcome]:
        """Outcomes of pictures: `errors` says why one has none, `texts` (D,) are the prompts' embeddings."""
        errors = list(errors)
        pixels: dict[int, Tensor] = {}
        for row, picture in enumerate(pictures):
            if picture.pixels is not None and errors[row] is None:
                try:
                    pixels[row] = self._pixel_values(picture.pixels)
                except (ValueError, ZeroDivisionError, RuntimeError) as error:  # e.g. 1 pixel high, 5000 wide
                    errors[row] = f"its shape is refused by {type(self._processor).__name__}: {error}".rstrip(".")
        if not pixels:
            return joined(errors, (), precision_reason)
        embedded = run_in_batches(
            list(pixels.values()),
            lambda batch: self._picture_embeddings(torch.stack(list(batch))),
            device=self._device,
            what=("clip pictures", self._info.name, self._dtype),
            batch_size=batch_size,
        )
        wanted = torch.stack([text for row in pixels if (text := texts[row]) is not None])
        cosines = (embedded * wanted).sum(1)
        return joined(errors, self._score_of(cosines).tolist(), precision_reason)

    def _score_of(self, cosines: Tensor) -> Tensor:
        if self.formula == "clipscore":
            return CLIPSCORE_WEIGHT * cosines.clamp(min=0)
        scale, bias = self._scale_and_bias()
        return scale * cosines + bias

    def _scale_and_bias(self) -> tuple[float, float]:
        scale = float(self.model.logit_scale.detach().cpu().double().exp())
        return scale, float(self.model.logit_bias.detach()) if self.formula == "siglip" else 0.0

    def _pixel_values(self, pixels: Tensor) -> Tensor:
        """One picture (3, H, W) as the model takes it: (3, S, S) float32, rounded to 8 bits like a file."""
        picture = PIL.Image.fromarray(to_bytes(pixels).movedim(0, -1).cpu().numpy())
        return self._processor.image_processor(images=picture, return_tensors="pt")["pixel_values"][0]

    def _picture_embeddings(self, pixel_values: Tensor) -> Tensor:
        with torch.inference_mode():
            features = self.model.get_image_features(pixel_values=pixel_values.to(self._device, self._dtype))
        tick(len(pixel_values))
        return _unit_length(features)

    def _text_embeddings(self, texts: list[str], batch_size: int | None) -> Tensor:
        return run_in_batches(
            texts,
            lambda batch: self._embed_texts(list(batch)),
            device=self._device,
            what=("clip texts", self._info.name, self._dtype),
            batch_size=batch_size,
        )

    def _embed_texts(self, texts: list[str]) -> Tensor:
        tokenizer = self._processor.tokenizer
        with self._tokenizing:
            for text in texts:
                self._tell_if_cut(text, len(tokenizer(text, verbose=False)["input_ids"]))
            # All to one length: SigLIP was trained so, and no batch then differs from another.
            tokens = tokenizer(
                texts, padding="max_length", truncation=True, max_length=self._limit, return_tensors="pt"
            )
        # A tokenizer without a mask (SigLIP's) goes with a model that was trained without one.
        inputs = {name: tokens[name].to(self._device) for name in ("input_ids", "attention_mask") if name in tokens}
        with torch.inference_mode():
            return _unit_length(self.model.get_text_features(**inputs))

    def _tell_if_cut(self, text: str, length: int) -> None:
        if length > self._limit and text not in self._cut and len(self._cut) < _MOST_REMEMBERED:
            self._cut.add(text)
            logger.warning(
                "%s reads the first %d of the %d tokens of the prompt %.200r",
                self._info.name,
                self._limit,
                length,
                text,
            )

    @property
    def settings(self) -> tuple[str, ...]:
        """Its precision, for `scorer_identity`."""
        return precision_setting(self._dtype)

    @property
    def networks(self) -> tuple[torch.nn.Module, ...]:
        """What holds its weights; it computes wherever these are at each call."""
        return (self.model,)

    @property
    def _device(self) -> torch.device:
        return next(self.model.parameters()).device

    @property
    def _dtype(self) -> torch.dtype:
        return next(self.model.parameters()).dtype


def _formula_of(files: ClipFiles) -> str:
    if files.model_type == "siglip":
        return "siglip"
    return "pickscore" if files.is_pickscore else "clipscore"


def _token_limit(config: Any, tokenizer: Any) -> int:
    """How many tokens the model reads, start and end included; a tokenizer may not know."""
    return min(int(config.text_config.max_position_embeddings), int(tokenizer.model_max_length))


def _unit_length(features: Any) -> Tensor:
    """Features (B, D), in transformers 5 inside an output object, as float32 on the CPU, of length 1."""
    embeddings = features if isinstance(features, Tensor) else features.pooler_output
    return F.normalize(embeddings.float(), dim=-1).cpu()
