"""Reads the loop of a pipeline that is not in the table, and says what its row of the table would need.

The source of `__call__` is read, never run. What is found is a start for whoever adds the family: names that have one
entry per row are guessed from how the loop uses them, and only the tests show that nothing was missed.
"""

import ast
import inspect
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from ...errors import MaAgiqaError
from .families import FAMILIES
from .refused import REFUSED

_NOT_ROWS = (
    "return_dict",
    "attention_kwargs",
    "joint_attention_kwargs",
    "cross_attention_kwargs",
    "img_ids",
    "txt_ids",
)
_SAMPLES = ("hidden_states", "sample", "x")
_ROOM = {"latents", "timesteps", "timestep", "noise_pred", "callback_kwargs", "callback_outputs", "num_warmup_steps"}
_ROOM |= {"progress_bar", "num_inference_steps", "callback_on_step_end", "callback_on_step_end_tensor_inputs", "self"}
_ROOM |= {"extra_step_kwargs", "transformer_dtype", "controlnet_dtype", "guider", "prompt", "width", "height"}
_ROOM |= {"generator", "device", "guidance_scale", "true_cfg_scale", "torch", "locals", "len", "enumerate", "range"}


@dataclass(frozen=True)
class Explanation:
    """What the loop of one pipeline does.

    Attributes:
        name: The class.
        family: Its family in the table, if it is there.
        refused: Why it is refused, if it is known to be.
        obstacles: What stands in the way of dropping rows, in words.
        networks: Attributes of the pipeline that the loop calls, and the names of the arguments that they get.
        taken_back: Variables that the loop takes back from its callback.
        variables: Variables from before the loop that it uses outside its networks.
        caches: Those of them that look like keys and values.
        counts: Those of them that look like numbers of rows.
        draws_noise: The generators go into `scheduler.step`.
    """

    name: str
    family: str | None = None
    refused: str | None = None
    obstacles: tuple[str, ...] = ()
    networks: dict[str, tuple[str, ...]] | None = None
    taken_back: tuple[str, ...] = ()
    variables: tuple[str, ...] = ()
    caches: tuple[str, ...] = ()
    counts: tuple[str, ...] = ()
    draws_noise: bool = False

    def text(self) -> str:
        """For a terminal."""
        if self.family is not None:
            return f"{self.name}: exact, as a pipeline of the family {self.family!r}."
        lines = [f"{self.name}: " + (f"refused, {self.refused}" if self.refused else "not in the table.")]
        if self.obstacles:
            lines += ["", "In the way:", *(f"  - {obstacle}" for obstacle in self.obstacles)]
        if self.networks:
            lines += ["", "A row of the table would begin with (check every name against the loop):", "", self._draft()]
            lines += [
                "",
                "Then a tiny pipeline in tests/support/tiny_pipelines shows what was missed: CONTRIBUTING.md.",
            ]
        return "\n".join(lines)

    def _draft(self) -> str:
        networks = self.networks or {}
        arguments = sorted({name for names in networks.values() for name in names} - {*_NOT_ROWS, *_SAMPLES})
        denoisers = [name for name in networks if "controlnet" not in name]
        others = [name for name in networks if name not in denoisers]
        lines = [f"    denoisers={tuple(denoisers)!r},", f"    batch_arguments=frozenset({set(arguments) or set()!r}),"]
        if others:
            lines.append(f"    companions={tuple(others)!r},")
        blended = [name for name in self.variables if name not in (*self.caches, *self.counts)]
        if blended:
            lines.append(f"    blended={tuple(blended)!r},  # those with one entry per row")
        if self.caches:
            lines.append(f"    caches={self.caches!r},")
        if self.counts:
            lines.append(f"    row_counts={self.counts!r},")
        if self.draws_noise:
            lines.append("    generator_in_step=True,")
        lines.append('    layout="plain",  # or another of pipelines/latents.py')
        return "\n".join([f'Family("{self.name}", ("{self.name}",),', *lines, ")"])


def explain(pipeline: str | type) -> Explanation:
    """What the loop of a pipeline does, and what a row of the table would need.

    Args:
        pipeline: A class, or the name of one of diffusers.

    Raises:
        ValueError: There is no such class, or it has no `__call__` whose source can be read.

    Example:
        >>> from ma_agiqa_core.generation.pipelines.explain import explain
        >>> explain("FluxPipeline").family
        'flux'
    """
    kind = _class_of(pipeline)
    name = kind.__name__
    is_own = kind.__module__.split(".")[0] == "diffusers"
    family = next((family.name for family in FAMILIES if is_own and name in family.pipelines), None)
    refused = REFUSED[name].reason if is_own and name in REFUSED else None
    call = _source_of_call(kind)
    loop = _loop_of(call)
    if loop is None:
        never = "its __call__ calls callback_on_step_end in no loop: nothing can be dropped or stopped in it"
        return Explanation(name, family, refused, obstacles=(never,))
    taken_back = tuple(_taken_back(loop))
    variables, used = _variables(call, loop, kind)
    counts = tuple(name for name in variables if "batch_size" in name or "num_images_per_prompt" in name)
    counts += tuple(sorted(_counts_afterwards(call, loop) - set(counts)))
    obstacles = []
    if "latents" not in taken_back:
        obstacles.append("it does not take `latents` back from its callback, so they cannot be cut there")
    if not hasattr(kind, "interrupt"):
        obstacles.append("it cannot be interrupted, so that strategy='sequential' saves nothing")
    if not any(hasattr(kind, method) for method in ("check_inputs", "encode_prompt", "prepare_latents")):
        obstacles.append("it has no check_inputs, encode_prompt or prepare_latents, by which a call is noticed")
    return Explanation(
        name,
        family,
        refused,
        tuple(obstacles),
        _networks(loop, kind),
        taken_back,
        tuple(name for name in variables if name not in taken_back),
        tuple(name for name in used if name.endswith(("cache", "caches")) and not name.startswith("use_")),
        counts,
        _draws_noise(loop),
    )


def _class_of(pipeline: str | type) -> type:
    if isinstance(pipeline, type):
        return pipeline
    import diffusers

    kind = getattr(diffusers, pipeline, None)
    if not isinstance(kind, type):
        raise MaAgiqaError(
            f"Expected the name of a pipeline class of diffusers {diffusers.__version__}, got {pipeline!r}. Give it as "
            "in `from diffusers import NAME`."
        )
    return kind


def _source_of_call(kind: type) -> ast.FunctionDef:
    call: Any = inspect.unwrap(vars(kind).get("__call__", kind))
    try:
        tree = ast.parse(textwrap.dedent(inspect.getsource(call)))
    except (OSError, TypeError, SyntaxError):
        tree = ast.Module([], [])
    found = next((node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == "__call__"), None)
    if found is None:
        raise MaAgiqaError(
            f"Expected a pipeline class with a __call__ whose source is here, got {kind.__module__}.{kind.__name__}. "
            "Give the class of a diffusers pipeline."
        )
    return found


def _loop_of(call: ast.FunctionDef) -> ast.For | None:
    loops = [node for node in ast.walk(call) if isinstance(node, ast.For)]
    return next((loop for loop in loops if any(_name(one) == "callback_on_step_end" for one in _calls(loop))), None)


def _calls(node: ast.AST) -> Iterator[ast.Call]:
    return (one for one in ast.walk(node) if isinstance(one, ast.Call))


def _name(call: ast.Call) -> str:
    """ "transformer" of self.transformer(...), "step" of self.scheduler.step(...), "f" of f(...)."""
    return call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")


def _network_calls(loop: ast.For, kind: type) -> Iterator[tuple[str, ast.Call]]:
    """Calls of parts of the pipeline, by the part's name; a variable may stand for one of several (Wan)."""
    standing_for: dict[str, list[str]] = {}
    for node in ast.walk(loop):
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name) and (part := _part(node.value, kind)):
            standing_for.setdefault(node.targets[0].id, []).append(part)
    for call in _calls(loop):
        if part := _part(call.func, kind):
            yield part, call
        elif isinstance(call.func, ast.Name):
            for other in standing_for.get(call.func.id, []):
                yield other, call


def _part(node: ast.AST, kind: type) -> str | None:
    """ "transformer" of self.transformer; None for methods of the pipeline."""
    is_own = isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "self"
    return node.attr if is_own and not node.attr.startswith("_") and not hasattr(kind, node.attr) else None  # type: ignore[attr-defined]


def _networks(loop: ast.For, kind: type) -> dict[str, tuple[str, ...]]:
    """Names of the arguments; of those by position the names of the variables, but for the sample."""
    found: dict[str, dict[str, None]] = {}
    for name, call in _network_calls(loop, kind):
        known = found.setdefault(name, {})
        known.update(dict.fromkeys(one.id for one in call.args[1:] if isinstance(one, ast.Name)))
        known.update(dict.fromkeys(keyword.arg for keyword in call.keywords if keyword.arg is not None))
    return {name: tuple(arguments) for name, arguments in found.items()}


def _taken_back(loop: ast.For) -> list[str]:
    pops = [call for call in _calls(loop) if _name(call) == "pop" and call.args]
    return [str(call.args[0].value) for call in pops if isinstance(call.args[0], ast.Constant)]


def _variables(call: ast.FunctionDef, loop: ast.For, kind: type) -> tuple[list[str], list[str]]:
    """Variables from before the loop that it uses: those that are no network's whole argument, and all of them."""
    whole = {
        id(value)
        for _, one in _network_calls(loop, kind)
        for value in (*one.args, *(keyword.value for keyword in one.keywords))
    }
    before = {
        node.id
        for node in ast.walk(call)
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store) and node.lineno < loop.lineno
    } | {argument.arg for argument in (*call.args.args, *call.args.kwonlyargs)}
    used = [
        node
        for node in ast.walk(loop)
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load) and node.id in before - _ROOM
    ]
    apart = dict.fromkeys(node.id for node in used if id(node) not in whole)
    named = [name for name in apart if not name.startswith(("do_", "use_", "has_")) and "scale" not in name]
    return named, list(dict.fromkeys(node.id for node in used))


def _counts_afterwards(call: ast.FunctionDef, loop: ast.For) -> set[str]:
    """Numbers of rows by which the finished latents are reshaped."""
    names = ("batch_size", "num_images_per_prompt", "num_videos_per_prompt")
    end = loop.end_lineno or loop.lineno
    return {node.id for node in ast.walk(call) if isinstance(node, ast.Name) and node.lineno > end and node.id in names}


def _draws_noise(loop: ast.For) -> bool:
    steps = [call for call in _calls(loop) if _name(call) == "step"]
    return any(
        keyword.arg == "generator" or getattr(keyword.value, "id", "") == "extra_step_kwargs"
        for call in steps
        for keyword in call.keywords
    )
