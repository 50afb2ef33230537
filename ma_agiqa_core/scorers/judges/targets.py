"""Which aspect a judge is asked for."""

from __future__ import annotations

from collections.abc import Sequence

from ...errors import MaAgiqaError


def chosen_target(family: str, targets: Sequence[str], asked: str | None) -> str:
    """The aspect asked for, the first one by default.

    Raises:
        ValueError: The judge has no such aspect.
    """
    if asked is None:
        return targets[0]
    if asked not in targets:
        raise MaAgiqaError(f"Expected a target of '{family}', {', '.join(targets)}, got {asked!r}.")
    return asked
