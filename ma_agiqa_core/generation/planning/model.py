"""A model of preview and final scores that any number of candidates can be drawn from.

Within a prompt, a candidate's scores at all fractions and at the end are taken as jointly normal, with one covariance
for all prompts. A few prompts say little about each of some hundred ways to prune; the covariance has few numbers, is
estimated from all their candidates, and orders the ways with far less noise. What the model gets wrong in level (scores
are skewed, prompts differ) is measured on prompts and corrected in planner.py.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

_JITTER = 1e-9  # of a variance: previews that equal the finished pictures make the covariance singular


@dataclass(frozen=True, eq=False)
class ScoreModel:
    """Scores within a prompt.

    Attributes:
        covariance: (F + 1, F + 1) of the scores at each fraction and, last, of the final ones.
    """

    covariance: np.ndarray

    @classmethod
    def of(cls, previews: np.ndarray, finals: np.ndarray) -> ScoreModel:
        """From scores (P, F, n) and (P, n)."""
        scores = np.concatenate([previews, finals[:, None]], axis=1)
        apart = scores - scores.mean(2, keepdims=True)
        prompts, _, n = apart.shape
        return cls(np.einsum("pin,pjn->ij", apart, apart) / (prompts * (n - 1)))

    @property
    def correlations(self) -> np.ndarray:
        """(F,): of each preview's score and the final one within a prompt; 0 where either does not vary."""
        variances = np.diag(self.covariance)
        spread = np.sqrt(variances[:-1] * variances[-1])
        return np.divide(self.covariance[:-1, -1], spread, out=np.zeros(len(spread)), where=spread > 0)

    @property
    def spreads(self) -> np.ndarray:
        """(F,): how far final scores scatter around what a preview says, in units of the preview's score.

        The residual spread of the regression of final on preview score by its slope; infinite where that does not rise.
        """
        variances, shared = np.diag(self.covariance), self.covariance[:-1, -1]
        rises = (shared > 0) & (variances[:-1] > 0)
        slopes = np.divide(shared, variances[:-1], out=np.ones(len(shared)), where=rises)
        residual = np.sqrt(np.maximum(variances[-1] * (1 - self.correlations**2), 0))
        return np.where(rises, residual / slopes, np.inf)

    def draw(self, deviates: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Groups of candidates.

        Args:
            deviates: (G, F + 1, n) of the standard normal distribution.

        Returns:
            Preview scores (G, F, n) and final scores (G, n).
        """
        variances = np.diag(self.covariance)
        jitter = np.diag(_JITTER * np.where(variances > 0, variances, 1.0))
        scores = np.einsum("ij,gjn->gin", np.linalg.cholesky(self.covariance + jitter), deviates)
        return scores[:, :-1], scores[:, -1]
