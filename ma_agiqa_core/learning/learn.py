"""Learns a scorer of somebody's own taste from picks."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import torch

from ..arguments.options import expanded, shown
from ..compute.caller_state import as_loaded
from ..compute.devices import resolve_device
from ..errors import MaAgiqaError
from ..picks.pick import Picks
from ..picks.sources import read_source
from ..pictures.inputs import iterate_pictures
from ..scorers.learned import DESCRIPTION, HIGH, LearnedFacts, LearnedScorer, Taste
from ..scorers.picture_features.features import PictureFeatures
from ..scorers.picture_features.lite_features import LITE
from ..scorers.picture_features.load import check_source, load_features
from ..scorers.prior import NO_PRIOR, PRIORS, load_prior
from .columns import Standard, standard_of
from .comparison import Comparisons, Share
from .gathering import Gathered, gather
from .held_out import Tried, fit_choice, try_out
from .reference import reference_pictures

SEED = 20

Source: TypeAlias = Picks | str | os.PathLike[str]


@dataclass(frozen=True)
class Learned:
    """A taste, and how far to trust it.

    Attributes:
        scorer: The scorer.
        gathered: What it was learned from.
        held_out: Share of held-out comparisons in which it says what the picks say; without a value where there were
            too few picks to hold any out.
        lite: The same of lite, on the same comparisons.
        lead: The one less the other.
        comparisons: How many.
        penalty: The strength of the ridge that was chosen.
    """

    scorer: LearnedScorer
    gathered: Gathered
    held_out: Share
    lite: Share
    lead: Share
    comparisons: int
    penalty: float

    @property
    def beats_lite(self) -> bool:
        """Whether it does, for all that the interval says."""
        return self.lead.low is not None and self.lead.low > 0


def learn(
    picks: Source | Sequence[Source],
    *,
    features: str = LITE,
    prior: str = LITE,
    name: str = "mine",
    images: Sequence[str | os.PathLike[str]] = (),
    device: str | torch.device = "auto",
    seed: int = SEED,
) -> LearnedScorer:
    """Learns a scorer of somebody's own taste.

    Args:
        picks: A picks.json, a table of pairs (`better,worse`) or of ratings (`path,rating`), `Picks`, or several of
            these: sessions add up.
        features: "lite", or "clip:FOLDER", "siglip:FOLDER" or "dinov2:FOLDER" with the folder of a model.
        prior: The scorer to set out from, "lite" or "none".
        name: Of the scorer.
        images: Folders in which pictures are looked for that have moved since.
        device: Where features are computed: "auto" takes cuda, then mps, then cpu.
        seed: Of the folds.

    Returns:
        A `Scorer`, 0 to 10, higher is better. `scorer.save("mine.safetensors")` writes it for `load_scorer`;
        `scorer.facts.evidence` has the counts and held-out figures.

    Raises:
        FileNotFoundError: No such file of picks, or no such folder.
        ValueError: No picks, likes alone or dislikes alone, none of the pictures is there, or a wrong option.

    Example:
        >>> import tempfile
        >>> import numpy as np
        >>> from pathlib import Path
        >>> from ma_agiqa_core import learn
        >>> from ma_agiqa_core.picks.marking import add_marks
        >>> warm, cold = (np.full((64, 64, 3), colour, np.uint8) for colour in ((200, 90, 40), (40, 90, 200)))
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     _ = add_marks(Path(folder, "picks.json"), kept=[warm], rejected=[cold])
        ...     scorer = learn(Path(folder, "picks.json"), prior="none", device="cpu")
        >>> scores = scorer.score([warm, cold])
        >>> bool(scores[0] > scores[1])
        True
    """
    sources = [picks] if isinstance(picks, Picks | str | os.PathLike) else list(picks)
    read, bases = Picks(), list[Path]()
    for source in sources:
        if isinstance(source, Picks):
            read += source
        elif isinstance(source, str | os.PathLike):
            file = expanded(source)
            read += read_source(file)
            bases.append(file.parent)
        else:
            raise MaAgiqaError(f"Expected picks, or the path of a file of them, got {shown(source)}.")
    folders = [expanded(folder) for folder in images]
    return learn_from(
        read, bases=bases, features=features, prior=prior, name=name, search=folders, device=device, seed=seed
    ).scorer


@as_loaded()
def learn_from(
    picks: Picks,
    *,
    bases: Sequence[Path] = (),
    features: str = LITE,
    prior: str = LITE,
    name: str = "mine",
    search: Sequence[Path] = (),
    device: str | torch.device = "auto",
    seed: int = SEED,
    progress: Callable[[Sequence[Path]], Iterable[Path]] = iter,
) -> Learned:
    """As `learn`, with all that was found out.

    Args:
        picks: What was picked.
        bases: Folders that relative paths may be relative to, beside the working directory.
        features: As in `learn`.
        prior: As in `learn`.
        name: As in `learn`.
        search: Folders in which moved pictures are looked for.
        device: As in `learn`.
        seed: As in `learn`.
        progress: Wraps the files that are iterated over, to show progress.
    """
    check_source(features)
    if prior not in PRIORS:
        raise MaAgiqaError(f"Expected 'lite' or 'none' as prior, got {shown(prior)}.")
    where = resolve_device(device)
    described_by = load_features(features, where)
    setting_out = load_prior(prior, described_by, where)
    lite = setting_out if prior == LITE else load_prior(LITE, described_by, where)
    gathered = gather(picks, described_by, setting_out, lite, bases=bases, search=search, progress=progress)
    standard = _standard(gathered.descriptions, described_by)
    x = standard.apply(gathered.descriptions)
    tried = try_out(x, gathered.prior, described_by.parts, gathered.evidence, gathered.groups, seed=seed)
    columns, fit = fit_choice(x, gathered.prior, described_by.parts, gathered.evidence, tried.choice)
    values = fit.value(columns.values, gathered.prior)
    taste = Taste(x.shape[1])
    taste.mean.copy_(torch.from_numpy(standard.mean))
    taste.deviation.copy_(torch.from_numpy(standard.deviation))
    taste.weight.copy_(torch.from_numpy(columns.feature_weight(fit.weight)))
    taste.prior_weight.fill_(columns.prior_weight(fit.weight, prior != NO_PRIOR))
    bias = fit.mark_intercept if len(gathered.evidence.marked) else -float(np.median(values))
    taste.bias.fill_(bias)
    shares = _shares(gathered, tried, seed)
    facts = LearnedFacts(
        name=name,
        features=described_by.source,
        features_revision=described_by.revision,
        prior=setting_out.name,
        prior_revision=setting_out.revision,
        trained_on=f"{len(picks)} picks of {len(gathered.paths)} pictures",
        description=DESCRIPTION.format(
            picks=len(picks),
            features="lite's" if features == LITE else described_by.source.partition(":")[0],
            prior="lite" if prior == LITE else "nothing",
            held_out=_held_out_text(shares),
        ),
        quantiles=_quantiles(values if tried.values is None else tried.values, bias),
        evidence=_facts(picks, gathered, tried, shares),
    )
    scorer = LearnedScorer(taste.to(where), described_by, setting_out, facts)
    return Learned(scorer, gathered, *shares, tried.choice.penalty)


_Shares: TypeAlias = tuple[Share, Share, Share, int]


def _standard(descriptions: np.ndarray, features: PictureFeatures) -> Standard:
    """Of the pictures, and of ordinary ones where each column has a scale of its own."""
    if not features.has_common_scale:
        reference = list(features.describe(iterate_pictures(list(reference_pictures()))))
        known = [found.double().numpy() for found in reference if isinstance(found, torch.Tensor)]
        descriptions = np.concatenate([descriptions, known])
    return standard_of(descriptions, features.has_common_scale)


def _shares(gathered: Gathered, tried: Tried, seed: int) -> _Shares:
    if tried.values is None:
        return Share(None), Share(None), Share(None), 0
    comparisons = Comparisons(gathered.evidence, tried.folds, gathered.groups, seed)
    held_out, lite = comparisons.share(tried.values), comparisons.share(gathered.lite)
    return held_out, lite, comparisons.lead(tried.values, gathered.lite), len(comparisons)


def _held_out_text(shares: _Shares) -> str:
    value = shares[0].value
    return "" if value is None else f"It puts {100 * value:.0f} % of held-out pairs in their order."


def _quantiles(values: np.ndarray, bias: float) -> tuple[float, ...]:
    scores = HIGH / (1 + np.exp(-np.clip(values + bias, -80, 80)))
    return tuple(float(f"{score:.7g}") for score in np.quantile(scores, np.linspace(0, 1, 101)))


def _facts(picks: Picks, gathered: Gathered, tried: Tried, shares: _Shares) -> dict[str, Any]:
    held_out, lite, lead, comparisons = shares
    return {
        "picks": len(picks),
        "pictures": len(gathered.paths),
        "likes": gathered.likes,
        "dislikes": gathered.dislikes,
        "pairs": len(gathered.evidence.better),
        "ratings": len(gathered.evidence.rated),
        "copies": gathered.copies,
        "contradictions": gathered.contradictions,
        "missing": len(gathered.missing),
        "unreadable": len(gathered.unreadable),
        "grouped_by": gathered.grouped_by,
        "penalty": tried.choice.penalty,
        "scaling": dict(tried.choice.scaling),
        "comparisons": comparisons,
        "held_out_accuracy": held_out.to_dict(),
        "lite_accuracy": lite.to_dict(),
        "lead": lead.to_dict(),
    }
