"""ComfyUI's front end in Chromium, driven by playwright: what a user does, and what can be read off the canvas."""

import json
from pathlib import Path
from typing import Any

LIMIT = 60_000  # milliseconds
QUIET = {  # no tour, no news, nothing that lies over the nodes
    "Comfy.TutorialCompleted": True,
    "Comfy.InstalledVersion": "1.27.10",
    "Comfy.Notification.ShowVersionUpdates": False,
    "Comfy.Minimap.Visible": False,
    "Comfy.Canvas.NavigationMode": "custom",  # the default runs into an error of the front end's own at the start
    "Comfy.Graph.CanvasInfo": False,
    "Comfy.Workflow.ShowMissingModelsWarning": False,
    "Comfy.SnapToGrid.GridSize": 10,
    "LiteGraph.Node.TooltipDelay": 100,
}

_QUEUE = "button[data-testid=queue-button], [data-testid=queue-button] button"  # newer ones, older ones
_REGISTRY = "https://api.comfy.org/"  # whose node failed: a newer front end asks it with an error's details
_READY = "() => window.app?.graph && window.app.extensionManager?.setting && window.app.vueAppReady"
_LISTEN = """() => {
  window.ended = null;
  for (const kind of ["execution_success", "execution_error", "execution_interrupted"])
    window.app.api.addEventListener(kind, (event) => { window.ended = {kind, ...event.detail}; });
}"""
_HAS_PICTURES = """() => {
  window.app.canvas.draw(true, true);  // asks for the pictures
  return window.app.graph.nodes.every((n) => {
    const expected = window.app.nodeOutputs[n.id]?.images?.length ?? 0;
    return !expected || (n.imgs?.length === expected && n.imgs.every((i) => i.complete && i.naturalWidth > 0));
  });
}"""
_NODE = "(type) => { const n = window.app.graph.nodes.find((n) => n.type === type); return n && (%s); }"
_FIT = """([types, margin, square, inset]) => {
  window.app.canvas.draw(true, true);  // sizes are known once nodes are drawn
  const nodes = window.app.graph.nodes.filter((n) => !types.length || types.includes(n.type));
  const boxes = nodes.map((n) => n.getBounding());
  if (!types.length) boxes.push(...window.app.graph.groups.map((g) => [...g.pos, ...g.size]));
  const left = Math.min(...boxes.map((b) => b[0])), top = Math.min(...boxes.map((b) => b[1]));
  const right = Math.max(...boxes.map((b) => b[0] + b[2])), bottom = Math.max(...boxes.map((b) => b[1] + b[3]));
  const area = window.app.canvas.canvas.getBoundingClientRect(), ds = window.app.canvas.ds;
  const [x, y] = inset ?? [110, 130], place = {x, y, width: area.width - 2 * x, height: area.height - 2 * y};
  ds.scale = Math.min(1, place.width / (right - left), place.height / (bottom - top));
  ds.offset[0] = place.x / ds.scale - left;
  ds.offset[1] = place.y / ds.scale - top;
  window.app.canvas.setDirty(true, true);
  window.app.canvas.draw(true, true);
  let width = (right - left) * ds.scale + 2 * margin, height = (bottom - top) * ds.scale + 2 * margin;
  if (square) width = height = Math.max(width, height);
  return {x: area.x + place.x - margin, y: area.y + place.y - margin, width, height};
}"""


class FrontEnd:
    """An opened front end.

    Attributes:
        page: playwright's.
        complaints: What pages threw, and what they asked of other hosts than the server.
    """

    def __init__(self, page: Any, url: str) -> None:
        self.page = page
        self.url = url
        self.complaints: list[str] = []
        page.set_default_timeout(LIMIT)
        page.on("pageerror", lambda error: self.complaints.append(error.stack or str(error)))
        page.on("request", lambda request: self._note_foreign(request.url))

    def start(self) -> None:
        self.page.goto(self.url)
        self.page.wait_for_function(_READY)
        self.page.evaluate(_LISTEN)
        self.page.evaluate("() => document.fonts.ready")
        self.page.wait_for_function("() => window.app.graph.nodes.length")  # the default workflow comes last

    def open_template(self, pack: str, name: str) -> None:
        """Opens one of a pack's example workflows as users do, in the template browser."""
        self.page.get_by_role("button", name="Templates").first.click()
        self.page.get_by_text(pack, exact=True).click()
        self.page.get_by_test_id(f"template-workflow-{name}").click()
        self.page.wait_for_function("() => !document.querySelector('.p-dialog-mask') && window.app.graph.nodes.length")

    def open_workflow(self, workflow: dict[str, Any]) -> None:
        """Loads a workflow (the UI form) as a dropped file would be."""
        self.page.evaluate("(text) => window.app.loadGraphData(JSON.parse(text))", json.dumps(workflow))

    def run(self) -> dict[str, Any]:
        """Presses Run and waits; what the server said at the end, with `kind` "execution_success" if all went well."""
        self.page.evaluate("() => { window.ended = null; }")
        self.page.locator(_QUEUE).first.click()
        self.page.wait_for_function("() => window.ended")
        return self.page.evaluate("() => window.ended")

    def wait_for_error(self, text: str) -> None:
        """Waits until the front end shows the text of an error; newer ones show it when they are asked for details."""
        details = self.page.get_by_role("button", name="View details")
        shown = self.page.get_by_text(text)
        details.or_(shown).first.wait_for()
        if not shown.first.is_visible():
            details.first.click()
        shown.first.wait_for()

    def of_node(self, node_type: str, expression: str) -> Any:
        """Evaluates JavaScript about the first node `n` of a type."""
        return self.page.evaluate(_NODE % expression, node_type)

    def click_title(self, node_type: str) -> None:
        """Selects the first node of a type, after moving it into sight."""
        box = self.page.evaluate(_FIT, [[node_type], 0, False, [400, 240]])  # clear of what lies over the canvas
        self.page.mouse.click(box["x"] + 60, box["y"] + 12)

    def open_help(self, node_type: str) -> Any:
        """Presses the i over a node; the panel with its help page."""
        self.click_title(node_type)
        self.page.get_by_test_id("info-button").click()
        self.page.wait_for_selector(".node-help-content .markdown-content")
        return self.page.locator(".node-help-content")

    def drop_file(self, name: str, content: bytes) -> None:
        """Gives the front end a file as if it had been dropped on the canvas."""
        self.page.evaluate(
            "([name, b]) => window.app.handleFile(new File([new Uint8Array(b)], name, {type: 'image/png'}))",
            [name, list(content)],
        )

    def wait_for_node(self, node_type: str, condition: str) -> None:
        self.page.wait_for_function(_NODE % condition, arg=node_type)

    def wait_for_pictures(self) -> None:
        """Waits until the nodes that got pictures from the server show them."""
        self.page.wait_for_function(_HAS_PICTURES)

    def picture(self, path: Path, *node_types: str, margin: int = 24, square: bool = False) -> None:
        """Takes a picture of these nodes, or of the whole workflow."""
        self.page.evaluate("() => window.app.canvas.deselectAll?.()")
        box = self.page.evaluate(_FIT, [list(node_types), margin, square, None])  # clear of the bars over the canvas
        self.page.get_by_text("Job completed").wait_for(state="hidden")
        size = self.page.viewport_size
        self.page.mouse.move(size["width"] / 2, size["height"] - 5)
        self.page.evaluate("() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")
        self.page.wait_for_timeout(300)
        self.page.screenshot(path=path, clip=box)

    def _note_foreign(self, url: str) -> None:
        if not url.startswith((self.url, "data:", "blob:", _REGISTRY)):
            self.complaints.append(f"asked for {url}")
