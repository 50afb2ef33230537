"""Tiny decoders of video latents, which Qwen-Image, Wan and Krea have too."""

from types import SimpleNamespace

import pytest
import torch

pytestmark = pytest.mark.comfyui_only

NAME = "lighttaew2_1"


@pytest.fixture
def taehv(comfy_modules, tmp_path, monkeypatch):
    """A TAEHV of random numbers in models/vae_approx."""
    import comfy.utils
    import folder_paths
    import latent_preview

    if NAME not in getattr(latent_preview, "VIDEO_TAES", ()):
        pytest.skip("this ComfyUI knows no TAEHV")
    from comfy.taesd.taehv import TAEHV

    with torch.random.fork_rng([]):
        torch.manual_seed(0)
        network = TAEHV(latent_channels=16)
        for weights in network.parameters():
            torch.nn.init.normal_(weights, std=0.05)
    comfy.utils.save_torch_file(network.state_dict(), tmp_path / f"{NAME}.safetensors")
    monkeypatch.setitem(folder_paths.folder_names_and_paths, "vae_approx", ([str(tmp_path)], {".safetensors"}))
    network.show_progress_bar = False
    return network.eval()


def test_previews_are_what_the_tiny_decoder_makes_of_the_first_frame(taehv, pack_module):
    latent_format = SimpleNamespace(taesd_decoder_name=NAME, latent_dimensions=3, latent_channels=16)
    model = SimpleNamespace(model=SimpleNamespace(latent_format=latent_format), load_device=torch.device("cpu"))
    latents = torch.randn(3, 16, 1, 6, 8, generator=torch.Generator().manual_seed(1))

    with torch.inference_mode():
        pictures = pack_module("nodes.sampling.decoding").PreviewDecoder("TAESD", model, None)(latents)
        expected = torch.cat([taehv.decode(row[None])[:, :, 0] for row in latents])

    assert pictures.shape == (3, 48, 64, 3)
    assert torch.allclose(pictures, expected.clamp(0, 1).movedim(1, -1), atol=1e-4)
    assert pictures.std() > 0.01
