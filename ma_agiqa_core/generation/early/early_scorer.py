"""`EarlyScorer`: predicts from a preview at a fraction of the steps what a judge will give the finished picture.

lite's features of the preview, and linear weights that change linearly with the fraction; where that predicts better,
what the judge says of the preview weighs in too. It is taught for one pipeline and one judge (`ma-agiqa distill
--previews`). What it says is relative to the other candidates of the prompt: it never saw which prompt scores high.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from ...atomic_write import atomic_write
from ...errors import MaAgiqaError, MissingFileError
from ...model_files.digest import file_digest
from ...scorers.callable import CallableScorer
from ...scorers.lite import LITE_WEIGHTS
from ...scorers.lite.network import LiteNetwork
from ...scorers.lite.student import StudentNetwork
from ...scorers.scorer import Scorer

KIND = "early"
MOST = 4.0  # deviations of a column; beyond what it was taught on, a linear scorer would say anything


class PreviewFeatures:
    """Pictures -> lite's features of them, with a thumbnail: (B, D) float64."""

    @cached_property
    def _network(self) -> StudentNetwork:
        return StudentNetwork(LiteNetwork.from_state_dict(load_file(LITE_WEIGHTS))).eval()

    @torch.inference_mode()
    def __call__(self, pictures: Any) -> np.ndarray:
        """From a tensor (B, 3, H, W) in [0, 1], or PIL pictures or tensors (3, H, W) of any sizes."""
        rows = [self._network.describe(_tensor(picture)[None].float().cpu())[0] for picture in pictures]
        return torch.stack(rows).double().numpy()


@dataclass(frozen=True, eq=False)
class EarlyScorer:
    """A scorer of previews.

    Attributes:
        judge: Whose final scores it predicts.
        pipeline: Class name of the pipeline that it was taught on.
        mean, spread: (D,) of the features where it was taught.
        weight: (D,) of the normalised features, at the middle fraction.
        slope: (D,) how the weight changes with the fraction.
        middle: Of the fractions that it was taught on.
        beside: Of the judge's own score of the preview: its weight at the middle fraction, and how that changes.
            None: the judge is not asked.
        measured: What it reached on held-out prompts: rank correlation of it and of the plain judge, and more.

    Example:
        >>> early = load_early_scorer("early.safetensors")  # doctest: +SKIP
        >>> best_of_n(pipe, scorer, prompt, prune_at={0.3: 4}, early_scorer=early)  # doctest: +SKIP
    """

    judge: str
    pipeline: str
    mean: np.ndarray
    spread: np.ndarray
    weight: np.ndarray
    slope: np.ndarray
    middle: float
    measured: dict[str, Any]
    beside: tuple[float, float] | None = None

    def at(self, fraction: float, judge: Scorer | None = None) -> CallableScorer:
        """The scorer of previews at this fraction of the steps.

        Args:
            fraction: Of the steps.
            judge: Whose final scores it predicts; asked only where it was taught with what the judge says.

        Raises:
            ValueError: The judge is needed, and missing or another one.
        """
        asked = None
        if self.beside is not None:
            if judge is None or judge_name(judge) != self.judge or judge.info.relative:
                got = "none" if judge is None else judge_name(judge)
                raise MaAgiqaError(
                    f"Expected the judge {self.judge}, beside which this early scorer was taught, got {got}. Choose by "
                    "that judge, or distil an early scorer for this one."
                )
            asked = judge
        features = PreviewFeatures()

        def score(pictures: Any, prompts: Sequence[str] | None) -> np.ndarray:
            said = None if asked is None else asked.score(pictures, prompts).double().numpy()
            return self.predict(features(pictures), fraction, said)

        return CallableScorer(
            score,
            name=f"early({self.judge})",
            low=-np.inf,
            high=np.inf,
            trained_on=f"previews of {self.pipeline}",
            needs_prompt=asked is not None and asked.info.needs_prompt,
        )

    def predict(self, features: np.ndarray, fraction: float, judged: np.ndarray | None = None) -> np.ndarray:
        """Final scores, less the mean of the prompt: (B,).

        Args:
            features: (B, D) of previews at a fraction.
            fraction: Of the steps.
            judged: (B,) what the judge says of them; read only where it was taught with that.
        """
        later = fraction - self.middle
        said = self.normalised(features) @ (self.weight + later * self.slope)
        if self.beside is None or judged is None:
            return said
        return said + judged * (self.beside[0] + later * self.beside[1])

    def normalised(self, features: np.ndarray) -> np.ndarray:
        """(B, D), each column with mean 0 and spread 1 where it was taught."""
        return ((features - self.mean) / self.spread).clip(-MOST, MOST)

    def save(self, path: Path) -> None:
        """Writes it as safetensors, for `load_early_scorer`."""
        tensors = {
            name: torch.from_numpy(getattr(self, name)).float() for name in ("mean", "spread", "weight", "slope")
        }
        metadata = {
            "format": "1",
            "kind": KIND,
            "judge": self.judge,
            "pipeline": self.pipeline,
            "middle": repr(self.middle),
            "beside": json.dumps(self.beside),
            "lite": file_digest(LITE_WEIGHTS),
            "measured": json.dumps(self.measured, allow_nan=False),
        }
        with atomic_write(path, is_shared=True) as temporary:
            save_file(tensors, temporary, {f"ma_agiqa.{key}": value for key, value in metadata.items()})


def load_early_scorer(path: str | Path) -> EarlyScorer:
    """An early scorer that `ma-agiqa distill --previews` wrote.

    Raises:
        FileNotFoundError: No such file.
        ValueError: It is no early scorer, or of another version of lite.

    Example:
        >>> early = load_early_scorer("early.safetensors")  # doctest: +SKIP
        >>> early.measured["student"], early.measured["judge"]  # rank correlation with the final score # doctest: +SKIP
        (0.71, 0.52)
    """
    if not Path(path).is_file():
        raise MissingFileError(
            f"Expected a file of an early scorer, got {path}. `ma-agiqa distill --previews` makes one."
        )
    try:
        with safe_open(path, framework="pt") as file:
            facts = {key.removeprefix("ma_agiqa."): value for key, value in (file.metadata() or {}).items()}
            tensors = {name: file.get_tensor(name).double().numpy() for name in file.keys()}  # noqa: SIM118
        if facts.get("kind") != KIND:
            raise MaAgiqaError(f"Expected an early scorer in {path}, got {facts.get('kind', 'something else')!r}.")
        early = EarlyScorer(
            judge=facts["judge"],
            pipeline=facts["pipeline"],
            middle=float(facts["middle"]),
            measured=json.loads(facts["measured"]),
            beside=None if (beside := json.loads(facts.get("beside", "null"))) is None else (beside[0], beside[1]),
            **tensors,
        )
    except (SafetensorError, KeyError, TypeError, ValueError) as error:
        if isinstance(error, MaAgiqaError):
            raise
        raise MaAgiqaError(f"Expected an early scorer in {path}, got {error}.") from error
    if facts.get("lite") != file_digest(LITE_WEIGHTS):
        raise MaAgiqaError(f"Expected an early scorer of this version's lite, got {path} of another. Distil it again.")
    return early


def judge_name(scorer: Scorer) -> str:
    """A scorer's name, with its revision where it has one."""
    info = scorer.info
    return f"{info.name}@{info.revision}" if info.revision else info.name


def _tensor(picture: Any) -> Tensor:
    if isinstance(picture, Tensor):
        return picture
    return torch.from_numpy(np.array(picture.convert("RGB"))).permute(2, 0, 1) / 255
