"""What belongs to pictures and goes on with the chosen ones: LATENT, MASK, and a list of anything else.

Counted on the way in, put together on the way out.
"""

from collections.abc import Sequence
from typing import Any

from comfy_execution.graph_utils import ExecutionBlocker
from torch import Tensor

from ...ma_agiqa_core.comfyui.latents import flattened_masks, latent_count, select_latents
from .images import as_image_output


class Companions:
    """What is connected beside the pictures of a node that gets every input as a list.

    Args:
        node: The node's name, for what it says of outputs whose input is not connected.
        count: How many pictures there are.
        latent: The input 'latent'.
        mask: The input 'mask'.
        anything: The input 'anything': one item for each picture, or a single batch with one row for each.

    Raises:
        ValueError: Not as many of them as there are pictures.
    """

    def __init__(self, node: str, count: int, latent: Any = None, mask: Any = None, anything: Any = None) -> None:
        self._node = node
        self._latents, self._anything = latent, anything
        self._masks = None if mask is None else flattened_masks(mask)
        if latent is not None:
            _check("latents", "LATENT that these pictures were decoded from", sum(map(latent_count, latent)), count)
        if self._masks is not None:
            _check("masks", "MASK with one entry for each picture", len(self._masks), count)
        if anything is not None:
            self._is_batch = len(anything) == 1 and isinstance(anything[0], Tensor) and anything[0].ndim > 0
            got = len(anything[0]) if self._is_batch else len(anything)
            _check("things", "list with one entry for each picture to 'anything'", got, count)

    def latents(self, rows: Sequence[int]) -> Any:
        """The latents of these pictures: one LATENT where they fit together, else one each."""
        if self._latents is None:
            return self._unconnected("latent")
        return skipped_if_empty(select_latents(self._latents, rows) if rows else None)

    def masks(self, rows: Sequence[int]) -> Any:
        """The masks of these pictures: one MASK [B, H, W] where their sizes are equal, else one each."""
        if self._masks is None:
            return self._unconnected("mask")
        return as_image_output([self._masks[row] for row in rows])

    def others(self, rows: Sequence[int]) -> Any:
        """What came in at 'anything' for these pictures: a batch of a batch, else a list."""
        if self._anything is None:
            return self._unconnected("anything")
        if self._is_batch and rows:
            return [self._anything[0][list(rows)]]
        return skipped_if_empty([self._anything[row] for row in rows])

    def _unconnected(self, name: str) -> ExecutionBlocker:
        """Not silent: the output is used although the input was forgotten."""
        return ExecutionBlocker(f"nothing is connected to the input '{name}' of {self._node}. Connect it.")


def skipped_if_empty(value: Any) -> Any:
    """The value of an output; without one, the nodes connected to it are skipped silently."""
    return value or ExecutionBlocker(None)


def told_if_none(value: Any, reason: str) -> Any:
    """The value of an output; without one, the nodes connected to it say why there is none."""
    return ExecutionBlocker(reason) if value is None else value


def _check(name: str, what: str, got: int, count: int) -> None:
    if got != count:
        raise ValueError(f"Expected as many {name} as pictures, {count}, got {got}. Connect the {what}.")
