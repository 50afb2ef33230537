"""Tiny random pipelines of every family, 16 pixels wide, and every scheduler; conftest.py has the fixture.

The sizes are small because a whole call is to take milliseconds. The weights are redrawn (`awaken`) because
diffusers' initial ones leave many inputs without effect (zero convolutions, gates): a row with another row's prompt,
mask or control picture must come out as another picture here, or the tests would miss it.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cache
from types import SimpleNamespace
from typing import Any

import torch

SIDE = 16
LETTERS = "abcdefghijklmnopqrstuvwxyz ,.-'"
LENGTH = 12  # tokens of a prompt
PROMPTS = ("a red cube", "two cats", "mist")
NEGATIVE_PROMPTS = ("blurred", "dark", "flat grey")


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
    """

    make: Callable[[], Any]
    inputs: Callable[[int], dict[str, Any]]
    guided: dict[str, Any] | None
    unguided: dict[str, Any]
    usual: str
    per_prompt: str = "num_images_per_prompt"
    settings: dict[str, Any] = field(default_factory=dict)
    per_row: tuple[str, ...] = ()

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


def generators(rows: int, seed: int = 0) -> list[torch.Generator]:
    """One generator per row, seeds `seed`, `seed + 1`, ..."""
    return [torch.Generator("cpu").manual_seed(seed + row) for row in range(rows)]


def awaken(model: Any, seed: int) -> Any:
    """Random weights through which every input reaches the output; everything in eval mode."""
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in model.named_parameters():
        if parameter.ndim > 1:
            fan_in = parameter[0].numel()
            parameter.data.normal_(0, fan_in**-0.5, generator=generator)
        elif name.endswith("bias"):
            parameter.data.normal_(0, 0.1, generator=generator)
        elif name.endswith("weight"):  # of a norm
            parameter.data.fill_(1)
    return model.eval().requires_grad_(False)


def random(seed: int, *shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def pictures(count: int, seed: int = 7) -> torch.Tensor:
    """Random pictures, (count, 3, SIDE, SIDE) in [0, 1]."""
    return torch.rand((count, 3, SIDE, SIDE), generator=torch.Generator().manual_seed(seed))


def masks(count: int) -> torch.Tensor:
    """White where an inpainting pipeline paints: a left part, wider from row to row, (count, 1, SIDE, SIDE)."""
    edge = SIDE // 4 + 2 * torch.arange(count).view(count, 1, 1, 1)
    return (torch.arange(SIDE).expand(count, 1, SIDE, SIDE) < edge).float()


PICTURES = {"image": pictures, "mask_image": masks}


# Text


def tokenizer() -> Any:
    """One token per letter; ends with an end token, padded with it."""
    from tokenizers import Regex, Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    vocabulary = {token: number for number, token in enumerate(["<pad>", "<unk>", "<end>", *LETTERS])}
    letters = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    letters.pre_tokenizer = pre_tokenizers.Split(Regex("."), "isolated")
    letters.post_processor = processors.TemplateProcessing(single="$A <end>", special_tokens=[("<end>", 2)])
    return PreTrainedTokenizerFast(
        tokenizer_object=letters,
        pad_token="<pad>",
        unk_token="<unk>",
        eos_token="<end>",
        model_max_length=LENGTH,
    )


def clip(seed: int, *, projected: bool = False) -> Any:
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

    config = CLIPTextConfig(
        vocab_size=len(LETTERS) + 3,
        hidden_size=8,
        intermediate_size=8,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=LENGTH,
        projection_dim=8,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
    )
    return awaken((CLIPTextModelWithProjection if projected else CLIPTextModel)(config), seed)


def t5(seed: int, width: int = 8) -> Any:
    from transformers import T5Config, T5EncoderModel

    config = T5Config(
        vocab_size=len(LETTERS) + 3, d_model=width, d_kv=4, d_ff=8, num_layers=1, num_heads=2, pad_token_id=0
    )
    return awaken(T5EncoderModel(config), seed)


def umt5(seed: int) -> Any:
    from transformers import UMT5Config, UMT5EncoderModel

    config = UMT5Config(vocab_size=len(LETTERS) + 3, d_model=8, d_kv=4, d_ff=8, num_layers=1, num_heads=2)
    return awaken(UMT5EncoderModel(config), seed)


def gemma(seed: int) -> Any:
    from transformers import Gemma2Config, Gemma2Model

    config = Gemma2Config(
        vocab_size=len(LETTERS) + 3,
        hidden_size=8,
        intermediate_size=8,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=2,
        head_dim=4,
    )
    return awaken(Gemma2Model(config), seed)


def chat_glm(seed: int) -> Any:
    from diffusers.pipelines.kolors import ChatGLMModel
    from diffusers.pipelines.kolors.text_encoder import ChatGLMConfig

    config = ChatGLMConfig(
        num_layers=2,
        padded_vocab_size=len(LETTERS) + 3,
        hidden_size=8,
        ffn_hidden_size=8,
        kv_channels=4,
        num_attention_heads=2,
        seq_length=256,
        multi_query_attention=True,
        multi_query_group_num=1,
        original_rope=True,
        use_cache=False,
    )
    return awaken(ChatGLMModel(config), seed)


class KolorsTokenizer:
    """Gives the numbers of positions too, as ChatGLM's own tokenizer."""

    def __init__(self) -> None:
        self.letters = tokenizer()

    def __call__(self, texts: list[str], **settings: Any) -> Any:
        tokens = self.letters(texts, **settings)
        tokens["position_ids"] = torch.arange(tokens["input_ids"].shape[1]).expand_as(tokens["input_ids"])
        return tokens


def text(prompts: int) -> dict[str, Any]:
    """Prompts of up to 10 letters and unlike negative ones."""
    if prompts == 1:
        return {"prompt": PROMPTS[0], "negative_prompt": NEGATIVE_PROMPTS[0]}
    return {"prompt": list(PROMPTS[:prompts]), "negative_prompt": list(NEGATIVE_PROMPTS[:prompts])}


def vectors(*, mask: bool = False, negative: bool = True) -> Callable[[int], dict[str, Any]]:
    """Prompt vectors instead of text: (prompts, 6, 8)."""

    def inputs(prompts: int) -> dict[str, Any]:
        made: dict[str, Any] = {"prompt_embeds": random(1, prompts, 6, 8)}
        if negative:
            made["negative_prompt_embeds"] = random(2, prompts, 6, 8)
        if mask:
            # The longest fills the vectors: diffusers 0.35 knows no other padding.
            lengths, negative_lengths = torch.tensor([[6], [5], [3]]), torch.tensor([[6], [3], [4]])
            made["prompt_embeds_mask"] = (torch.arange(6) < lengths[:prompts]).long()
            made["negative_prompt_embeds_mask"] = (torch.arange(6) < negative_lengths[:prompts]).long()
        return made

    return inputs


# Networks


def unet(*, channels: int = 4, lcm: bool = False) -> Any:
    from diffusers import UNet2DConditionModel

    return awaken(
        UNet2DConditionModel(
            sample_size=8,
            in_channels=channels,
            out_channels=4,
            block_out_channels=(4, 8),
            layers_per_block=1,
            norm_num_groups=2,
            down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
            up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
            cross_attention_dim=8,
            attention_head_dim=2,
            time_cond_proj_dim=8 if lcm else None,
        ),
        seed=10,
    )


SDXL_UNET = {
    "sample_size": 8,
    "block_out_channels": (4, 8),
    "layers_per_block": 1,
    "norm_num_groups": 2,
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D"),
    "attention_head_dim": (2, 2),
    "use_linear_projection": True,
    "addition_embed_type": "text_time",
    "addition_time_embed_dim": 4,
    "transformer_layers_per_block": (1, 1),
    "projection_class_embeddings_input_dim": 8 + 6 * 4,
    "cross_attention_dim": 16,
}


def sdxl_unet(*, channels: int = 4, **changes: Any) -> Any:
    from diffusers import UNet2DConditionModel

    shape = SDXL_UNET | {"up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D")} | changes
    return awaken(UNet2DConditionModel(in_channels=channels, out_channels=4, **shape), seed=11)


def controlnet(*, xl: bool = False) -> Any:
    from diffusers import ControlNetModel

    shape: dict[str, Any] = (
        {name: value for name, value in SDXL_UNET.items() if name != "sample_size"}
        if xl
        else {
            "block_out_channels": (4, 8),
            "layers_per_block": 1,
            "norm_num_groups": 2,
            "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D"),
            "cross_attention_dim": 8,
            "attention_head_dim": 2,
        }
    )
    return awaken(ControlNetModel(conditioning_embedding_out_channels=(4, 8), **shape), seed=12)


def vae(channels: int = 4, **changes: Any) -> Any:
    from diffusers import AutoencoderKL

    return awaken(
        AutoencoderKL(
            block_out_channels=(4, 8),
            down_block_types=("DownEncoderBlock2D",) * 2,
            up_block_types=("UpDecoderBlock2D",) * 2,
            latent_channels=channels,
            norm_num_groups=2,
            sample_size=SIDE,
            **changes,
        ),
        seed=13,
    )


# Pipelines


def stable_diffusion(name: str = "StableDiffusionPipeline", *, lcm: bool = False, channels: int = 4) -> Any:
    import diffusers

    parts = {
        "vae": vae(),
        "text_encoder": clip(20),
        "tokenizer": tokenizer(),
        "unet": unet(lcm=lcm, channels=channels),
        "scheduler": SCHEDULERS["ddim"](),
        "safety_checker": None,
        "feature_extractor": None,
        "requires_safety_checker": False,
    }
    if "ControlNet" in name:
        parts["controlnet"] = controlnet()
    return getattr(diffusers, name)(**parts)


def sdxl(name: str = "StableDiffusionXLPipeline", *, channels: int = 4) -> Any:
    import diffusers

    parts = {
        "vae": vae(force_upcast=False),
        "text_encoder": clip(21),
        "tokenizer": tokenizer(),
        "text_encoder_2": clip(22, projected=True),
        "tokenizer_2": tokenizer(),
        "unet": sdxl_unet(channels=channels),
        "scheduler": SCHEDULERS["euler"](),
        "add_watermarker": False,
    }
    if "ControlNet" in name:
        parts["controlnet"] = controlnet(xl=True)
    return getattr(diffusers, name)(**parts)


def kolors(name: str = "KolorsPipeline") -> Any:
    import diffusers

    return getattr(diffusers, name)(
        vae=vae(force_upcast=False),
        text_encoder=chat_glm(23),
        tokenizer=KolorsTokenizer(),
        unet=sdxl_unet(cross_attention_dim=8, encoder_hid_dim=8, encoder_hid_dim_type="text_proj"),
        scheduler=SCHEDULERS["euler"](),
    )


def sd3(name: str = "StableDiffusion3Pipeline") -> Any:
    import diffusers

    transformer = diffusers.SD3Transformer2DModel(
        sample_size=8,
        patch_size=2,
        in_channels=16,
        out_channels=16,
        num_layers=2,
        attention_head_dim=4,
        num_attention_heads=2,
        caption_projection_dim=8,
        joint_attention_dim=16,
        pooled_projection_dim=16,
        pos_embed_max_size=8,
    )
    return getattr(diffusers, name)(
        transformer=awaken(transformer, 30),
        scheduler=SCHEDULERS["flow_euler"](),
        vae=vae(16, shift_factor=0.1),
        text_encoder=clip(31, projected=True),
        tokenizer=tokenizer(),
        text_encoder_2=clip(32, projected=True),
        tokenizer_2=tokenizer(),
        text_encoder_3=t5(33, 16),
        tokenizer_3=tokenizer(),
    )


def flux(name: str = "FluxPipeline", *, channels: int = 16) -> Any:
    import diffusers

    transformer = diffusers.FluxTransformer2DModel(
        patch_size=1,
        in_channels=channels,
        out_channels=16,
        num_layers=1,
        num_single_layers=1,
        attention_head_dim=8,
        num_attention_heads=2,
        joint_attention_dim=8,
        pooled_projection_dim=8,
        guidance_embeds=True,
        axes_dims_rope=(2, 2, 4),
    )
    return getattr(diffusers, name)(
        transformer=awaken(transformer, 40),
        scheduler=SCHEDULERS["flow_euler"](),
        vae=vae(shift_factor=0.1),
        text_encoder=clip(41),
        tokenizer=tokenizer(),
        text_encoder_2=t5(42),
        tokenizer_2=tokenizer(),
    )


def flux2(name: str = "Flux2Pipeline") -> Any:
    import diffusers

    transformer = diffusers.Flux2Transformer2DModel(
        patch_size=1,
        in_channels=16,
        num_layers=1,
        num_single_layers=1,
        attention_head_dim=8,
        num_attention_heads=2,
        joint_attention_dim=8,
        timestep_guidance_channels=8,
        axes_dims_rope=(2, 2, 2, 2),
        guidance_embeds=name == "Flux2Pipeline",
    )
    autoencoder = diffusers.AutoencoderKLFlux2(
        block_out_channels=(4, 8),
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        latent_channels=4,
        norm_num_groups=2,
        sample_size=SIDE,
    )
    return getattr(diffusers, name)(
        transformer=awaken(transformer, 50),
        scheduler=SCHEDULERS["flow_euler"](),
        vae=awaken(autoencoder, 51),
        text_encoder=None,
        tokenizer=None,
    )


def qwen_image(name: str = "QwenImagePipeline") -> Any:
    import diffusers

    transformer = diffusers.QwenImageTransformer2DModel(
        patch_size=2,
        in_channels=16,
        out_channels=4,
        num_layers=1,
        attention_head_dim=8,
        num_attention_heads=2,
        joint_attention_dim=8,
        axes_dims_rope=(2, 2, 4),
    )
    autoencoder = diffusers.AutoencoderKLQwenImage(
        base_dim=4,
        z_dim=4,
        dim_mult=[1, 2],
        num_res_blocks=1,
        temperal_downsample=[False],
        latents_mean=[0.1, -0.1, 0.2, 0.0],
        latents_std=[1.0, 1.2, 0.9, 1.1],
    )
    return getattr(diffusers, name)(
        transformer=awaken(transformer, 60),
        scheduler=SCHEDULERS["flow_euler"](),
        vae=awaken(autoencoder, 61),
        text_encoder=None,
        tokenizer=None,
    )


def sana(name: str = "SanaPipeline") -> Any:
    import diffusers

    transformer = diffusers.SanaTransformer2DModel(
        patch_size=1,
        in_channels=4,
        out_channels=4,
        num_layers=1,
        num_attention_heads=2,
        attention_head_dim=4,
        num_cross_attention_heads=2,
        cross_attention_head_dim=4,
        cross_attention_dim=8,
        caption_channels=8,
        sample_size=8,
    )
    autoencoder = diffusers.AutoencoderDC(
        latent_channels=4,
        attention_head_dim=2,
        encoder_block_out_channels=(8, 8),
        decoder_block_out_channels=(8, 8),
        encoder_layers_per_block=(1, 1),
        decoder_layers_per_block=(1, 1),
        encoder_qkv_multiscales=((), ()),
        decoder_qkv_multiscales=((), ()),
        scaling_factor=0.4,
    )
    return getattr(diffusers, name)(
        transformer=awaken(transformer, 70),
        scheduler=SCHEDULERS["flow_dpm"](),
        vae=awaken(autoencoder, 71),
        text_encoder=gemma(72),
        tokenizer=tokenizer(),
    )


def pixart(name: str = "PixArtSigmaPipeline") -> Any:
    import diffusers

    transformer = diffusers.PixArtTransformer2DModel(
        sample_size=8,
        num_layers=1,
        patch_size=2,
        attention_head_dim=4,
        num_attention_heads=2,
        caption_channels=8,
        in_channels=4,
        out_channels=8,
        cross_attention_dim=8,
    )
    return getattr(diffusers, name)(
        transformer=awaken(transformer, 80),
        scheduler=SCHEDULERS["dpm_2m"](),
        vae=vae(),
        text_encoder=t5(81),
        tokenizer=tokenizer(),
    )


def wan(name: str = "WanPipeline", *, boundary: float | None = None) -> Any:
    """With `boundary` it has two transformers, as Wan 2.2: the second takes over at that share of the noise."""
    import diffusers
    from diffusers.pipelines.wan import pipeline_wan

    if not hasattr(pipeline_wan, "ftfy"):  # diffusers 0.35 mends prompts with it whether it is installed or not
        vars(pipeline_wan)["ftfy"] = SimpleNamespace(fix_text=str)

    def transformer(seed: int) -> Any:
        return awaken(
            diffusers.WanTransformer3DModel(
                num_attention_heads=2,
                attention_head_dim=12,
                in_channels=4,
                out_channels=4,
                text_dim=8,
                freq_dim=8,
                ffn_dim=8,
                num_layers=1,
                rope_max_seq_len=16,
            ),
            seed,
        )

    autoencoder = diffusers.AutoencoderKLWan(
        base_dim=4,
        z_dim=4,
        dim_mult=[1, 1, 1, 1],
        num_res_blocks=1,
        temperal_downsample=[False, True, True],
        latents_mean=[0.1, -0.1, 0.2, 0.0],
        latents_std=[1.0, 1.2, 0.9, 1.1],
    )
    return getattr(diffusers, name)(
        tokenizer=tokenizer(),
        text_encoder=umt5(90),
        vae=awaken(autoencoder, 91),
        scheduler=SCHEDULERS["flow_unipc"](),
        transformer=transformer(92),
        transformer_2=None if boundary is None else transformer(93),
        boundary_ratio=boundary,
    )


def add_ip_adapter(pipe: Any) -> Any:
    """An IP-Adapter of random weights in the pipeline's denoiser, for picture vectors of width 8."""
    denoiser = pipe.unet if hasattr(pipe, "unet") else pipe.transformer
    width = denoiser.config.get("cross_attention_dim") or denoiser.config.joint_attention_dim
    unet = hasattr(pipe, "unet")
    layers: dict[str, torch.Tensor] = {}
    key = 1 if unet else 0
    for name in denoiser.attn_processors:
        if (unet and name.endswith("attn1.processor")) or name.startswith("single_transformer_blocks"):
            continue
        attention = denoiser.get_submodule(name.removesuffix(".processor"))
        inner = attention.to_q.out_features
        for part, letter in enumerate("kv"):
            layers[f"{key}.to_{letter}_ip.weight"] = random(100 + 2 * key + part, inner, width) * width**-0.5
            if not unet:
                layers[f"{key}.to_{letter}_ip.bias"] = random(200 + 2 * key + part, inner)
        key += 2 if unet else 1
    projection = {
        "proj.weight": random(300, 4 * width, 8),
        "proj.bias": random(301, 4 * width),
        "norm.weight": torch.ones(width),
        "norm.bias": torch.zeros(width),
    }
    denoiser._load_ip_adapter_weights([{"image_proj": projection, "ip_adapter": layers}], low_cpu_mem_usage=False)
    return pipe


# Schedulers


def scheduler(name: str, **settings: Any) -> Callable[[], Any]:
    def make() -> Any:
        import diffusers

        return getattr(diffusers, name)(**settings)

    return make


STABLE = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
FLOW = {"prediction_type": "flow_prediction", "use_flow_sigmas": True, "flow_shift": 3.0}
SCHEDULERS: dict[str, Callable[[], Any]] = {
    "ddim": scheduler("DDIMScheduler", **STABLE, clip_sample=False, set_alpha_to_one=False, steps_offset=1),
    "euler": scheduler("EulerDiscreteScheduler", **STABLE, steps_offset=1, timestep_spacing="leading"),
    "euler_ancestral": scheduler("EulerAncestralDiscreteScheduler", **STABLE, steps_offset=1),
    "heun": scheduler("HeunDiscreteScheduler", **STABLE, steps_offset=1),
    "dpm_2m": scheduler("DPMSolverMultistepScheduler", **STABLE, use_karras_sigmas=True),
    "dpm_sde": scheduler("DPMSolverMultistepScheduler", **STABLE, algorithm_type="sde-dpmsolver++"),
    "unipc": scheduler("UniPCMultistepScheduler", **STABLE),
    "deis": scheduler("DEISMultistepScheduler", **STABLE),
    "pndm": scheduler("PNDMScheduler", **STABLE, skip_prk_steps=True, set_alpha_to_one=False, steps_offset=1),
    "pndm_prk": scheduler("PNDMScheduler", **STABLE, skip_prk_steps=False, set_alpha_to_one=False, steps_offset=1),
    "lcm": scheduler("LCMScheduler", **STABLE),
    "flow_euler": scheduler("FlowMatchEulerDiscreteScheduler", shift=3.0),
    "flow_euler_dynamic": scheduler("FlowMatchEulerDiscreteScheduler", shift=3.0, use_dynamic_shifting=True),
    "flow_euler_stochastic": scheduler("FlowMatchEulerDiscreteScheduler", shift=3.0, stochastic_sampling=True),
    "flow_heun": scheduler("FlowMatchHeunDiscreteScheduler", shift=3.0),
    "flow_dpm": scheduler("DPMSolverMultistepScheduler", **FLOW),
    "flow_unipc": scheduler("UniPCMultistepScheduler", **FLOW),
}
STABLE_SCHEDULERS = tuple(name for name in SCHEDULERS if not name.startswith("flow_"))
FLOW_SCHEDULERS = tuple(name for name in SCHEDULERS if name.startswith("flow_"))


# Families

SIZE = {"height": SIDE, "width": SIDE}
GUIDED = {"guidance_scale": 3.0}
UNGUIDED = {"guidance_scale": 1.0}


def with_control(name: str) -> Callable[[int], dict[str, Any]]:
    """Text, and one control picture for all rows."""
    return lambda prompts: {**text(prompts), name: pictures(1, seed=8)}


def with_reference(*, negative: bool) -> Callable[[int], dict[str, Any]]:
    """Prompt vectors, and a picture that Flux2 looks at beside the prompt: 64 pixels are the fewest it takes."""

    def inputs(prompts: int) -> dict[str, Any]:
        import PIL.Image

        grey = (pictures(1)[0, 0] * 255).byte().repeat_interleave(4, 0).repeat_interleave(4, 1)
        return {**vectors(negative=negative)(prompts), "image": PIL.Image.fromarray(grey.numpy()).convert("RGB")}

    return inputs


def positive(prompts: int) -> dict[str, Any]:
    """Text without negative prompts."""
    return {"prompt": text(prompts)["prompt"]}


def flux_text(prompts: int) -> dict[str, Any]:
    return {**text(prompts), "max_sequence_length": LENGTH}


def family(make: Callable[..., Any], usual: str, name: str = "", **changes: Any) -> TinyFamily:
    settings: dict[str, Any] = {
        "inputs": text,
        "guided": GUIDED,
        "unguided": UNGUIDED,
        "settings": {**SIZE},
    } | changes
    return TinyFamily(make=(lambda: make(name)) if name else make, usual=usual, **settings)


FLUX_CALL: dict[str, Any] = {
    "inputs": flux_text,
    "guided": {"guidance_scale": 3.5, "true_cfg_scale": 3.0},
    "unguided": {"guidance_scale": 3.5},
}
QWEN_CALL: dict[str, Any] = {
    "inputs": vectors(mask=True),
    "guided": {"true_cfg_scale": 3.0},
    "unguided": {"true_cfg_scale": 1.0},
}
KOLORS_CALL: dict[str, Any] = {"settings": {**SIZE, "max_sequence_length": LENGTH}}
SD3_SETTINGS = {**SIZE, "max_sequence_length": LENGTH}
FROM_PICTURE: dict[str, Any] = {"strength": 0.6}

FAMILIES: dict[str, TinyFamily] = {
    "sd": family(stable_diffusion, "ddim"),
    "sd_lcm": family(lambda: stable_diffusion(lcm=True), "lcm", guided=None, unguided={"guidance_scale": 4.0}),
    "lcm": family(
        lambda: stable_diffusion("LatentConsistencyModelPipeline", lcm=True),
        "lcm",
        inputs=positive,
        guided=None,
        unguided={"guidance_scale": 4.0},
    ),
    "lcm_img2img": family(
        lambda: stable_diffusion("LatentConsistencyModelImg2ImgPipeline", lcm=True),
        "lcm",
        inputs=positive,
        per_row=("image",),
        guided=None,
        unguided={"guidance_scale": 4.0},
        settings={"strength": 0.6},
    ),
    "sd_img2img": family(
        stable_diffusion,
        "ddim",
        "StableDiffusionImg2ImgPipeline",
        per_row=("image",),
        settings=FROM_PICTURE,
    ),
    "sd_inpaint": family(
        stable_diffusion,
        "ddim",
        "StableDiffusionInpaintPipeline",
        per_row=("image", "mask_image"),
        settings={**SIZE, **FROM_PICTURE},
    ),
    "sd_inpaint_9": family(
        lambda: stable_diffusion("StableDiffusionInpaintPipeline", channels=9),
        "pndm",
        per_row=("image", "mask_image"),
        settings={**SIZE, "strength": 1.0},
    ),
    "sd_controlnet": family(
        stable_diffusion,
        "unipc",
        "StableDiffusionControlNetPipeline",
        inputs=with_control("image"),
    ),
    "sd_controlnet_img2img": family(
        stable_diffusion,
        "euler",
        "StableDiffusionControlNetImg2ImgPipeline",
        inputs=with_control("control_image"),
        per_row=("image",),
        settings={**SIZE, **FROM_PICTURE},
    ),
    "sd_controlnet_inpaint": family(
        stable_diffusion,
        "ddim",
        "StableDiffusionControlNetInpaintPipeline",
        inputs=with_control("control_image"),
        per_row=("image", "mask_image"),
        settings={**SIZE, **FROM_PICTURE},
    ),
    "sdxl": family(sdxl, "euler"),
    "sdxl_img2img": family(
        sdxl,
        "euler",
        "StableDiffusionXLImg2ImgPipeline",
        per_row=("image",),
        settings=FROM_PICTURE,
    ),
    "sdxl_inpaint": family(
        sdxl,
        "euler_ancestral",
        "StableDiffusionXLInpaintPipeline",
        per_row=("image", "mask_image"),
        settings={**SIZE, **FROM_PICTURE},
    ),
    "sdxl_inpaint_9": family(
        lambda: sdxl("StableDiffusionXLInpaintPipeline", channels=9),
        "euler",
        per_row=("image", "mask_image"),
        settings={**SIZE, "strength": 1.0},
    ),
    "sdxl_controlnet": family(
        sdxl,
        "dpm_2m",
        "StableDiffusionXLControlNetPipeline",
        inputs=with_control("image"),
    ),
    "sdxl_controlnet_img2img": family(
        sdxl,
        "euler",
        "StableDiffusionXLControlNetImg2ImgPipeline",
        inputs=with_control("control_image"),
        per_row=("image",),
        settings={**SIZE, **FROM_PICTURE},
    ),
    "sdxl_controlnet_inpaint": family(
        sdxl,
        "euler",
        "StableDiffusionXLControlNetInpaintPipeline",
        inputs=with_control("control_image"),
        per_row=("image", "mask_image"),
        settings={**SIZE, **FROM_PICTURE},
    ),
    "kolors": family(kolors, "euler", **KOLORS_CALL),
    "kolors_img2img": family(
        kolors,
        "euler",
        "KolorsImg2ImgPipeline",
        per_row=("image",),
        settings=FROM_PICTURE,
    ),
    "sd3": family(sd3, "flow_euler", settings=SD3_SETTINGS),
    "sd3_img2img": family(
        sd3,
        "flow_euler",
        "StableDiffusion3Img2ImgPipeline",
        per_row=("image",),
        settings={**SD3_SETTINGS, **FROM_PICTURE},
    ),
    "sd3_inpaint": family(
        sd3,
        "flow_euler",
        "StableDiffusion3InpaintPipeline",
        per_row=("image", "mask_image"),
        settings={**SD3_SETTINGS, **FROM_PICTURE},
    ),
    "flux": family(flux, "flow_euler_dynamic", **FLUX_CALL),
    "flux_img2img": family(
        flux,
        "flow_euler_dynamic",
        "FluxImg2ImgPipeline",
        **FLUX_CALL | {"per_row": ("image",), "settings": {**SIZE, **FROM_PICTURE}},
    ),
    "flux_inpaint": family(
        flux,
        "flow_euler_dynamic",
        "FluxInpaintPipeline",
        **FLUX_CALL
        | {
            "per_row": ("image", "mask_image"),
            "settings": {**SIZE, **FROM_PICTURE},
        },
    ),
    "sd_ip_adapter": family(
        lambda: add_ip_adapter(stable_diffusion()),
        "ddim",
        guided={**GUIDED, "ip_adapter_image_embeds": [random(400, 2, 1, 8)]},
        unguided={**UNGUIDED, "ip_adapter_image_embeds": [random(400, 1, 1, 8)]},
    ),
    "sdxl_ip_adapter": family(
        lambda: add_ip_adapter(sdxl()),
        "euler",
        guided={**GUIDED, "ip_adapter_image_embeds": [random(400, 2, 1, 8)]},
        unguided={**UNGUIDED, "ip_adapter_image_embeds": [random(400, 1, 1, 8)]},
    ),
    "flux_ip_adapter": family(
        lambda: add_ip_adapter(flux()),
        "flow_euler_dynamic",
        **FLUX_CALL
        | {
            "guided": {
                **FLUX_CALL["guided"],
                "ip_adapter_image_embeds": [random(400, 1, 1, 8)],
                "negative_ip_adapter_image_embeds": [random(401, 1, 1, 8)],
            },
            "unguided": {
                **FLUX_CALL["unguided"],
                "ip_adapter_image_embeds": [random(400, 1, 1, 8)],
                "negative_ip_adapter_image_embeds": [random(401, 1, 1, 8)],
            },
        },
    ),
    "flux2": family(
        flux2,
        "flow_euler_dynamic",
        inputs=vectors(negative=False),
        guided=None,
        unguided={"guidance_scale": 4.0},
    ),
    "flux2_klein": family(
        flux2,
        "flow_euler_dynamic",
        "Flux2KleinPipeline",
        inputs=vectors(negative=True),
    ),
    "flux2_reference": family(
        flux2,
        "flow_euler_dynamic",
        inputs=with_reference(negative=False),
        guided=None,
        unguided={"guidance_scale": 4.0},
    ),
    "flux2_klein_reference": family(
        flux2,
        "flow_euler_dynamic",
        "Flux2KleinPipeline",
        inputs=with_reference(negative=True),
    ),
    "qwen_image": family(qwen_image, "flow_euler_dynamic", **QWEN_CALL),
    "qwen_image_img2img": family(
        qwen_image,
        "flow_euler_dynamic",
        "QwenImageImg2ImgPipeline",
        **QWEN_CALL | {"per_row": ("image",), "settings": {**SIZE, **FROM_PICTURE}},
    ),
    "qwen_image_inpaint": family(
        qwen_image,
        "flow_euler_dynamic",
        "QwenImageInpaintPipeline",
        **QWEN_CALL
        | {
            "per_row": ("image", "mask_image"),
            "settings": {**SIZE, **FROM_PICTURE},
        },
    ),
    "sana": family(
        sana,
        "flow_dpm",
        settings={
            "height": 2 * SIDE,
            "width": 2 * SIDE,
            "use_resolution_binning": False,
            "complex_human_instruction": None,
            "max_sequence_length": LENGTH,
        },
    ),
    "wan": family(
        wan,
        "flow_unipc",
        settings={**SIZE, "num_frames": 1, "max_sequence_length": LENGTH},
        per_prompt="num_videos_per_prompt",
    ),
    "wan_two": family(
        lambda: wan(boundary=0.8),
        "flow_unipc",
        settings={**SIZE, "num_frames": 1, "max_sequence_length": LENGTH},
        per_prompt="num_videos_per_prompt",
    ),
}
PIXART_SETTINGS = {**SIZE, "use_resolution_binning": False, "clean_caption": False, "max_sequence_length": LENGTH}
REFUSED_FAMILIES: dict[str, TinyFamily] = {
    "pixart_sigma": family(pixart, "dpm_2m", settings=PIXART_SETTINGS),
    "pixart_alpha": family(pixart, "dpm_2m", "PixArtAlphaPipeline", settings=PIXART_SETTINGS),
}


def pictures_of(output: Any) -> Any:
    """The rows of a pipeline's result, whatever the family calls it."""
    return output.images if hasattr(output, "images") else output.frames


@cache
def shared(name: str) -> Any:
    """One pipeline of this family for all tests that leave it as it was."""
    pipe = {**FAMILIES, **REFUSED_FAMILIES}[name].make()
    pipe.set_progress_bar_config(disable=True)
    return pipe


def available() -> list[str]:
    """The families that the installed diffusers has: the youngest are missing in older releases."""
    import diffusers

    return [name for name in FAMILIES if hasattr(diffusers, "Flux2KleinPipeline") or not name.startswith("flux2")]


def pipeline(name: str, scheduler: str | None = None) -> Any:
    """The family's shared pipeline with a fresh scheduler, the usual one unless named."""
    pipe = shared(name)
    pipe.scheduler = SCHEDULERS[scheduler or {**FAMILIES, **REFUSED_FAMILIES}[name].usual]()
    return pipe


def rows_that_differ(first: torch.Tensor, second: torch.Tensor, limit: float = 1e-4) -> Sequence[int]:
    """Row numbers whose largest difference is above the limit."""
    return [row for row, (a, b) in enumerate(zip(first, second, strict=True)) if (a - b).abs().max() > limit]
