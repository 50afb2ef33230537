"""Makes the pictures of the help pages, of docs/comfyui and of the example workflows, in the real front end.

    COMFYUI_PATH=... python tests/nodes/front_end/screenshots.py

They show what the nodes do with the demo's photographs: `photograph_generator.py` stands in for a diffusion model.
"""

import os
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

from PIL import Image

ROOT = Path(__file__).parents[3]
SUPPORT = ROOT / "tests" / "support"
HELP = ROOT / "web" / "docs" / "pictures"
DOCS = ROOT / "docs" / "comfyui"
EXAMPLES = ROOT / "example_workflows"
VIEWPORT = {"width": 1800, "height": 1200}
THUMBNAIL = 512  # pixels; the template browser shows them in a square half as large
COLOURS = 256
PANEL = 720  # where the help panel begins
VISION_CLIP = "qwen3vl_4b_fp8_scaled.safetensors"

_BUILD = """([nodes, links]) => {
  const graph = window.app.graph, made = {};
  window.app.clean();
  graph.clear();
  for (const [name, [type, pos, size, values]] of Object.entries(nodes)) {
    const node = made[name] = window.LiteGraph.createNode(type);
    node.pos = pos;
    const given = {...Object.fromEntries((node.widgets ?? []).map((w) => [w.name, w.value])), ...values};
    graph.add(node);  // newer front ends keep values by the number it gets here, and still have those of the last scene
    for (const [widget, value] of Object.entries(given)) node.widgets.find((w) => w.name === widget).value = value;
    if (size) node.setSize(size);
  }
  for (const [from, output, to, input] of links)
    made[from].connect(output, made[to], made[to].findInputSlot(input));
}"""

Nodes = dict[str, tuple[str, tuple[int, int], tuple[int, int] | None, dict[str, Any]]]
Links = list[tuple[str, int, str, str]]


def main(*wanted: str) -> None:
    sys.path.insert(0, str(SUPPORT))
    from chromium import browser
    from comfyui_server import comfyui_server
    from front_end import QUIET, FrontEnd
    from tiny_checkpoint import write_tiny_checkpoint
    from tiny_models import write_clip

    with tempfile.TemporaryDirectory() as folder:
        base = Path(folder)
        write_tiny_checkpoint(base / "models" / "checkpoints" / "sd_xl_base_1.0.safetensors")
        write_clip(base / "models" / "ma_agiqa" / "clip-vit-base-patch32")
        text_encoders = base / "models" / "text_encoders"
        text_encoders.mkdir(parents=True)
        (text_encoders / VISION_CLIP).touch()  # is only listed
        checkout = Path(os.environ["COMFYUI_PATH"])
        with comfyui_server(checkout, base, install) as server, browser() as chromium:
            server.post("/settings", **QUIET)
            front_end = FrontEnd(chromium.new_page(viewport=VIEWPORT), server.url)
            front_end.start()
            for path, take in SCENES.items():
                if not wanted or path.stem in wanted:
                    print(path.relative_to(ROOT))
                    take(front_end, path)


def install(pack: Path) -> None:
    """The whole checkout, since the demo's photographs are not in the registry's archive."""
    pack.parent.mkdir(parents=True)
    pack.symlink_to(ROOT)
    shutil.copy(SUPPORT / "photograph_generator.py", pack.parent)


def shrink(path: Path) -> None:
    """Fewer colours: a third of the size, and nobody sees it."""
    with Image.open(path) as picture:
        small = picture.convert("RGB").quantize(COLOURS, Image.Quantize.MEDIANCUT, kmeans=2)
    small.save(path, optimize=True)


def scene(front_end: Any, path: Path, nodes: Nodes, links: Links, shown: list[str], run: bool = True) -> None:
    """Builds a workflow, runs it, and takes a picture of some of its nodes."""
    front_end.page.evaluate(_BUILD, [nodes, links])
    if run:
        ended = front_end.run()
        assert ended["kind"] == "execution_success", ended.get("exception_message")
        front_end.wait_for_pictures()
    front_end.picture(path, *shown)
    shrink(path)


def load_scorer(front_end: Any, path: Path) -> None:
    scene(front_end, path, {"a": ("MaAgiqaLoadScorer", (40, 40), (330, 210), {})}, [], ["MaAgiqaLoadScorer"], run=False)


def ensemble_scorer(front_end: Any, path: Path) -> None:
    nodes: Nodes = {
        "quality": ("MaAgiqaLoadScorer", (40, 40), (300, 210), {}),
        "prompt": ("MaAgiqaLoadScorer", (40, 300), (300, 210), {"model": "clip-vit-base-patch32"}),
        "both": ("MaAgiqaEnsembleScorer", (400, 40), (300, 250), {"combine": "rank"}),
    }
    links: Links = [("quality", 0, "both", "scorer_1"), ("prompt", 0, "both", "scorer_2")]
    scene(front_end, path, nodes, links, ["MaAgiqaLoadScorer", "MaAgiqaEnsembleScorer"], run=False)


def score_images(front_end: Any, path: Path) -> None:
    scene(front_end, path, *_reported("chelsea"), ["MaAgiqaScoreImages"])


def select_best(front_end: Any, path: Path) -> None:
    nodes: Nodes = _scored("chelsea") | {
        "best": ("MaAgiqaSelectBest", (960, 40), (330, 340), {"top_k": 2}),
        "shown": ("PreviewImage", (1350, 40), (330, 340), {}),
    }
    links: Links = [
        ("score", 0, "best", "images"),
        ("score", 1, "best", "scores"),
        ("best", 0, "shown", "images"),
    ]
    scene(front_end, path, nodes, SCORED + links, ["MaAgiqaSelectBest", "PreviewImage"])


def quality_gate(front_end: Any, path: Path) -> None:
    nodes: Nodes = {
        "pictures": ("DemoPictures", (40, 340), None, {"photograph": "coffee", "count": 8}),
        "scorer": ("MaAgiqaLoadScorer", (40, 40), None, {}),
        "gate": ("MaAgiqaQualityGate", (400, 40), (300, 260), {"min_score": 4.5}),
        "passed": ("PreviewImage", (760, 40), (300, 250), {}),
        "failed": ("PreviewImage", (760, 340), (300, 250), {}),
    }
    links: Links = [
        ("scorer", 0, "gate", "scorer"),
        ("pictures", 0, "gate", "images"),
        ("gate", 0, "passed", "images"),
        ("gate", 1, "failed", "images"),
    ]
    scene(front_end, path, nodes, links, ["MaAgiqaQualityGate", "PreviewImage"])


def best_of_n_sampler(front_end: Any, path: Path) -> None:
    nodes: Nodes = {
        "model": ("CheckpointLoaderSimple", (40, 40), None, {}),
        "positive": ("CLIPTextEncode", (40, 200), None, {"text": "a cup of coffee on a wooden table, photograph"}),
        "negative": ("CLIPTextEncode", (40, 440), None, {"text": "blurry, noise"}),
        "latent": ("EmptyLatentImage", (40, 680), None, {}),
        "scorer": ("MaAgiqaLoadScorer", (40, 840), None, {}),
        "sampler": (
            "MaAgiqaBestOfNSampler",
            (500, 40),
            (330, 560),
            {"seed": 7, "steps": 20, "cfg": 6, "keep": 2, "control_after_generate": "fixed"},
        ),
        "shown": ("PreviewImage", (890, 40), (330, 260), {}),
        "log": ("PreviewAny", (890, 360), (330, 380), {}),
    }
    links: Links = [
        ("model", 0, "sampler", "model"),
        ("model", 2, "sampler", "vae"),
        ("model", 1, "positive", "clip"),
        ("model", 1, "negative", "clip"),
        ("positive", 0, "sampler", "positive"),
        ("negative", 0, "sampler", "negative"),
        ("latent", 0, "sampler", "latent_image"),
        ("scorer", 0, "sampler", "scorer"),
        ("sampler", 1, "shown", "images"),
        ("sampler", 4, "log", "source"),
    ]
    scene(front_end, path, nodes, links, ["MaAgiqaBestOfNSampler", "PreviewImage", "PreviewAny"])


def best_of_n_custom(front_end: Any, path: Path) -> None:
    nodes: Nodes = {
        "model": ("CheckpointLoaderSimple", (40, 40), None, {}),
        "positive": ("CLIPTextEncode", (40, 200), None, {"text": "a cup of coffee on a wooden table, photograph"}),
        "negative": ("CLIPTextEncode", (40, 440), None, {"text": "blurry, noise"}),
        "latent": ("EmptyLatentImage", (40, 680), None, {}),
        "scorer": ("MaAgiqaLoadScorer", (40, 840), None, {}),
        "noise": ("RandomNoise", (500, 40), (300, 90), {"noise_seed": 7, "control_after_generate": "fixed"}),
        "guider": ("CFGGuider", (500, 180), (300, 110), {"cfg": 6}),
        "kind": ("KSamplerSelect", (500, 340), (300, 60), {}),
        "sigmas": ("BasicScheduler", (500, 450), (300, 110), {}),
        "sampler": ("MaAgiqaBestOfNCustom", (860, 40), (360, 520), {"keep": 2}),
        "shown": ("PreviewImage", (1280, 40), (420, 260), {}),
        "log": ("PreviewAny", (1280, 350), (420, 250), {}),
    }
    links: Links = [
        ("model", 1, "positive", "clip"),
        ("model", 1, "negative", "clip"),
        ("model", 0, "guider", "model"),
        ("positive", 0, "guider", "positive"),
        ("negative", 0, "guider", "negative"),
        ("model", 0, "sigmas", "model"),
        ("noise", 0, "sampler", "noise"),
        ("guider", 0, "sampler", "guider"),
        ("kind", 0, "sampler", "sampler"),
        ("sigmas", 0, "sampler", "sigmas"),
        ("model", 2, "sampler", "vae"),
        ("scorer", 0, "sampler", "scorer"),
        ("latent", 0, "sampler", "latent_image"),
        ("sampler", 1, "shown", "images"),
        ("sampler", 4, "log", "source"),
    ]
    shown = ["RandomNoise", "CFGGuider", "KSamplerSelect", "BasicScheduler", "MaAgiqaBestOfNCustom"]
    scene(front_end, path, nodes, links, shown, run=False)


def clip_judge(front_end: Any, path: Path) -> None:
    nodes: Nodes = {
        "clip": ("CLIPLoader", (40, 40), (320, 130), {"clip_name": VISION_CLIP, "type": "krea2"}),
        "judge": ("MaAgiqaClipJudge", (420, 40), (320, 160), {}),
    }
    links: Links = [("clip", 0, "judge", "clip")]
    scene(front_end, path, nodes, links, ["CLIPLoader", "MaAgiqaClipJudge"], run=False)


def mark_images(front_end: Any, path: Path) -> None:
    nodes: Nodes = _scored("chelsea") | {
        "best": ("MaAgiqaSelectBest", (960, 40), (330, 340), {"top_k": 2}),
        "mark": ("MaAgiqaMarkImages", (1350, 40), (330, 220), {"prompt": "a cat"}),
    }
    links: Links = [
        ("score", 0, "best", "images"),
        ("score", 1, "best", "scores"),
        ("score", 0, "mark", "images"),
        ("best", 4, "mark", "indexes"),
    ]
    scene(front_end, path, nodes, SCORED + links, ["MaAgiqaSelectBest", "MaAgiqaMarkImages"])


def score_sheet(front_end: Any, path: Path) -> None:
    nodes: Nodes = _scored("coffee") | {
        "sheet": ("MaAgiqaScoreSheet", (960, 40), (260, 120), {"columns": 3}),
        "shown": ("PreviewImage", (1280, 40), (460, 380), {}),
    }
    links: Links = [
        ("score", 0, "sheet", "images"),
        ("score", 1, "sheet", "scores"),
        ("scorer", 0, "sheet", "scorer"),
        ("sheet", 0, "shown", "images"),
    ]
    scene(front_end, path, nodes, SCORED + links, ["MaAgiqaScoreSheet", "PreviewImage"])


def save_scored(front_end: Any, path: Path) -> None:
    nodes: Nodes = _scored("chelsea", 4) | {
        "save": ("MaAgiqaSaveScored", (960, 40), (360, 420), {"filename_prefix": "cats/%year%-%month%-%day%"}),
    }
    links: Links = [("score", 0, "save", "images"), ("score", 1, "save", "scores"), ("scorer", 0, "save", "scorer")]
    scene(front_end, path, nodes, SCORED + links, ["MaAgiqaSaveScored"])


def load_scored(front_end: Any, path: Path) -> None:
    """A folder that was saved a moment ago."""
    nodes: Nodes = _scored("chelsea") | {
        "save": ("MaAgiqaSaveScored", (960, 40), (360, 420), {"filename_prefix": "cats/cat"}),
    }
    links: Links = [("score", 0, "save", "images"), ("score", 1, "save", "scores"), ("scorer", 0, "save", "scorer")]
    front_end.page.evaluate(_BUILD, [nodes, SCORED + links])
    assert front_end.run()["kind"] == "execution_success"
    again: Nodes = {
        "load": ("MaAgiqaLoadScored", (40, 40), (330, 180), {"folder": "output/cats", "order": "best score first"}),
        "report": ("PreviewAny", (440, 40), (340, 180), {}),
    }
    scene(front_end, path, again, [("load", 3, "report", "source")], ["MaAgiqaLoadScored", "PreviewAny"])


def example_workflow(front_end: Any, path: Path) -> None:
    """Opens and runs it as a user would; also makes its thumbnail."""
    front_end.open_template("ma-agiqa", path.stem)
    ended = front_end.run()
    assert ended["kind"] == "execution_success", ended.get("exception_message")
    front_end.wait_for_pictures()
    front_end.picture(path)
    shrink(path)
    thumbnail = EXAMPLES / f"{path.stem}.jpg"
    with tempfile.TemporaryDirectory() as folder:
        front_end.picture(Path(folder, "square.png"), *THUMBNAILS[path.stem], square=True)
        with Image.open(Path(folder, "square.png")) as picture:
            small = picture.convert("RGB").resize((THUMBNAIL, THUMBNAIL), Image.Resampling.LANCZOS)
    small.save(thumbnail, quality=82, optimize=True)


def help_panel(front_end: Any, path: Path) -> None:
    """The help page beside its node; the last scene, since the panel stays."""
    front_end.page.evaluate(_BUILD, _reported("chelsea"))
    front_end.run()
    front_end.page.set_viewport_size({"width": 1240, "height": 860})
    panel = front_end.open_help("MaAgiqaScoreImages")
    picture = panel.locator("img").element_handle()
    front_end.page.wait_for_function("(image) => image.naturalWidth > 0", arg=picture)
    edge = front_end.page.locator(".p-splitter-gutter:visible").last.bounding_box()  # the panel is on the right
    front_end.page.mouse.move(edge["x"] + edge["width"] / 2, 500)
    front_end.page.mouse.down()
    front_end.page.mouse.move(PANEL, 500, steps=5)
    front_end.page.mouse.up()
    front_end.page.evaluate(
        "() => { const ds = window.app.canvas.ds; ds.scale = 0.9; ds.offset[0] = -230; ds.offset[1] = 150; }"
    )
    front_end.page.evaluate("() => window.app.canvas.setDirty(true, true)")
    front_end.page.wait_for_timeout(1500)
    front_end.page.screenshot(path=path)
    shrink(path)


def _reported(photograph: str) -> tuple[Nodes, Links]:
    report: Nodes = {"report": ("PreviewAny", (960, 40), (340, 240), {})}
    return _scored(photograph) | report, [*SCORED, ("score", 3, "report", "source")]


def _scored(photograph: str, count: int = 6) -> Nodes:
    return {
        "pictures": ("DemoPictures", (40, 340), None, {"photograph": photograph, "count": count}),
        "scorer": ("MaAgiqaLoadScorer", (40, 40), None, {}),
        "score": ("MaAgiqaScoreImages", (400, 40), (500, 520), {}),
    }


SCORED: Links = [("scorer", 0, "score", "scorer"), ("pictures", 0, "score", "images")]
THUMBNAILS = {  # which nodes the thumbnails show
    "best_of_8_then_upscale": ["MaAgiqaBestOfNSampler", "PreviewImage"],
    "overnight_filter": ["MaAgiqaQualityGate", "MaAgiqaScoreImages", "PreviewImage"],
    "score_a_batch": ["MaAgiqaScoreImages"],
    "two_scorers": ["MaAgiqaEnsembleScorer", "MaAgiqaScoreImages"],
}
SCENES = {
    HELP / "MaAgiqaLoadScorer.png": load_scorer,
    HELP / "MaAgiqaEnsembleScorer.png": ensemble_scorer,
    HELP / "MaAgiqaScoreImages.png": score_images,
    HELP / "MaAgiqaSelectBest.png": select_best,
    HELP / "MaAgiqaQualityGate.png": quality_gate,
    HELP / "MaAgiqaBestOfNSampler.png": best_of_n_sampler,
    HELP / "MaAgiqaBestOfNCustom.png": best_of_n_custom,
    HELP / "MaAgiqaClipJudge.png": clip_judge,
    HELP / "MaAgiqaMarkImages.png": mark_images,
    HELP / "MaAgiqaScoreSheet.png": score_sheet,
    HELP / "MaAgiqaSaveScored.png": save_scored,
    HELP / "MaAgiqaLoadScored.png": load_scored,
    **{DOCS / f"{example.stem}.png": example_workflow for example in sorted(EXAMPLES.glob("*.json"))},
    DOCS / "help_panel.png": help_panel,
}

if __name__ == "__main__":
    main(*sys.argv[1:])
