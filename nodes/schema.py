"""What the nodes' schemas share: the SCORER link, their texts, and fields that only newer versions of ComfyUI know."""

import inspect
import json
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from comfy_api.latest import io

Scorer = io.Custom("SCORER")
CATEGORY = "MA-AGIQA"

TEXTS = Path(__file__).parents[1] / "locales" / "en" / "nodeDefs.json"
KNOWS_DYNAMIC_INPUTS = hasattr(io, "Autogrow")  # sockets that grow in number, options that depend on others
_NEWER = frozenset({"search_aliases", "essentials_category"})  # a TypeError before ComfyUI 0.12


def schema(*, advanced: Sequence[str] = (), **fields: Any) -> io.Schema:
    """An `io.Schema`, without the fields that the running ComfyUI does not know yet.

    Names, description and tooltips that are not given here come from `TEXTS`, where ComfyUI finds them too.

    Args:
        advanced: Ids of inputs that few people change; newer versions of ComfyUI show them when asked.
        **fields: Of `io.Schema`.
    """
    texts = _texts().get(fields["node_id"], {})
    fields = {**{name: texts[name] for name in ("display_name", "description") if name in texts}, **fields}
    labels = texts.get("inputs", {})
    for given in fields.get("inputs") or []:
        if given.id in advanced and hasattr(given, "advanced"):
            given.advanced = True
        _label(given, labels.get(given.id, {}))
        for option in getattr(given, "options", None) or []:
            for nested in getattr(option, "inputs", []):  # of a choice on which others depend
                _label(nested, labels.get(f"{given.id}_{nested.id}", {}))
    for number, given in enumerate(fields.get("outputs") or []):
        label = texts.get("outputs", {}).get(str(number), {})
        given.tooltip = given.tooltip or label.get("tooltip")
        given.display_name = label.get("name", given.display_name)  # newer versions put its id there
    known = inspect.signature(io.Schema).parameters
    return io.Schema(**{name: value for name, value in fields.items() if name in known or name not in _NEWER})


def images_or_videos() -> io.MultiType.Input:
    """The input 'images' of nodes that take VIDEO too, of which they see the first frame."""
    return io.MultiType.Input("images", types=[io.Image, io.Video])


def carried(*outputs: str) -> tuple[Any, list[Any]]:
    """The input 'anything' and outputs of what belongs to some of the pictures: any list, passed on as it came.

    Newer versions of ComfyUI then know the outputs' type by what is connected.
    """
    if not KNOWS_DYNAMIC_INPUTS:
        return io.AnyType.Input("anything", optional=True), [
            io.AnyType.Output(name, is_output_list=True) for name in outputs
        ]
    kind = io.MatchType.Template("anything")
    return io.MatchType.Input("anything", template=kind, optional=True), [
        io.MatchType.Output(kind, name, is_output_list=True) for name in outputs
    ]


def _label(given: Any, label: dict[str, str]) -> None:
    given.tooltip = given.tooltip or label.get("tooltip")
    if _has_widget(given):
        given.display_name = given.display_name or label.get("name")


def _has_widget(given: Any) -> bool:
    """Of a socket alone the front end would show a display name in every language: its label wins over the locale."""
    return hasattr(given, "widget_type") and not given.force_input


@lru_cache(maxsize=1)
def _texts() -> dict[str, Any]:
    return json.loads(TEXTS.read_text("utf-8")) if TEXTS.exists() else {}
