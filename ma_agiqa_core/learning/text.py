"""What a person is told of a taste that was learned."""

from __future__ import annotations

from ..arguments.options import first_names
from .comparison import Share
from .learn import Learned

_KEEP_ON = "Keep picking, and learn again: sessions add up."


def learned_text(learned: Learned) -> str:
    """A summary for the terminal: what it was learned from, what was lost, and how good it is beside lite."""
    gathered, evidence = learned.gathered, learned.gathered.evidence
    said = {
        "likes": gathered.likes,
        "dislikes": gathered.dislikes,
        "pairs": len(evidence.better),
        "ratings": len(evidence.rated),
    }
    picks = ", ".join(f"{count} {kind}" for kind, count in said.items() if count)
    lines = [f"Learned:  from {picks} of {len(gathered.paths)} pictures"]
    if gathered.copies:
        lines.append(f"          {_counted(gathered.copies, 'picture')} counted once with others, as near-duplicates")
    if gathered.contradictions:
        lines.append(
            f"          {_counted(gathered.contradictions, 'contradiction')}: of marks the last one counts, pairs "
            "cancel each other"
        )
    if gathered.moved:
        lines.append(f"          {_counted(len(gathered.moved), 'picture')} found elsewhere, by digest")
    if gathered.missing:
        lines.append(f"Missing:  {len(gathered.missing)}: {first_names(gathered.missing)}. Say where: --images DIR")
    if gathered.unreadable:
        broken = [f"{path} ({reason})" for path, reason in gathered.unreadable.items()]
        lines.append(f"Broken:   {len(broken)}: {first_names(broken)}")
    return "\n".join([*lines, *_figures(learned)])


def _figures(learned: Learned) -> list[str]:
    if learned.held_out.value is None:
        return [
            "Held out: nothing, with so few picks. The ranking is nearly that of "
            f"{'lite' if learned.scorer.prior.name == 'lite' else 'chance'}. {_KEEP_ON}"
        ]
    of = f"of {learned.comparisons} held-out pairs ({learned.gathered.grouped_by} left out)"
    lines = [
        f"Held out: {_percent(learned.held_out)} {of} in the order of the picks",
        f"lite:     {_percent(learned.lite)} of the same pairs",
    ]
    if learned.beats_lite:
        lines.append("          Your scorer beats lite on your own picks.")
    elif learned.held_out.value < (learned.lite.value or 0):
        lines.append(f"          It does not beat lite: too few picks, or lite already has your taste. {_KEEP_ON}")
    else:
        lines.append(f"          Too few picks to say that it beats lite: the difference may be chance. {_KEEP_ON}")
    return lines


def _percent(share: Share) -> str:
    if share.value is None:
        return "-"
    within = "" if share.low is None or share.high is None else f" [{100 * share.low:.1f}, {100 * share.high:.1f}]"
    return f"{100 * share.value:.1f} %{within}"


def _counted(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"
