"""Tiny modular pipelines out of the parts of the others; their texts are given as vectors."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch

from .families import SIZE
from .flux import flux2, flux2_vae
from .making import LENGTH, awaken, generators, masks, pictures, pil, random
from .qwen import krea2, layered_vectors, qwen_image, qwen_image_21, qwen_vae
from .schedulers import SCHEDULERS
from .texts import positive, vectors
from .wide import ernie, ideogram4, listed_vectors
from .z_image import row_vectors, z_image

PARTS = ("transformer", "vae", "scheduler")


@dataclass(frozen=True)
class TinyModular:
    """How to build and call one modular pipeline.

    Attributes:
        package: Of diffusers.modular_pipelines.
        blocks: Class of its blocks.
        parts: Makes its components.
        inputs: The texts as vectors, for a number of prompts, and the size.
        left_out: Blocks that would make the vectors.
        prompts: How many its calls take at most.
        compared: What is compared: "images", or "latents" where the blocks give PIL pictures only.
    """

    package: str
    blocks: str
    parts: Callable[[], dict[str, Any]]
    inputs: Callable[[int], dict[str, Any]]
    left_out: tuple[str, ...] = ("text_encoder",)
    prompts: int = 2
    compared: str = "images"

    def make(self) -> Any:
        from importlib import import_module

        blocks = getattr(import_module(f"diffusers.modular_pipelines.{self.package}"), self.blocks)()
        for name in self.left_out:
            blocks.sub_blocks.pop(name)
        pipe = blocks.init_pipeline()
        pipe.update_components(**self.parts())
        pipe.set_progress_bar_config(disable=True)
        return pipe

    def arguments(self, rows: int, *, prompts: int = 1, steps: int = 5) -> dict[str, Any]:
        """Of one call: that many pictures of each prompt, one generator per row."""
        call = {"num_images_per_prompt": rows, "num_inference_steps": steps, "generator": generators(rows * prompts)}
        output_type = "pt" if self.compared == "images" else "pil"
        return {**self.inputs(prompts), **call, "output_type": output_type, "output": self.compared}


def parts_of(make: Callable[[], Any], *more: str) -> Callable[[], dict[str, Any]]:
    return lambda: {name: getattr(make(), name) for name in (*PARTS, *more)}


def sized(inputs: Callable[[int], dict[str, Any]], **more: Any) -> Callable[[int], dict[str, Any]]:
    return lambda prompts: {**SIZE, **inputs(prompts), **more}


def only_positive(inputs: Callable[[int], dict[str, Any]]) -> Callable[[int], dict[str, Any]]:
    return lambda prompts: {name: value for name, value in inputs(prompts).items() if not name.startswith("negative")}


def given(inputs: Callable[[int], dict[str, Any]], **pictures_: Callable[[], Any]) -> Callable[[int], dict[str, Any]]:
    """With pictures, the same for all rows."""
    return lambda prompts: {**inputs(prompts), **{name: make() for name, make in pictures_.items()}}


def edited() -> dict[str, Any]:
    """Parts of an editing pipeline, which scales every given picture to about 1024 pixels a side."""
    from diffusers.modular_pipelines.qwenimage import encoders

    vars(encoders)["calculate_dimensions"] = lambda area, ratio: (16, 16, None)
    return parts_of(qwen_image)()


def one_picture() -> Any:
    return pil(pictures(1, seed=8)[0])


def larger_picture() -> Any:
    return one_picture().resize((64, 64))


def one_mask() -> Any:
    return pil(masks(1)[0].expand(3, -1, -1)).convert("L")


def qwen21_vectors(prompts: int) -> dict[str, Any]:
    no_picture = torch.zeros(prompts, 6, dtype=torch.bool)
    masks = {"image_pad_mask": no_picture, "negative_image_pad_mask": no_picture}
    return {**vectors(mask=True)(prompts), **masks, "height": 64, "width": 64}


def qwen21_read_picture(prompts: int) -> dict[str, Any]:
    """The text's vectors with four that stand for the picture."""
    made = qwen21_vectors(prompts)
    is_picture = torch.zeros(prompts, 6, dtype=torch.bool)
    is_picture[:, :4] = True
    return {**made, "image_pad_mask": is_picture, "negative_image_pad_mask": is_picture, "output_resolution": 64}


def flux3_parts(*, distilled: bool) -> dict[str, Any]:
    import diffusers

    transformer = diffusers.Flux3Transformer2DModel(
        in_channels=16,
        cond_in_channels=16,
        num_layers=1,
        num_single_layers=1,
        attention_head_dim=8,
        num_attention_heads=2,
        joint_attention_dim=8,
        timestep_channels=8,
        axes_dims_rope=(2, 2, 2, 2),
        flow_map=distilled,
    )
    return {"transformer": awaken(transformer, 130), "vae": flux2_vae(), "scheduler": SCHEDULERS["flow_euler"]()}


class Conditioner(torch.nn.Module):
    """Stands for Anima's adapter between its two text encoders."""

    dtype = torch.float32

    def forward(self, source_hidden_states: torch.Tensor, **_: Any) -> torch.Tensor:
        return source_hidden_states


def anima_parts() -> dict[str, Any]:
    import diffusers

    transformer = diffusers.CosmosTransformer3DModel(
        in_channels=4,
        out_channels=4,
        num_attention_heads=2,
        attention_head_dim=16,
        num_layers=1,
        mlp_ratio=1.0,
        text_embed_dim=8,
        adaln_lora_dim=4,
        max_size=(4, 16, 16),
        extra_pos_embed_type=None,
    )
    return {
        "transformer": awaken(transformer, 131),
        "vae": qwen_vae(),
        "scheduler": SCHEDULERS["flow_euler"](),
        "text_conditioner": Conditioner(),
    }


def anima_vectors(prompts: int) -> dict[str, Any]:
    made: dict[str, Any] = {}
    for number, prefix in enumerate(("", "negative_")):
        made[f"{prefix}qwen_prompt_embeds"] = random(1 + number, prompts, 6, 8)
        made[f"{prefix}qwen_attention_mask"] = torch.ones(prompts, 6)
        made[f"{prefix}t5_input_ids"] = torch.ones(prompts, 6, dtype=torch.long)
        made[f"{prefix}t5_attention_mask"] = torch.ones(prompts, 6)
    return made


def sd3_parts() -> dict[str, Any]:
    from .others import sd3

    return dict(sd3().components)


def flux_parts() -> dict[str, Any]:
    from .flux import flux

    return dict(flux().components)


def ideogram4_features(prompts: int) -> dict[str, Any]:
    return {"text_features": random(1, prompts, 12, 8), "text_lengths": [9, 7, 5][:prompts]}


MODULAR: dict[str, TinyModular] = {
    "krea2": TinyModular("krea2", "Krea2AutoBlocks", parts_of(krea2), sized(layered_vectors)),
    "krea2_turbo": TinyModular("krea2", "Krea2TurboAutoBlocks", parts_of(krea2), sized(only_positive(layered_vectors))),
    "qwen_image": TinyModular("qwenimage", "QwenImageAutoBlocks", parts_of(qwen_image), sized(vectors(mask=True))),
    "qwen_image_21": TinyModular("qwenimage21", "QwenImage21AutoBlocks", parts_of(qwen_image_21), qwen21_vectors),
    "qwen_image_21_turbo": TinyModular(
        "qwenimage21", "QwenImage21TurboAutoBlocks", parts_of(qwen_image_21), only_positive(qwen21_vectors)
    ),
    "qwen_image_inpaint": TinyModular(
        "qwenimage",
        "QwenImageAutoBlocks",
        parts_of(qwen_image),
        sized(given(vectors(mask=True), image=one_picture, mask_image=one_mask), strength=0.9),
        compared="latents",
    ),
    "qwen_image_controlnet": TinyModular(
        "qwenimage",
        "QwenImageAutoBlocks",
        parts_of(lambda: qwen_image("QwenImageControlNetPipeline"), "controlnet"),
        sized(given(vectors(mask=True), control_image=one_picture)),
    ),
    "qwen_image_inpaint_controlnet": TinyModular(
        "qwenimage",
        "QwenImageAutoBlocks",
        parts_of(lambda: qwen_image("QwenImageControlNetPipeline"), "controlnet"),
        sized(
            given(vectors(mask=True), image=one_picture, mask_image=one_mask, control_image=one_picture), strength=0.9
        ),
        compared="latents",
    ),
    "qwen_image_edit": TinyModular(
        "qwenimage",
        "QwenImageEditAutoBlocks",
        edited,
        sized(given(vectors(mask=True), image=one_picture)),
    ),
    "qwen_image_edit_plus": TinyModular(
        "qwenimage",
        "QwenImageEditPlusAutoBlocks",
        edited,
        sized(given(vectors(mask=True), image=lambda: [one_picture(), one_picture()])),
    ),
    "qwen_image_edit_inpaint": TinyModular(
        "qwenimage",
        "QwenImageEditAutoBlocks",
        edited,
        sized(given(vectors(mask=True), image=one_picture, mask_image=one_mask), strength=0.9),
        compared="latents",
    ),
    "qwen_image_img2img": TinyModular(
        "qwenimage",
        "QwenImageAutoBlocks",
        parts_of(qwen_image),
        sized(given(vectors(mask=True), image=one_picture), strength=0.9),
    ),
    "flux2": TinyModular("flux2", "Flux2AutoBlocks", parts_of(flux2), sized(vectors(negative=False))),
    "flux2_reference": TinyModular(
        "flux2", "Flux2AutoBlocks", parts_of(flux2), sized(given(vectors(negative=False), image=larger_picture))
    ),
    "flux2_klein_reference": TinyModular(
        "flux2",
        "Flux2KleinAutoBlocks",
        parts_of(lambda: flux2("Flux2KleinPipeline")),
        sized(given(vectors(negative=False), image=larger_picture)),
    ),
    "flux_kontext": TinyModular(
        "flux",
        "FluxKontextAutoBlocks",
        flux_parts,
        sized(given(positive, image=one_picture), max_sequence_length=LENGTH, _auto_resize=False, max_area=256),
        left_out=(),
        prompts=1,  # it encodes the picture once
    ),
    "qwen_image_21_edit": TinyModular(
        "qwenimage21",
        "QwenImage21AutoBlocks",
        parts_of(qwen_image_21),
        given(qwen21_read_picture, image=larger_picture),
    ),
    "qwen_image_21_turbo_edit": TinyModular(
        "qwenimage21",
        "QwenImage21TurboAutoBlocks",
        parts_of(qwen_image_21),
        given(only_positive(qwen21_read_picture), image=larger_picture),
    ),
    "anima_img2img": TinyModular(
        "anima", "AnimaAutoBlocks", anima_parts, sized(given(anima_vectors, image=one_picture), strength=0.8)
    ),
    "sd3_img2img": TinyModular(
        "stable_diffusion_3",
        "StableDiffusion3AutoBlocks",
        sd3_parts,
        sized(given(positive, image=one_picture), strength=0.8, max_sequence_length=LENGTH),
        left_out=(),
    ),
    "z_image": TinyModular("z_image", "ZImageAutoBlocks", parts_of(z_image), sized(row_vectors)),
    "sd3": TinyModular(
        "stable_diffusion_3",
        "StableDiffusion3AutoBlocks",
        sd3_parts,
        sized(positive, max_sequence_length=LENGTH),
        left_out=(),
    ),
    "flux2_klein": TinyModular(
        "flux2",
        "Flux2KleinAutoBlocks",
        parts_of(lambda: flux2("Flux2KleinPipeline")),
        sized(vectors(negative=False)),
    ),
    "flux2_klein_base": TinyModular(
        "flux2", "Flux2KleinBaseAutoBlocks", parts_of(lambda: flux2("Flux2KleinPipeline")), sized(vectors())
    ),
    "flux3": TinyModular(
        "flux3",
        "Flux3AutoBlocks",
        lambda: flux3_parts(distilled=False),
        sized(vectors()),
        left_out=("prompt_upsampler", "text_encoder"),
        prompts=1,
    ),
    "flux3_distilled": TinyModular(
        "flux3",
        "Flux3DistilledAutoBlocks",
        lambda: flux3_parts(distilled=True),
        sized(vectors(negative=False)),
        left_out=("prompt_upsampler", "text_encoder"),
        prompts=1,
    ),
    "anima": TinyModular("anima", "AnimaAutoBlocks", anima_parts, sized(anima_vectors)),
    "ernie": TinyModular(
        "ernie_image",
        "ErnieImageAutoBlocks",
        parts_of(ernie),
        sized(listed_vectors),
        left_out=("prompt_enhancer", "text_encoder"),
    ),
    "ideogram4": TinyModular(
        "ideogram4",
        "Ideogram4AutoBlocks",
        parts_of(ideogram4, "unconditional_transformer"),
        sized(ideogram4_features, guidance_schedule=[3.0] * 5),
        left_out=("prompt_upsample", "text_encoder"),
    ),
}


@cache
def shared_modular(name: str) -> Any:
    """One pipeline for all tests that leave it as it was."""
    return MODULAR[name].make()
