"""An evaluation as text: the table that the command prints, and rows for a paper in Markdown and LaTeX."""

from __future__ import annotations

import re
from collections.abc import Sequence

from ..report.names import readable
from .agreement import FIGURES, Agreement, Figure
from .evaluate import Evaluation
from .within_prompt import WithinPrompt

_LATEX = {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"}
_LATEX |= {character: f"\\{character}" for character in "&%$#_{}"}
_HEADER = ("model", "test set", "n", *(name.upper() for name in FIGURES))


def evaluation_text(evaluation: Evaluation, heading: str = "") -> str:
    """The figures with their intervals, one group a line, and what is undefined in words.

    Args:
        evaluation: What was measured.
        heading: What the model is, for the first line.
    """
    groups = {"all": evaluation.overall, **evaluation.by_generator}
    rows = [("", "N", *(name.upper() for name in FIGURES))]
    rows += [
        (readable(name), str(group.n), *(_with_interval(getattr(group, f), 3) for f in FIGURES))
        for name, group in groups.items()
    ]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    first = ": ".join(filter(None, (heading, evaluation.name)))
    failed = f" ({evaluation.failed} more could not be scored)" if evaluation.failed else ""
    lines = [f"{first}, {_pictures(evaluation.overall.n)}{failed}"]
    for row in rows:
        cells = [f"{row[0]:<{widths[0]}}", f"{row[1]:>{widths[1]}}"]
        cells += [f"{cell:<{width}}" for cell, width in zip(row[2:], widths[2:], strict=True)]
        lines.append("  ".join(cells).rstrip())
    said = [(name, text) for name, group in groups.items() for text in (group.undefined, group.note) if text]
    lines += [f"{readable(name)}: {text}." for name, text in said]
    has_intervals = any(getattr(group, f).low is not None for group in groups.values() for f in FIGURES)
    brackets = "In brackets: 95 % intervals, bootstrap. " if has_intervals else ""
    lines.append(f"{brackets}PLCC and RMSE after the 4-parameter fit.")
    if evaluation.within_prompt is not None:
        lines += ["", *_within_prompt_lines(evaluation.within_prompt)]
    return "\n".join(lines)


def markdown_rows(model: str, evaluations: Sequence[Evaluation]) -> str:
    """A Markdown table with one row for each evaluation: figures as papers print them, intervals beside."""
    rows = [_HEADER, tuple("---" for _ in _HEADER)]
    rows += [
        (model.replace("|", r"\|"), e.name.replace("|", r"\|"), str(e.overall.n), *_figures(e.overall, "–"))
        for e in evaluations
    ]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def latex_rows(model: str, evaluations: Sequence[Evaluation]) -> str:
    """Rows of a LaTeX tabular with seven columns, the header as a comment."""
    lines = [f"% {' & '.join(_HEADER)} \\\\"]
    for e in evaluations:
        cells = (_latex(model), _latex(e.name), str(e.overall.n), *_figures(e.overall, "--"))
        lines.append(f"{' & '.join(cells)} \\\\")
    return "\n".join(lines)


def _figures(group: Agreement, undefined: str) -> list[str]:
    figures = [getattr(group, name) for name in FIGURES]
    return [
        undefined if figure.value is None else re.sub(r"(?<!\d)0\.", ".", _with_interval(figure, 4))
        for figure in figures
    ]


def _with_interval(figure: Figure, decimals: int) -> str:
    if figure.value is None:
        return "undefined"
    if figure.low is None or figure.high is None:
        return f"{figure.value:.{decimals}f}"
    return f"{figure.value:.{decimals}f} [{figure.low:.{decimals}f}, {figure.high:.{decimals}f}]"


def _within_prompt_lines(within: WithinPrompt) -> list[str]:
    if not within.prompts:
        return ["Within prompt: no prompt has two pictures with different labels, there is nothing to choose."]
    few, many = within.k
    k = str(few) if few == many else f"{few} to {many}"
    left_out = f"; {within.left_out} more leave nothing to choose" if within.left_out else ""
    assert within.by_chance is not None  # there are prompts
    return [
        f"Within {within.prompts} prompt{'' if within.prompts == 1 else 's'} of k = {k} pictures each "
        f"({within.pictures} in all{left_out}):",
        f"  best of k picked            {_with_interval(within.best_picked, 3)}, at random {within.by_chance:.3f}",
        f"  share of the possible gain  {_with_interval(within.share_of_gain, 3)}",
        f"  mean SRCC within a prompt   {_with_interval(within.srcc, 3)}",
    ]


def _pictures(count: int) -> str:
    return f"{count} picture{'' if count == 1 else 's'}"


def _latex(text: str) -> str:
    return "".join(_LATEX.get(character, character) for character in text)
