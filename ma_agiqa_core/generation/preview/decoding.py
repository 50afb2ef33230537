"""Pictures from the estimate of the finished latents, while the pipeline is still at work.

The decoder is a tiny autoencoder (TAESD, https://github.com/madebyollin/taesd), the pipeline's own VAE in the way the
pipeline itself decodes at its end, or the caller's own. The diffusion model stays where it is in memory.
"""

import contextlib
import json
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from ...compute.batching import is_out_of_memory, run_in_batches
from ...compute.caller_state import as_loaded
from ...errors import MaAgiqaError, MissingFileError
from ...model_files.hub import hub_folder, is_hub_id
from ..pipelines.latents import scaled_for_another, scaled_for_vae, unpacked

if TYPE_CHECKING:
    from ..pipelines.family import Family

logger = logging.getLogger(__name__)

Preview = str | Path | nn.Module | Callable[[Tensor], Tensor]

# In float16 their VAE overflows; these pipelines decode in float32 where its config has force_upcast.
_UPCASTING = ("StableDiffusionXL", "Kolors")


class Previewer:
    """Decodes x0 of one pipeline.

    Args:
        pipe: The pipeline, on its device.
        family: Its family.
        preview: "auto" takes the family's tiny decoder where it is in the local Hub cache or can be downloaded, else
            the pipeline's own VAE; "vae" the pipeline's own VAE; "tiny" the family's tiny decoder and nothing else;
            a folder or Hub id of an AutoencoderTiny; a module whose `decode` gives (B, 3, H, W) in [-1, 1], as
            autoencoders of diffusers do; or a callable that is given x0 unpacked,
            (B, C, H, W), or (B, C, F, H, W) for video models, as the scheduler has it, and gives (B, 3, H, W) in
            [0, 1].
        local_files_only: Never use the network.

    Raises:
        ValueError: No such preview, or a decoder for other latents.
        FileNotFoundError: The tiny decoder that was asked for is not here and cannot be downloaded.
    """

    def __init__(
        self, pipe: Any, family: "Family", preview: Preview = "auto", *, local_files_only: bool = False
    ) -> None:
        self.pipe = pipe
        self.family = family
        self._decoder: nn.Module | None = None  # None: the pipeline's own VAE, or the callable
        self._is_ours = False  # loaded here; what the caller gave decodes as the caller has set torch
        self._callable: Callable[[Tensor], Tensor] | None = None
        if isinstance(preview, nn.Module) and hasattr(preview, "decode"):
            self._decoder = preview
        elif callable(preview):
            self._callable = preview
        elif preview == "auto":
            self._decoder = self._tiny_or_none(local_files_only)
        elif preview == "tiny":
            if family.tiny_decoder is None:
                raise MaAgiqaError(
                    f"Expected a pipeline with a known tiny decoder for preview='tiny', got {type(pipe).__name__}. "
                    "Use preview='vae', or give a folder or Hub id of an AutoencoderTiny."
                )
            self._decoder = self._load_tiny(family.tiny_decoder, local_files_only)
        elif preview != "vae":
            self._decoder = self._load_tiny(preview, local_files_only)
        if self._callable is None:
            self._check_decoder()

    @property
    def source(self) -> str:
        """The decoder, for a report: "vae", a decoder's class, or "callable"."""
        if self._callable is not None:
            return "callable"
        return "vae" if self._decoder is None else type(self._decoder).__name__

    @property
    def found(self) -> Preview:
        """What makes another Previewer of this pipeline decode the same, with nothing to look for or load."""
        if self._callable is not None:
            return self._callable
        return "vae" if self._decoder is None else self._decoder

    @torch.no_grad()
    def pictures(self, x0: Tensor, arguments: Mapping[str, Any] | None = None) -> Tensor:
        """Pictures of these latents.

        Where the pipeline resizes its result to the wanted size afterwards (Sana with resolution binning), these are
        the pictures before that; watermarks and safety checkers are left out too.

        Args:
            x0: Latents as the scheduler has them, in the family's layout, one row per picture.
            arguments: Of the denoiser's last call; packed latents are unpacked by its img_ids or img_shapes.

        Returns:
            (B, 3, H, W) float32 RGB in [0, 1], on the decoder's device; of a video its first frame.

        Raises:
            ValueError: Latents or a callable's result of another shape.
        """
        latents = unpacked(x0, self.family.layout, arguments or {})
        if self._callable is not None:
            return _checked(self._callable(latents), len(latents))
        if latents.ndim == 5:  # of a video the first frame: causal autoencoders decode it without the others
            latents = latents[:, :, :1]
        own = self._decoder is None
        decoder = self.pipe.vae if own else self._decoder
        layout, pipeline = self.family.layout, type(self.pipe).__name__
        if own:
            scaled = scaled_for_vae(latents, decoder, layout, pipeline)
        else:
            scaled = scaled_for_another(latents, decoder, getattr(self.pipe, "vae", None), layout, pipeline)
        with self._in_float32(decoder) if own else as_loaded() if self._is_ours else contextlib.nullcontext():
            decoded = _decode(decoder, scaled)
        pictures = (decoded / 2 + 0.5).clamp(0, 1)
        if pictures.shape[1] == 4:  # with transparency, over white as every picture is read
            alpha = pictures[:, 3:]
            pictures = pictures[:, :3] * alpha + 1 - alpha
        return pictures

    def _in_float32(self, vae: Any) -> contextlib.AbstractContextManager[None]:
        upcasts = (
            type(self.pipe).__name__.startswith(_UPCASTING)
            and vae.dtype == torch.float16
            and vae.config.get("force_upcast")
        )
        return _cast(vae, torch.float32) if upcasts else contextlib.nullcontext()

    def _tiny_or_none(self, local_files_only: bool) -> nn.Module | None:
        if self.family.tiny_decoder is None or _is_tiny(getattr(self.pipe, "vae", None)):
            return None
        try:
            decoder = self._load_tiny(self.family.tiny_decoder, local_files_only)
            self._check_channels(decoder)
        except (FileNotFoundError, ValueError) as error:  # ValueError: a model of this family with another VAE
            logger.info("previews by the pipeline's own VAE: %s", error)
            return None
        return decoder

    @as_loaded()
    def _load_tiny(self, preview: object, local_files_only: bool) -> nn.Module:
        from diffusers import AutoencoderTiny

        if isinstance(preview, str | Path) and Path(preview).is_dir():
            folder = Path(preview)
        elif isinstance(preview, str) and is_hub_id(preview):
            folder = hub_folder(preview, _is_complete, local_files_only=local_files_only)
        else:
            raise MaAgiqaError(
                f"Expected 'auto', 'vae', 'tiny', a folder or Hub id of an AutoencoderTiny, a module with decode, or "
                f"a callable as preview, got {preview!r}. Use preview='auto'."
            )
        if not _is_complete(folder):
            raise MissingFileError(
                f"Expected an AutoencoderTiny in {folder}, got no config.json with diffusion_pytorch_model weights. "
                "Give the folder that has both."
            )
        if (kind := json.loads((folder / "config.json").read_text()).get("_class_name")) != "AutoencoderTiny":
            raise MaAgiqaError(  # loading it all the same would give random weights
                f"Expected an AutoencoderTiny in {folder}, got {kind}. Load it yourself and give the module as preview."
            )
        decoder: Any = AutoencoderTiny.from_pretrained(folder, local_files_only=True)
        self._is_ours = True
        device = torch.device(self.pipe._execution_device)
        dtype = (
            torch.float32 if device.type == "cpu" else getattr(getattr(self.pipe, "vae", None), "dtype", torch.float32)
        )
        return decoder.to(device, dtype).eval()

    def _check_decoder(self) -> None:
        if self._decoder is not None:
            self._check_channels(self._decoder)
        elif getattr(self.pipe, "vae", None) is None:
            raise MaAgiqaError(
                f"Expected a pipeline with a VAE for previews, got {type(self.pipe).__name__} without one. Give a "
                "callable as preview."
            )

    def _check_channels(self, decoder: nn.Module) -> None:
        wanted, got = (_latent_channels(module) for module in (getattr(self.pipe, "vae", None), decoder))
        if wanted is not None and got is not None and wanted != got:
            raise MaAgiqaError(
                f"Expected a preview decoder for {wanted} latent channels, got {type(decoder).__name__} for {got}. "
                "Use the one made for this model, or preview='vae'."
            )


def _is_tiny(module: object) -> bool:
    return type(module).__name__ == "AutoencoderTiny"


def _is_complete(folder: Path) -> bool:
    return (folder / "config.json").is_file() and any(
        (folder / f"diffusion_pytorch_model.{ending}").is_file() for ending in ("safetensors", "bin")
    )


def _latent_channels(module: Any) -> int | None:
    config = getattr(module, "config", None) or {}
    return config.get("latent_channels") or config.get("z_dim")


def _decode(decoder: Any, latents: Tensor) -> Tensor:
    """(B, 3, H, W) float32, about [-1, 1], as many rows at a time as fit into memory."""
    device = _execution_device(decoder)
    dtype = getattr(decoder, "dtype", None) or next(decoder.parameters()).dtype

    def decode(rows: Sequence[Tensor]) -> Tensor:
        result = decoder.decode(torch.stack(list(rows)).to(device, dtype))
        decoded = result if isinstance(result, Tensor) else result[0]
        return (decoded[:, :, 0] if decoded.ndim == 5 else decoded).float()

    what = ("preview", type(decoder).__name__, tuple(latents.shape[1:]), str(dtype))
    rows = list(latents)
    try:
        with _diffusion_model_stays(decoder):
            return run_in_batches(rows, decode, device=device, what=what)
    except (MemoryError, RuntimeError) as error:
        if not (_offloads_before(decoder) and is_out_of_memory(error)):
            raise
    logger.warning("previews: the VAE does not fit beside the diffusion model, which is offloaded for each of them")
    try:
        return run_in_batches(rows, decode, device=device, what=what)
    finally:
        decoder._hf_hook.init_hook(decoder)  # makes room again


def _execution_device(module: Any) -> torch.device:
    """Where its inputs have to be: with offloading not where its weights are now."""
    try:
        from diffusers.utils.torch_utils import get_module_execution_device
    except ImportError:  # before diffusers 0.40
        for part in module.modules():
            device = getattr(getattr(part, "_hf_hook", None), "execution_device", None)
            if device is not None:
                return torch.device(device)
        return next(module.parameters()).device
    return get_module_execution_device(module)


def _offloads_before(module: Any) -> bool:
    """Whether enable_model_cpu_offload sends the diffusion model away when this module is used."""
    return getattr(getattr(module, "_hf_hook", None), "prev_module_hook", None) is not None


@contextlib.contextmanager
def _diffusion_model_stays(decoder: Any) -> Iterator[None]:
    """With enable_model_cpu_offload the decoder alone comes to the device, and goes back afterwards."""
    if not _offloads_before(decoder):
        yield
        return
    hook = decoder._hf_hook
    previous, hook.prev_module_hook = hook.prev_module_hook, None
    try:
        yield
    finally:
        hook.prev_module_hook = previous
        hook.init_hook(decoder)


@contextlib.contextmanager
def _cast(module: Any, dtype: torch.dtype) -> Iterator[None]:
    was = module.dtype
    module.to(dtype=dtype)
    try:
        yield
    finally:
        module.to(dtype=was)


def _checked(pictures: object, rows: int) -> Tensor:
    shape = tuple(pictures.shape) if isinstance(pictures, Tensor) else type(pictures).__name__
    if not isinstance(pictures, Tensor) or pictures.ndim != 4 or pictures.shape[:2] != (rows, 3):
        raise MaAgiqaError(
            f"Expected the preview callable to return ({rows}, 3, H, W), got {shape}. Return one RGB picture per row."
        )
    if not pictures.is_floating_point():
        raise MaAgiqaError(
            f"Expected the preview callable to return floats in [0, 1], got {pictures.dtype}. Divide by 255."
        )
    pictures = pictures.float()
    low, high = (float(value) for value in pictures.aminmax())
    if not (low >= -0.01 and high <= 1.01):
        raise MaAgiqaError(
            f"Expected the preview callable to return values in [0, 1], got {low:.3g} to {high:.3g}. Rescale them "
            "there."
        )
    return pictures.clamp(0, 1)
