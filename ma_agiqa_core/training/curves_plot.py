"""`curves.png`: the training loss, and how well the validation set was predicted, epoch by epoch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..atomic_write import atomic_write


def plot_curves(history: Sequence[Mapping[str, Any]], best_epoch: int, path: Path) -> None:
    """Plots the history of `metrics.json`.

    Args:
        history: Its entries; a figure that is undefined leaves a gap.
        best_epoch: The epoch to mark; 0 for none.
        path: The .png file to write.

    Raises:
        OSError: It cannot be written.
    """
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    epochs = [entry["epoch"] for entry in history]
    figure = Figure(figsize=(9, 3.6), layout="constrained")
    loss, agreement = figure.subplots(1, 2)
    loss.plot(epochs, [entry["loss"] for entry in history], marker=".", color="tab:gray")
    loss.set(title="Training loss", xlabel="epoch")
    targets = list(history[-1]["val"]) if history else []
    for target in targets:
        for name, style in (("srcc", "-"), ("plcc", "--")):
            values = [entry["val"][target][name] for entry in history]
            points = [float("nan") if value is None else value for value in values]
            agreement.plot(epochs, points, style, marker=".", label=f"{target} {name.upper()}")
    agreement.set(title="Validation (PLCC: raw, without the fit)", xlabel="epoch")
    if best_epoch:
        agreement.axvline(best_epoch, color="tab:gray", linewidth=1, label="best epoch")
    if targets:
        agreement.legend()
    for axes in (loss, agreement):
        axes.grid(alpha=0.3)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    with atomic_write(path) as temporary:
        figure.savefig(temporary, format="png", dpi=120)
