"""What a scorer is, for comparing: two that are the same by it give a picture the same score."""

from .scorer import Scorer


def scorer_identity(scorer: Scorer) -> str:
    """Of what was loaded: name, revision, target and the scorer's `settings`, joined by semicolons.

    A scorer may have `settings`, a tuple of "what=value": all that changes its scores besides the files that its
    revision stands for, such as a precision other than float32, or the language model that it asks. On which device
    and in which batches it computes is none of it.
    """
    info = scorer.info
    parts = [f"{info.name}@{info.revision}"]
    if info.target is not None and info.target not in info.targets[:1]:
        parts.append(f"target={info.target}")
    text = ";".join([*parts, *scorer_settings(scorer)])
    return text.encode("utf-8", "backslashreplace").decode()


def scorer_settings(scorer: Scorer) -> tuple[str, ...]:
    """The `settings` of a scorer that has any."""
    return tuple(getattr(scorer, "settings", ()))
