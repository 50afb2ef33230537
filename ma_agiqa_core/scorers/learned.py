"""A scorer of somebody's own taste, as `ma-agiqa learn` makes it from picks.

Frozen features of a picture, a linear function of them, and the score of the scorer that it set out from (its prior):
`10 * sigmoid(bias + prior_weight * prior + weight . standardised features)`. The file holds the function alone; lite's
features and its score come from the package, a model's from the folder that it was learned with.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from ..atomic_write import atomic_write
from ..compute.caller_state import as_loaded
from ..compute.devices import resolve_device
from ..errors import MaAgiqaError
from ..pictures.inputs import Picture
from .family import Request
from .picture_features.features import PictureFeatures
from .picture_features.load import beside, check_source, load_features
from .picture_scorer import Outcome, PictureScorer, in_groups
from .prior import NO_PRIOR, Prior, load_prior
from .scorer import ScorerInfo

KIND = "learned"  # of its checkpoints
HIGH = 10.0  # scores run from 0
MOST = 4.0  # deviations: beyond what it was learned on, a linear function would say anything
DESCRIPTION = (
    "The taste of whoever made {picks} picks, learned on {features} features; it set out from {prior}. {held_out} It "
    "says little of pictures unlike those that were picked from."
)


@dataclass(frozen=True)
class LearnedFacts:
    """What the file says beside the function.

    Attributes:
        name: Of the scorer.
        features: As `load_features` takes it.
        features_revision: Of those that it was learned on.
        prior: "lite" or "none".
        prior_revision: Of the scorer that it set out from; "" for none.
        trained_on: For people.
        description: For people.
        quantiles: Scores at evenly spaced shares of the pictures that it was learned from.
        evidence: Counts and held-out figures, for JSON.
    """

    name: str
    features: str
    features_revision: str
    prior: str
    prior_revision: str
    trained_on: str
    description: str
    quantiles: tuple[float, ...]
    evidence: Mapping[str, Any]

    def metadata(self) -> dict[str, str]:
        """For a checkpoint."""
        texts = ("name", "features", "features_revision", "prior", "prior_revision", "trained_on", "description")
        entries = {name: str(getattr(self, name)) for name in texts}
        entries |= {"quantiles": json.dumps([float(f"{q:.7g}") for q in self.quantiles])}
        entries |= {"evidence": json.dumps(self.evidence, allow_nan=False), "format": "1", "kind": KIND}
        return {f"ma_agiqa.{name}": text for name, text in entries.items()}

    @classmethod
    def from_metadata(cls, metadata: Mapping[str, str]) -> LearnedFacts:
        """Of a checkpoint.

        Raises:
            ValueError: An entry is missing or none.
        """
        try:
            texts = ("name", "features", "features_revision", "prior", "prior_revision", "trained_on", "description")
            known = {name: metadata[f"ma_agiqa.{name}"] for name in texts}
            quantiles = tuple(float(value) for value in json.loads(metadata["ma_agiqa.quantiles"]))
            return cls(**known, quantiles=quantiles, evidence=json.loads(metadata["ma_agiqa.evidence"]))
        except (KeyError, TypeError, ValueError, RecursionError) as error:
            raise MaAgiqaError(f"the entry {error} is missing or damaged. Learn it again from your picks") from error


class Taste(nn.Module):
    """The function: descriptions and prior -> log odds that a picture is liked.

    Args:
        width: D, columns of a description.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.mean = nn.Buffer(torch.zeros(width))
        self.deviation = nn.Buffer(torch.ones(width))
        self.weight = nn.Buffer(torch.zeros(width))
        self.prior_weight = nn.Buffer(torch.zeros(()))
        self.bias = nn.Buffer(torch.zeros(()))

    def forward(self, description: Tensor, prior: Tensor) -> Tensor:
        """(B, D) and the prior's standardised scores (B,) -> (B,)."""
        return self.standardise(description) @ self.weight + self.prior_weight * prior + self.bias

    def standardise(self, description: Tensor) -> Tensor:
        """(B, D), each column in deviations from its mean, at most `MOST`."""
        return ((description - self.mean) / self.deviation).clamp(-MOST, MOST)


class LearnedScorer(PictureScorer):
    """The `Scorer` of a taste: 0 to 10, about ten times the chance that the picture is liked.

    Args:
        taste: The function.
        features: What it reads.
        prior: The scorer that it set out from.
        facts: For its file.
        content: Of its file, if it came from one; its digest is the scorer's revision.

    Attributes:
        facts: Counts and held-out figures are in `facts.evidence`.
    """

    def __init__(
        self,
        taste: Taste,
        features: PictureFeatures,
        prior: Prior,
        facts: LearnedFacts,
        content: bytes | None = None,
    ) -> None:
        self.taste, self.features, self.prior, self.facts = taste.eval(), features, prior, facts
        if content is None:
            tensors = {name: part.cpu().contiguous() for name, part in taste.state_dict().items()}
            content = save(tensors, facts.metadata())
        self._content = content
        self._info = ScorerInfo(
            name=facts.name,
            revision=hashlib.sha256(self._content).hexdigest()[:12],
            low=0.0,
            high=HIGH,
            trained_on=facts.trained_on,
            quantiles=facts.quantiles,
            description=facts.description,
            targets=("taste",),
            target="taste",
        )

    @property
    def info(self) -> ScorerInfo:
        return self._info

    def save(self, path: Path) -> None:
        """Writes the file that `load_scorer` takes, whole or not at all.

        Raises:
            OSError: It cannot be written.
        """
        with atomic_write(path, is_shared=True) as temporary:
            temporary.write_bytes(self._content)

    def outcomes(
        self, pictures: Iterable[Picture], prompts: Sequence[str] | None, batch_size: int | None
    ) -> Iterator[Outcome]:
        """Scores, or reasons why there are none; see `PictureScorer.outcomes`. Prompts are not used."""
        for group, _ in in_groups(pictures, None):
            described = list(self.features.describe(group, batch_size))
            whole = [row for row, description in enumerate(described) if isinstance(description, Tensor)]
            scores = iter(self._scores(group, described, whole, batch_size))
            yield from (next(scores) if row in set(whole) else str(found) for row, found in enumerate(described))

    def _scores(
        self, group: Sequence[Picture], described: Sequence[Tensor | str], rows: Sequence[int], batch_size: int | None
    ) -> list[Outcome]:
        if not rows:
            return []
        descriptions = torch.stack([found for found in described if isinstance(found, Tensor)])
        prior = self.prior.standardised([group[row] for row in rows], descriptions, batch_size)
        known = torch.tensor([0.0 if isinstance(value, str) else value for value in prior])
        device = self.taste.weight.device
        odds = self.taste(descriptions.to(device), known.to(device)).double()
        scores = (HIGH * odds.sigmoid()).float().cpu().tolist()
        return [value if isinstance(value, str) else score for value, score in zip(prior, scores, strict=True)]

    @property
    def networks(self) -> tuple[nn.Module, ...]:
        """What holds its weights; it computes wherever these are at each call."""
        return (*self.features.networks, *self.prior.networks, self.taste)


@as_loaded()
def load(request: Request) -> LearnedScorer:
    """Loads a learned scorer, and what it reads.

    Raises:
        FileNotFoundError: The folder of its features is not there.
        ValueError: The file is damaged, it was learned on other features than there are, or an option does not apply.
    """
    request.refuse_semantic_options("a learned scorer")
    if request.dtype not in ("auto", "float32", torch.float32):
        raise MaAgiqaError(f"Expected dtype 'auto' or 'float32' for a learned scorer, got {str(request.dtype)!r}.")
    path, device = Path(request.model), resolve_device(request.device)
    try:
        with safe_open(path, framework="pt") as checkpoint:
            facts = LearnedFacts.from_metadata(checkpoint.metadata() or {})
            tensors = {name: checkpoint.get_tensor(name) for name in checkpoint.keys()}  # noqa: SIM118 - no dict
        check_source(facts.features)
        taste = Taste(len(tensors["weight"])).float()
        taste.load_state_dict(tensors)
        content = path.read_bytes()
    except (SafetensorError, OSError, KeyError, RuntimeError, TypeError, ValueError) as error:
        reason = str(error).replace("\n", " ").rstrip(".")[:300]
        raise MaAgiqaError(f"Expected a learned scorer, got {str(path)!r}: {reason}.") from error
    features = load_features(beside(facts.features, path), device)
    prior = load_prior(facts.prior, features, device)
    for what, learned, found in (
        (f"features of {facts.features}", facts.features_revision, features.revision),
        (f"{facts.prior} as prior", facts.prior_revision, prior.revision),
    ):
        if learned != found:
            raise MaAgiqaError(
                f"Expected the {what} in revision {learned!r}, on which {path.name} was learned, got {found!r}. Learn "
                "it again from the same picks."
            )
    return LearnedScorer(taste.to(device), features, prior, facts, content)


__all__ = ["NO_PRIOR", "LearnedFacts", "LearnedScorer", "Taste", "load"]
