"""Workflows as the front end saves them (UI form), made into what it sends to POST /prompt (API form).

In the UI form a node has the values of its widgets in a row, without names: these are ComfyUI's /object_info. Only what
the example workflows hold is known here; mutings, subgraphs, reroutes and primitive nodes of the front end are refused.
"""

from typing import Any

TEXT_ONLY = {"Note", "MarkdownNote"}
WIDGETS = {"INT", "FLOAT", "STRING", "BOOLEAN", "COMBO"}


def api_form(workflow: dict[str, Any], object_info: dict[str, Any]) -> dict[str, Any]:
    """Node id -> {"class_type", "inputs"}.

    Raises:
        ValueError: A node is not known, not active, or does not have as many widget values as ComfyUI says.
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
    """The values of a node's widgets by the names of its inputs, those included that a link overrides."""
    names: list[str | None] = []
    for name, (kind, options) in inputs_of(info).items():
        if (isinstance(kind, list) or kind in WIDGETS) and not options.get("forceInput"):
            names.append(name)
            if options.get("control_after_generate") or name in ("seed", "noise_seed"):
                names.append(None)  # what becomes of the seed after a run: the front end's own
    values = node.get("widgets_values", [])
    if len(values) != len(names):
        raise ValueError(f"Expected the values of {names} for {node['type']}, got {values}.")
    return {name: value for name, value in zip(names, values, strict=True) if name is not None}


def inputs_of(info: dict[str, Any]) -> dict[str, tuple[Any, dict[str, Any]]]:
    """A node's inputs in the order of their widgets: type, or list of choices, and options."""
    given = {**info["input"].get("required", {}), **info["input"].get("optional", {})}
    return {name: (spec[0], spec[1] if len(spec) > 1 else {}) for name, spec in given.items()}
