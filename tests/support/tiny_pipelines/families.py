"""How one tiny pipeline is built and called."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from .making import PICTURES, SIDE, generators
from .texts import text

SIZE = {"height": SIDE, "width": SIDE}
GUIDED = {"guidance_scale": 3.0}
UNGUIDED = {"guidance_scale": 1.0}
FROM_PICTURE: dict[str, Any] = {"strength": 0.6}


@dataclass(frozen=True)
class TinyFamily:
    """How to build one pipeline and how to call it.

    Attributes:
        make: Builds the pipeline, always the same one.
        inputs: For a number of prompts, the call's arguments that carry them (text, or vectors where the text encoder
            is too heavy to be built here), besides pictures, masks and control pictures.
        guided: Arguments of a call with classifier-free guidance, or None where the family has none.
        unguided: Arguments of a call without it.
        usual: Name of the scheduler it usually runs with, in `SCHEDULERS`.
        per_prompt: The argument that says how many pictures of each prompt.
        settings: Further arguments of every call.
        per_row: Names of the pictures and masks that are given one per row, all unlike. Control pictures are not:
            diffusers repeats those.
        one_prompt: The pipeline takes no list of prompts.
    """

    make: Callable[[], Any]
    inputs: Callable[[int], dict[str, Any]]
    guided: dict[str, Any] | None
    unguided: dict[str, Any]
    usual: str
    per_prompt: str = "num_images_per_prompt"
    settings: dict[str, Any] = field(default_factory=dict)
    per_row: tuple[str, ...] = ()
    one_prompt: bool = False

    def arguments(
        self, rows: int, *, prompts: int = 1, guidance: bool = True, steps: int = 5, seed: int = 0
    ) -> dict[str, Any]:
        """Arguments of one call: that many pictures of each prompt, one generator per row."""
        return {
            **self.inputs(prompts),
            **{name: PICTURES[name](rows * prompts) for name in self.per_row},
            **self.settings,
            **((self.guided or self.unguided) if guidance else self.unguided),
            self.per_prompt: rows,
            "num_inference_steps": steps,
            "generator": generators(rows * prompts, seed),
        }


def family(make: Callable[..., Any], usual: str, name: str = "", **changes: Any) -> TinyFamily:
    settings: dict[str, Any] = {
        "inputs": text,
        "guided": GUIDED,
        "unguided": UNGUIDED,
        "settings": {**SIZE},
    } | changes
    return TinyFamily(make=(lambda: make(name)) if name else make, usual=usual, **settings)


def with_given(inputs: Callable[[int], dict[str, Any]], **given: Callable[[], Any]) -> Callable[[int], dict[str, Any]]:
    """The prompts, and further arguments that are the same for all rows."""
    return lambda prompts: {**inputs(prompts), **{name: make() for name, make in given.items()}}
