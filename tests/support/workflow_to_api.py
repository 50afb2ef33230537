"""Workflows as the front end saves them (UI form), made into what it sends to POST /prompt (API form).

In the UI form a node has the values of its widgets in a row, without names: these are ComfyUI's /object_info. Only what
the example workflows hold is known here; mutings, subgraphs, reroutes and primitive nodes of the front end are refused.
"""

from typing import Any

TEXT_ONLY = {"Note", "MarkdownNote"}
WIDGETS = {"INT", "FLOAT", "STRING", "BOOLEAN", "COMBO"}
_CHOICE = "COMFY_DYNAMICCOMBO_V3"  # on which other inputs depend


def api_form(workflow: dict[str, Any], object_info: dict[str, Any]) -> dict[str, Any]:
    """Node id -> {"class_type", "inputs"}.

    Raises:
        ValueError: A node is not known, not active, or has more widget values than ComfyUI says.
    """
    sources = {link_id: [str(node), slot] for link_id, node, slot, *_ in workflow["links"]}
    prompt = {}
    for node in workflow["nodes"]:
        if node["type"] in TEXT_ONLY:
            continue
        if node["type"] not in object_info or node["mode"] != 0:
            raise ValueError(f"Expected a node that ComfyUI runs, got {node['type']} in mode {node['mode']}.")
        inputs = widget_values(node, object_info[node["type"]])
        inputs |= {given["name"]: sources[given["link"]] for given in node["inputs"] if given["link"] is not None}
        prompt[str(node["id"])] = {"class_type": node["type"], "inputs": inputs}
    return prompt


def widget_values(node: dict[str, Any], info: dict[str, Any]) -> dict[str, Any]:
    """The values of a node's widgets by the names of its inputs, those included that a link overrides.

    Widgets that a node got after the workflow was saved stand last, and have their defaults.
    """
    given = list(node.get("widgets_values", []))
    values: dict[str, Any] = {}

    def take(name: str, kind: Any, options: dict[str, Any]) -> None:
        if kind == _CHOICE:
            values[name] = given.pop(0) if given else options["options"][0]["key"]
            chosen = next(option for option in options["options"] if option["key"] == values[name])
            for nested, spec in _specs(chosen["inputs"]).items():
                take(f"{name}.{nested}", *spec)
        elif (isinstance(kind, list) or kind in WIDGETS) and not options.get("forceInput"):
            values[name] = given.pop(0) if given else _default(kind, options)
            if given and (options.get("control_after_generate") or name in ("seed", "noise_seed")):
                given.pop(0)  # what becomes of the seed after a run: the front end's own

    for name, spec in inputs_of(info).items():
        take(name, *spec)
    if given:
        raise ValueError(f"Expected the values of {list(values)} for {node['type']}, got {given} more.")
    return values


def _default(kind: Any, options: dict[str, Any]) -> Any:
    choices = kind if isinstance(kind, list) else options.get("options") or [""]
    return options.get("default", choices[0])


def inputs_of(info: dict[str, Any]) -> dict[str, tuple[Any, dict[str, Any]]]:
    """A node's inputs in the order of their widgets: type, or list of choices, and options."""
    return _specs(info["input"])


def _specs(inputs: dict[str, Any]) -> dict[str, tuple[Any, dict[str, Any]]]:
    given = {**inputs.get("required", {}), **inputs.get("optional", {})}
    return {name: (spec[0], spec[1] if len(spec) > 1 else {}) for name, spec in given.items()}
