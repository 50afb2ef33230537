"""Previews: the final latents give the pipeline's own picture in every layout; tiny decoders, callables, offloading."""

import functools
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from ma_agiqa_core.generation.pipelines.latents import unpacked
from ma_agiqa_core.generation.preview import decoding as preview_module
from ma_agiqa_core.generation.preview.decoding import Previewer
from ma_agiqa_core.generation.preview.x0 import X0Recorder

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")

# One of each way of decoding; every other family shares one of these.
LAYOUTS = {
    "sd": "plain",
    "sd_inpaint": "plain",
    "sdxl": "plain",
    "kolors": "plain",
    "sd3": "plain",
    "sd3_inpaint": "plain",
    "flux": "flux",
    "flux2": "flux2",
    "flux2_klein": "flux2",
    "qwen_image": "qwen",
    "sana": "plain",
    "wan": "video",
}
SIZE = (24, 16)  # height and width differ, so that neither can stand for the other


def family(layout: str = "plain", tiny_decoder: str | None = None) -> Any:
    return SimpleNamespace(name="tiny", layout=layout, tiny_decoder=tiny_decoder)


def built(tiny_pipelines: ModuleType, name: str) -> Any:
    try:
        return tiny_pipelines.pipeline(name)
    except AttributeError as absent:  # a family younger than this release of diffusers
        pytest.skip(str(absent))


@contextmanager
def arguments_of(pipe: Any) -> Iterator[dict[str, Any]]:
    """The denoiser's arguments, filled in by its calls."""
    arguments: dict[str, Any] = {}
    denoiser = getattr(pipe, "unet", None) or pipe.transformer
    hook = denoiser.register_forward_pre_hook(lambda _, __, kwargs: arguments.update(kwargs), with_kwargs=True)
    try:
        yield arguments
    finally:
        hook.remove()


def call(tiny_pipelines: ModuleType, name: str, pipe: Any, rows: int = 2) -> tuple[Tensor, Tensor, dict[str, Any]]:
    """The pipeline's pictures, its last latents, and the denoiser's last arguments."""
    latents: list[Tensor] = []

    def keep(_: Any, __: int, ___: Any, values: dict[str, Any]) -> dict[str, Any]:
        latents[:] = [values["latents"]]
        return values

    settings = tiny_pipelines.FAMILIES[name].arguments(rows, guidance=False, steps=2)
    if "height" in settings and "image" not in settings:
        taller = (
            {"height": 2 * settings["height"]} if name in ("sana", "wan") else {"height": SIZE[0], "width": SIZE[1]}
        )
        settings |= taller
    with arguments_of(pipe) as arguments:
        result = pipe(**settings, output_type="pt", callback_on_step_end=keep)
    pictures = tiny_pipelines.pictures_of(result)
    return pictures[:, 0] if pictures.ndim == 5 else pictures, latents[0], arguments


@pytest.fixture
def tiny_decoder() -> Any:
    return make_tiny()


def make_tiny(channels: int = 4, **settings: Any) -> Any:
    from diffusers import AutoencoderTiny

    torch.manual_seed(0)
    blocks: dict[str, Any] = {
        "encoder_block_out_channels": (4, 4),
        "decoder_block_out_channels": (4, 4),
        "num_encoder_blocks": (1, 1),
        "num_decoder_blocks": (1, 1),
    }
    decoder: Any = AutoencoderTiny(latent_channels=channels, **blocks, **settings)
    return decoder.eval()


@pytest.mark.parametrize("name", LAYOUTS)
def test_final_latents_give_the_pipelines_own_picture(tiny_pipelines: ModuleType, name: str) -> None:
    pipe = built(tiny_pipelines, name)
    pictures, latents, arguments = call(tiny_pipelines, name, pipe)

    preview = Previewer(pipe, family(LAYOUTS[name]), "vae").pictures(latents, arguments)

    assert preview.dtype == torch.float32
    torch.testing.assert_close(preview, pictures.float(), atol=1e-5, rtol=0)
    assert float(pictures.std()) > 0.01  # not all one grey


@pytest.mark.parametrize("name", ["sdxl", "flux", "wan"])
def test_the_last_x0_is_the_result(tiny_pipelines: ModuleType, name: str) -> None:
    """Their schedulers end without noise: recorder and preview together give the finished picture."""
    pipe = built(tiny_pipelines, name)
    recorder = X0Recorder(pipe.scheduler)
    recorder.install()
    pictures, _, arguments = call(tiny_pipelines, name, pipe)
    x0 = recorder.x0
    assert x0 is not None
    assert recorder.calls == 2
    recorder.remove()

    preview = Previewer(pipe, family(LAYOUTS[name]), "vae").pictures(x0, arguments)

    torch.testing.assert_close(preview, pictures.float(), atol=1e-5, rtol=0)


def test_sdxl_variants_undo_their_mean_and_std(tiny_pipelines: ModuleType) -> None:
    pipe = tiny_pipelines.FAMILIES["sdxl"].make()
    pipe.set_progress_bar_config(disable=True)
    pipe.vae.register_to_config(latents_mean=[-1.6, 1.1, 3.4, -2.0], latents_std=[8.4, 5.9, 6.3, 5.2])
    pictures, latents, arguments = call(tiny_pipelines, "sdxl", pipe)

    preview = Previewer(pipe, family(), "vae").pictures(latents, arguments)

    torch.testing.assert_close(preview, pictures, atol=1e-5, rtol=0)


def test_sdxl_in_half_precision_decodes_in_float32_and_goes_back(tiny_pipelines: ModuleType) -> None:
    pipe = tiny_pipelines.FAMILIES["sdxl"].make()
    pipe.vae.to(torch.float16)
    pipe.vae.register_to_config(force_upcast=True)
    latents = tiny_pipelines.random(3, 2, 4, *SIZE)

    preview = Previewer(pipe, family(), "vae").pictures(latents)

    assert pipe.vae.dtype == torch.float16
    vae = pipe.vae.float()
    with torch.no_grad():
        expected = vae.decode(latents / vae.config.scaling_factor).sample
    torch.testing.assert_close(preview, (expected / 2 + 0.5).clamp(0, 1), atol=1e-5, rtol=0)


@pytest.mark.parametrize("switch", ["enable_tiling", "enable_slicing"])
def test_tiling_and_slicing_stay_on(tiny_pipelines: ModuleType, switch: str) -> None:
    pipe = tiny_pipelines.FAMILIES["sd"].make()
    pipe.set_progress_bar_config(disable=True)
    getattr(pipe.vae, switch)()
    pipe.vae.tile_latent_min_size = pipe.vae.tile_sample_min_size = 8
    pictures, latents, _ = call(tiny_pipelines, "sd", pipe)

    preview = Previewer(pipe, family(), "vae").pictures(latents)

    torch.testing.assert_close(preview, pictures, atol=1e-5, rtol=0)


def test_rows_one_at_a_time_where_memory_runs_out(tiny_pipelines: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    pipe = tiny_pipelines.pipeline("sd")
    latents = tiny_pipelines.random(3, 3, 4, 5, 7)
    previewer = Previewer(pipe, family(), "vae")
    expected = previewer.pictures(latents)
    decode = pipe.vae.decode
    sizes: list[int] = []

    def small(rows: Tensor, **settings: Any) -> Any:
        sizes.append(len(rows))
        if len(rows) > 1:
            raise RuntimeError("CUDA out of memory. Tried to allocate 9 GiB")
        return decode(rows, **settings)

    monkeypatch.setattr(pipe.vae, "decode", small)
    torch.testing.assert_close(previewer.pictures(latents), expected, atol=1e-5, rtol=0)
    assert sizes == [3, 1, 1, 1]


def test_tiny_decoder_from_a_folder_takes_the_schedulers_latents(
    tiny_pipelines: ModuleType, tiny_decoder: Any, tmp_path: Path
) -> None:
    tiny_decoder.save_pretrained(tmp_path)
    latents = tiny_pipelines.random(3, 2, 4, *SIZE)

    previewer = Previewer(tiny_pipelines.pipeline("sd"), family(), str(tmp_path))

    assert previewer.source == "AutoencoderTiny"
    with torch.no_grad():
        expected = tiny_decoder.decode(latents).sample
    preview = previewer.pictures(latents)
    assert preview.shape == (2, 3, 2 * SIZE[0], 2 * SIZE[1])
    torch.testing.assert_close(preview, (expected / 2 + 0.5).clamp(0, 1), atol=1e-6, rtol=0)


def test_tiny_decoder_sees_packed_latents_unpacked(tiny_pipelines: ModuleType) -> None:
    pipe = tiny_pipelines.pipeline("flux")
    pictures, latents, arguments = call(tiny_pipelines, "flux", pipe)
    decoder = make_tiny(channels=latents.shape[-1] // 4)

    preview = Previewer(pipe, family("flux"), decoder).pictures(latents, arguments)

    with torch.no_grad():
        expected = decoder.decode(pipe._unpack_latents(latents, *SIZE, pipe.vae_scale_factor)).sample
    assert preview.shape == pictures.shape
    torch.testing.assert_close(preview, (expected / 2 + 0.5).clamp(0, 1), atol=1e-6, rtol=0)


def test_tiny_decoder_of_an_sdxl_variant_gets_sdxl_latents(tiny_pipelines: ModuleType, tiny_decoder: Any) -> None:
    pipe = tiny_pipelines.FAMILIES["sdxl"].make()
    mean, std = [-1.6, 1.1, 3.4, -2.0], [8.4, 5.9, 6.3, 5.2]
    pipe.vae.register_to_config(latents_mean=mean, latents_std=std)
    latents = tiny_pipelines.random(3, 2, 4, *SIZE)

    preview = Previewer(pipe, family(), tiny_decoder).pictures(latents)

    per_channel = functools.partial(torch.reshape, shape=(1, 4, 1, 1))
    factor = pipe.vae.config.scaling_factor
    sdxl = latents * per_channel(torch.tensor(std)) + per_channel(torch.tensor(mean)) * factor
    with torch.no_grad():
        expected = tiny_decoder.decode(sdxl).sample
    torch.testing.assert_close(preview, (expected / 2 + 0.5).clamp(0, 1), atol=1e-5, rtol=0)


@pytest.mark.parametrize("name", ["flux2", "qwen_image"])
def test_another_decoder_of_flux2_and_qwen_image(tiny_pipelines: ModuleType, name: str) -> None:
    """Flux2's gets what its VAE gets; Qwen's, made for pictures, the scheduler's latents without the frame."""
    pipe = built(tiny_pipelines, name)
    _, latents, arguments = call(tiny_pipelines, name, pipe)
    seen: list[Tensor] = []

    class Grey(torch.nn.Conv2d):
        def decode(self, latents: Tensor) -> Tensor:
            seen.append(latents)
            return self(latents)

    class AutoencoderTiny(Grey):
        pass

    channels = latents.shape[-1] // 4
    preview = Previewer(pipe, family(LAYOUTS[name]), AutoencoderTiny(channels, 3, 1)).pictures(latents, arguments)

    if name == "flux2":
        decode = pipe.vae.decode
        with torch.no_grad():
            expected = (decode(seen[0]).sample / 2 + 0.5).clamp(0, 1)
        own = Previewer(pipe, family("flux2"), "vae").pictures(latents, arguments)
        torch.testing.assert_close(own, expected, atol=1e-5, rtol=0)
    else:
        torch.testing.assert_close(seen[0], pipe._unpack_latents(latents, *SIZE, pipe.vae_scale_factor)[:, :, 0])
    assert preview.shape == (2, 3, *seen[0].shape[-2:])


def test_auto_takes_the_familys_tiny_decoder_from_the_local_cache(
    tiny_pipelines: ModuleType, tiny_decoder: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tiny_decoder.save_pretrained(tmp_path)
    asked: list[tuple[str, bool]] = []

    def folder(model: str, is_complete: Callable[[Path], bool], *, local_files_only: bool) -> Path:
        asked.append((model, local_files_only))
        assert is_complete(tmp_path)
        return tmp_path

    monkeypatch.setattr(preview_module, "hub_folder", folder)
    pipe = tiny_pipelines.pipeline("sd")
    for wanted in ("auto", "tiny"):
        previewer = Previewer(pipe, family(tiny_decoder="madebyollin/taesd"), wanted, local_files_only=True)
        assert previewer.source == "AutoencoderTiny"
    assert asked == [("madebyollin/taesd", True)] * 2


def test_auto_falls_back_to_the_pipelines_vae(
    tiny_pipelines: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    caplog.set_level(logging.INFO, preview_module.logger.name)
    pipe = tiny_pipelines.pipeline("sd")

    previewer = Previewer(pipe, family(tiny_decoder="owner/not-here"), "auto", local_files_only=True)

    assert previewer.source == "vae"
    assert "previews by the pipeline's own VAE: Expected 'owner/not-here'" in caplog.text
    with pytest.raises(FileNotFoundError, match="owner/not-here"):
        Previewer(pipe, family(tiny_decoder="owner/not-here"), "tiny", local_files_only=True)
    assert Previewer(pipe, family(tiny_decoder=None), "auto").source == "vae"

    make_tiny(channels=16).save_pretrained(tmp_path / "other")
    monkeypatch.setattr(preview_module, "hub_folder", lambda *_, **__: tmp_path / "other")
    assert Previewer(pipe, family(tiny_decoder="owner/for-another-vae"), "auto").source == "vae"
    assert "for 4 latent channels, got AutoencoderTiny for 16" in caplog.text


def test_a_callable_gets_unpacked_latents(tiny_pipelines: ModuleType) -> None:
    pipe = tiny_pipelines.pipeline("flux")
    _, latents, arguments = call(tiny_pipelines, "flux", pipe)
    seen: list[Tensor] = []

    def brightness(x0: Tensor) -> Tensor:
        seen.append(x0)
        return x0[:, :1].sigmoid().expand(-1, 3, -1, -1)

    previewer = Previewer(pipe, family("flux"), brightness)
    preview = previewer.pictures(latents, arguments)

    assert previewer.source == "callable"
    torch.testing.assert_close(seen[0], pipe._unpack_latents(latents, *SIZE, pipe.vae_scale_factor))
    torch.testing.assert_close(preview, brightness(seen[0]))


@pytest.mark.parametrize(
    ("result", "message"),
    [
        (lambda x0: x0, r"return \(2, 3, H, W\), got \(2, 4, 8, 8\)"),
        (lambda x0: x0[:1, :3], r"return \(2, 3, H, W\), got \(1, 3, 8, 8\)"),
        (lambda x0: None, "got NoneType"),
        (lambda x0: x0[:, :3].to(torch.uint8), "floats .* got torch.uint8"),
        (lambda x0: torch.full_like(x0[:, :3], -0.5), r"in \[0, 1\], got -0\.5 to -0\.5"),
        (lambda x0: torch.full_like(x0[:, :3], float("nan")), r"in \[0, 1\], got nan to nan"),
    ],
)
def test_a_callables_result_is_checked(tiny_pipelines: ModuleType, result: Any, message: str) -> None:
    previewer = Previewer(tiny_pipelines.pipeline("sd"), family(), result)
    with pytest.raises(ValueError, match=message):
        previewer.pictures(torch.zeros(2, 4, 8, 8))


def test_previews_that_cannot_be_are_refused_on_building(
    tiny_pipelines: ModuleType, tmp_path: Path, tiny_decoder: Any
) -> None:
    pipe = tiny_pipelines.pipeline("sd")
    with pytest.raises(ValueError, match="known tiny decoder for preview='tiny', got StableDiffusionPipeline"):
        Previewer(pipe, family(), "tiny")
    with pytest.raises(ValueError, match="as preview, got 'fast'"):
        Previewer(pipe, family(), "fast")
    with pytest.raises(FileNotFoundError, match=r"got no config\.json"):
        Previewer(pipe, family(), tmp_path)
    pipe.vae.save_pretrained(tmp_path / "kl")
    with pytest.raises(ValueError, match=r"an AutoencoderTiny in .*, got AutoencoderKL"):
        Previewer(pipe, family(), tmp_path / "kl")
    with pytest.raises(ValueError, match="for 4 latent channels, got AutoencoderTiny for 16"):
        Previewer(pipe, family(), make_tiny(channels=16))
    without = SimpleNamespace(vae=None)
    with pytest.raises(ValueError, match="with a VAE for previews, got SimpleNamespace"):
        Previewer(without, family(), "auto")


@pytest.mark.parametrize(
    ("shape", "layout", "arguments", "message"),
    [
        ((2, 4, 8, 8), "flux", {}, r"flux latents of 3 dimensions, got shape \(2, 4, 8, 8\)"),
        ((2, 12, 16), "flux", {}, "img_ids .* of 12 packed tokens, got none"),
        ((2, 12, 16), "qwen", {"img_shapes": [[(1, 5, 5)]]}, "img_shapes .* of 12 packed tokens, got others"),
        ((2, 4, 8, 8), "round", {}, "a layout of plain, .* got 'round'"),
    ],
)
def test_unknown_shapes_are_refused(
    shape: tuple[int, ...], layout: str, arguments: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        unpacked(torch.zeros(shape), layout, arguments)


def test_tokens_of_pictures_to_edit_do_not_count() -> None:
    """Kontext and the editing pipelines append their positions to those of the new picture."""
    new = torch.cartesian_prod(torch.zeros(1), torch.arange(2.0), torch.arange(3.0))
    given = torch.cartesian_prod(torch.ones(1), torch.arange(5.0), torch.arange(7.0))
    latents = torch.randn(1, 6, 16)

    assert unpacked(latents, "flux", {"img_ids": torch.cat([new, given])}).shape == (1, 4, 4, 6)
    assert unpacked(latents, "qwen", {"img_shapes": [[(1, 2, 3), (1, 5, 7)]]}).shape == (1, 4, 1, 4, 6)


def test_offloading_leaves_the_diffusion_model_where_it_is(
    tiny_pipelines: ModuleType, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """enable_model_cpu_offload's hooks, with the CPU as the device: what is sent away is counted."""
    from accelerate import cpu_offload_with_hook

    pipe = tiny_pipelines.FAMILIES["sd"].make()
    _, unet_hook = cpu_offload_with_hook(pipe.unet, "cpu")
    _, vae_hook = cpu_offload_with_hook(pipe.vae, "cpu", prev_module_hook=unet_hook)
    sent_away: list[str] = []
    used: list[object] = []
    monkeypatch.setattr(unet_hook.hook, "init_hook", lambda module: sent_away.append("unet"))
    monkeypatch.setattr(vae_hook.hook, "init_hook", lambda module: sent_away.append("vae"))
    monkeypatch.setattr(vae_hook.hook, "pre_forward", lambda module: used.append(vae_hook.hook.prev_module_hook))
    latents = tiny_pipelines.random(3, 2, 4, *SIZE)
    previewer = Previewer(pipe, family(), "vae")

    preview = previewer.pictures(latents)

    assert preview.shape == (2, 3, 2 * SIZE[0], 2 * SIZE[1])
    assert used == [None]
    assert sent_away == ["vae"]
    assert vae_hook.hook.prev_module_hook is unet_hook

    decode = pipe.vae.decode

    def decode_alone(rows: Tensor, **settings: Any) -> Any:
        if vae_hook.hook.prev_module_hook is None:
            raise RuntimeError("CUDA out of memory")
        return decode(rows, **settings)

    monkeypatch.setattr(pipe.vae, "decode", decode_alone)
    torch.testing.assert_close(previewer.pictures(latents), preview)
    assert used[-1] is unet_hook  # there was no room for both
    assert "does not fit beside the diffusion model" in caplog.text
