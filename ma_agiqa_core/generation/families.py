"""`python -m ma_agiqa_core.generation.families [--explain CLASS]`: the same as `ma-agiqa families`."""

import argparse
import sys
from collections.abc import Sequence

from ..errors import MaAgiqaError
from .pipelines.explain import explain
from .pipelines.families import FAMILIES
from .pipelines.refused import REFUSED


def families_text() -> str:
    """The pipelines in which rows are dropped exactly, by family, and those that are refused, with the reason.

    Example:
        >>> from ma_agiqa_core.generation.families import families_text
        >>> families_text().splitlines()[0]
        'Exact: survivors are the same pictures as without pruning.'
    """
    lines = ["Exact: survivors are the same pictures as without pruning."]
    for family in FAMILIES:
        lines += [f"  {family.name}", *(f"    {name}" for name in family.pipelines)]
    lines += ["", "Refused, before the first step:"]
    for name, refused in REFUSED.items():
        lines += [f"  {name}, {refused.reason}"]
    return "\n".join([*lines, "", "Any other pipeline: --explain CLASS reads its loop and says what would be needed."])


def main(arguments: Sequence[str] | None = None) -> int:
    """Prints the table, or what one pipeline would need.

    Args:
        arguments: Of the command line; None takes the process's own.

    Returns:
        0, or 2 for a name that is no pipeline.
    """
    parser = argparse.ArgumentParser(prog="python -m ma_agiqa_core.generation.families", description=__doc__)
    parser.add_argument("--explain", metavar="CLASS", help="a pipeline class of diffusers")
    chosen = parser.parse_args(arguments)
    try:
        print(families_text() if chosen.explain is None else explain(chosen.explain).text())
    except MaAgiqaError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
