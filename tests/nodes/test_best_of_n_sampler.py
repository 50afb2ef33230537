"""The best-of-N sampler: what it gives, what can be replayed, and what it refuses before it samples."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

pytestmark = pytest.mark.comfyui_only

SETTINGS: dict[str, Any] = {
    "seed": 11,
    "n": 4,
    "keep": 2,
    "sampler_name": "euler",
    "scheduler": "normal",
    "steps": 6,
    "cfg": 3.0,
    "prune_at": "0.34:3, 0.67:2",
}
EQUAL = 1e-4  # of the latents' deviation


@pytest.fixture
def node(pack_module: Callable[[str], Any]) -> Any:
    return pack_module("nodes.best_of_n_sampler").BestOfNSampler


@pytest.fixture
def inputs(tiny_diffusion: Any, managed: Callable[..., Any]) -> dict[str, Any]:
    return {
        **SETTINGS,
        "model": tiny_diffusion.tiny_model(),
        "vae": tiny_diffusion.TinyVae(),
        "scorer": managed(),
        "positive": tiny_diffusion.conditioning(1),
        "negative": tiny_diffusion.conditioning(2),
        "latent_image": {"samples": torch.zeros(1, 4, 8, 8)},
    }


@pytest.fixture
def best_of(node: Any, run_node: Callable[..., Any], inputs: dict[str, Any]) -> Callable[..., tuple[Any, ...]]:
    """Runs the node with some inputs of its own."""
    return lambda **own: run_node(node, hidden={"unique_id": "7"}, **{**inputs, **own}).args


def sampled(inputs: dict[str, Any], latent: dict[str, Any]) -> torch.Tensor:
    """What an ordinary KSampler makes of a latent, as ComfyUI's own node calls it."""
    import comfy.sample

    samples = latent["samples"]
    with torch.inference_mode():
        noise = comfy.sample.prepare_noise(samples, inputs["seed"], latent.get("batch_index"))
        return comfy.sample.sample(
            inputs["model"],
            noise,
            inputs["steps"],
            inputs["cfg"],
            inputs["sampler_name"],
            inputs["scheduler"],
            inputs["positive"],
            inputs["negative"],
            samples,
            denoise=inputs.get("denoise", 1.0),
            noise_mask=latent.get("noise_mask"),
            seed=inputs["seed"],
            disable_pbar=True,
        )


def assert_equal(one: torch.Tensor, other: torch.Tensor) -> None:
    assert one.shape == other.shape
    assert float((one - other).abs().max() / other.std()) < EQUAL


def test_the_best_come_out_best_first_with_all_that_belongs_to_them(
    best_of: Callable[..., Any], inputs: dict[str, Any]
) -> None:
    latent, images, scores, indexes, log = best_of()

    assert latent["samples"].shape == (2, 4, 8, 8)
    assert latent["batch_index"] == [int(index) for index in indexes.split(",")]
    assert_equal(images, inputs["vae"].decode(latent["samples"]))
    assert scores == pytest.approx([float(image.mean()) for image in images])
    assert scores == sorted(scores, reverse=True)
    assert log.count("\n") > 6


def test_without_pruning_the_best_of_all_finished_ones_win(best_of: Callable[..., Any], inputs: dict[str, Any]) -> None:
    latent, _, scores, indexes, log = best_of(prune_at="", keep=4)

    every = sampled(inputs, {"samples": torch.zeros(4, 4, 8, 8), "batch_index": [0, 1, 2, 3]})
    means = [float(picture.mean()) for picture in inputs["vae"].decode(every)]
    order = sorted(range(4), key=lambda row: -means[row])
    assert indexes == ",".join(map(str, order))
    assert scores == pytest.approx([means[row] for row in order])
    assert_equal(latent["samples"], every[order])
    assert "0% saved" in log


def test_pruning_changes_no_survivor(best_of: Callable[..., Any]) -> None:
    pruned, whole = best_of(), best_of(prune_at="", keep=4)

    places = [whole[0]["batch_index"].index(index) for index in pruned[0]["batch_index"]]
    assert_equal(pruned[0]["samples"], whole[0]["samples"][places])


@pytest.mark.parametrize("limit", [1, 3])
def test_the_same_win_whatever_the_batch_limit(best_of: Callable[..., Any], limit: int) -> None:
    one, other = best_of(), best_of(batch_limit=limit)

    assert other[3] == one[3]
    assert_equal(other[0]["samples"], one[0]["samples"])
    assert other[4] == one[4]


def test_a_winner_comes_again_from_seed_and_index(best_of: Callable[..., Any], inputs: dict[str, Any]) -> None:
    """As the log says: Latent From Batch with the number, then a KSampler."""
    latent, _, _, indexes, log = best_of()

    number = int(indexes.split(",")[0])
    alone = sampled(inputs, {"samples": torch.zeros(1, 4, 8, 8), "batch_index": [number]})
    assert_equal(latent["samples"][:1], alone)
    assert "Latent From Batch with the candidate's number and length 1, then a KSampler" in log


def test_a_winner_of_a_sampler_that_draws_noise_comes_again_in_its_batch(
    best_of: Callable[..., Any], inputs: dict[str, Any]
) -> None:
    inputs["sampler_name"] = "euler_ancestral"
    latent, _, _, indexes, log = best_of()

    every = sampled(inputs, {"samples": torch.zeros(4, 4, 8, 8), "batch_index": [0, 1, 2, 3]})
    assert_equal(latent["samples"], every[[int(index) for index in indexes.split(",")]])
    assert "a batch of 4 latents (Repeat Latent Batch makes it of one), a KSampler with these settings" in log


def test_the_log(best_of: Callable[..., Any]) -> None:
    lines = best_of()[4].splitlines()

    assert lines[0] == (
        "4 candidates, numbered from 0, with seed 11: euler, normal, 6 steps, cfg 3, denoise 1; scored by mean, "
        "previews by VAE"
    )
    assert lines[1] == "after 2 of 6 steps (0.34): 3 of 4 kept"
    assert lines[4] == "after 4 of 6 steps (0.67): 2 of 3 kept"
    # 4 candidates for 2 steps, 3 for 2, 2 for 2, each with guidance
    assert lines[-2] == "model calls: 36, without pruning 48: 25% saved"


def test_a_batch_of_n_keeps_its_masks_and_indexes(best_of: Callable[..., Any], inputs: dict[str, Any]) -> None:
    numbers = torch.Generator().manual_seed(3)
    latent: dict[str, Any] = {
        "samples": torch.randn(4, 4, 8, 8, generator=numbers),
        "noise_mask": (torch.rand(4, 1, 8, 8, generator=numbers) > 0.5).float(),
        "batch_index": [6, 7, 8, 9],
    }

    best, _, _, indexes, _ = best_of(latent_image=latent)

    rows = [int(index) for index in indexes.split(",")]
    assert best["batch_index"] == [6 + row for row in rows]
    assert torch.equal(best["noise_mask"], latent["noise_mask"][rows])
    assert_equal(best["samples"], sampled(inputs, latent)[rows])
    kept = (1 - latent["noise_mask"][rows]).expand_as(best["samples"]).bool()
    assert_equal(best["samples"][kept], latent["samples"][rows][kept])


def test_an_empty_latent_is_fitted_to_the_model(best_of: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """As newer versions of ComfyUI do it for models like Flux.2, whose latents are half as wide."""
    import comfy.sample

    def fitted(
        model: Any, latent: torch.Tensor, downscale_ratio_spacial: Any = None, downscale_ratio_temporal: Any = None
    ) -> torch.Tensor:
        assert (downscale_ratio_spacial, downscale_ratio_temporal) == (8, None)
        return latent[..., ::2, ::2]

    monkeypatch.setattr(comfy.sample, "fix_empty_latent_channels", fitted)
    latent, images, *_ = best_of(latent_image={"samples": torch.zeros(1, 4, 16, 16), "downscale_ratio_spacial": 8})
    assert latent["samples"].shape == (2, 4, 8, 8)
    assert latent.keys() == {"samples", "batch_index"}
    assert len(images) == 2


def test_what_newer_nodes_write_on_a_latent_is_no_mistake(best_of: Callable[..., Any]) -> None:
    best_of(latent_image={"samples": torch.zeros(1, 4, 8, 8), "downscale_ratio_spacial": 8})


def test_latents_of_sound_and_video_together_are_refused(best_of: Callable[..., Any]) -> None:
    nested = pytest.importorskip("comfy.nested_tensor", reason="this ComfyUI has none")
    both = nested.NestedTensor([torch.zeros(1, 4, 2, 8, 8), torch.zeros(1, 8, 16)])
    with pytest.raises(ValueError, match=r"got a nested one, which holds a video and its sound together\. Separate"):
        best_of(latent_image={"samples": both})


def test_one_candidate(best_of: Callable[..., Any]) -> None:
    latent, images, scores, indexes, _ = best_of(n=1, keep=1, prune_at="")

    assert (len(latent["samples"]), len(images), len(scores), indexes) == (1, 1, 1, "0")


def test_denoise_of_zero_gives_the_latent_back(best_of: Callable[..., Any]) -> None:
    given = torch.rand(1, 4, 8, 8)

    latent, *_ = best_of(latent_image={"samples": given}, denoise=0.0, prune_at="")

    assert torch.equal(latent["samples"], given.repeat(2, 1, 1, 1))


def test_a_scorer_that_reads_is_given_the_prompt(best_of: Callable[..., Any], managed: Callable[..., Any]) -> None:
    seen: list[Any] = []

    def read(images: Any, prompts: Any) -> list[float]:
        seen.extend(prompts)
        return [float(image.mean()) for image in images]

    best_of(scorer=managed(read, needs_prompt=True), prompt="a cat")

    assert set(seen) == {"a cat"}
    assert len(seen) == 4 + 3 + 2


def test_previews_go_through_the_vae_between_segments(best_of: Callable[..., Any], inputs: dict[str, Any]) -> None:
    best_of()

    assert inputs["vae"].decoded == [4, 3, 2]


def test_one_bar_for_the_whole_run(best_of: Callable[..., Any], progress: list[Any]) -> None:
    best_of()

    mine = [(value, total) for value, total, node_id in progress if node_id == "7"]
    assert {total for _, total in mine} == {4 * 2 + 3 * 2 + 2 * 2 + 4 + 3 + 2}
    values = [value for value, _ in mine]
    assert values == sorted(values)
    assert values[-1] == mine[0][1]
    assert sorted(set(values))[:4] == [4, 8, 12, 15]  # two steps of four, their scores, a step of three


def test_the_leader_is_shown_while_the_others_run_on(
    best_of: Callable[..., Any], pack_module: Callable[[str], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    candidates, shown, stepped = pack_module("nodes.sampling.candidates"), [], []

    class Told:
        class execution:  # noqa: N801
            @staticmethod
            def set_progress(value: int, total: int, node_id: str, preview_image: Any, ignore_size_limit: bool) -> None:
                shown.append((value, total, node_id, preview_image))

    class Previewer:
        def decode_latent_to_preview_image(self, kind: str, x0: torch.Tensor) -> None:
            stepped.append(x0.clone())

    monkeypatch.setattr(candidates, "ComfyAPISync", Told)
    monkeypatch.setattr(candidates.latent_preview, "get_previewer", lambda *_: Previewer())
    seen: list[tuple[list[int], torch.Tensor]] = []
    true = candidates.SampledCandidates._stepped

    def watched(self: Any, rows: list[int], x0: torch.Tensor) -> None:
        seen.append((list(rows), x0.clone()))
        true(self, rows, x0)

    monkeypatch.setattr(candidates.SampledCandidates, "_stepped", watched)
    log = best_of()[4]

    leaders = [int(line.split()[1]) for line in log.splitlines() if line.strip().startswith("kept:")]
    assert [node_id for *_, node_id, _ in shown] == ["7"] * 3
    *leading, (done, total, _, sheet) = shown
    assert {image.size for *_, image in leading} == {(16, 16)}
    assert done == total
    assert sheet.width > 2 * 16  # of all candidates, since a preview hides what the node shows later
    expected = [None, None, leaders[0], leaders[0], leaders[1], leaders[1]]
    for (rows, x0), leader, picture in zip(seen, expected, stepped, strict=True):
        place = rows.index(leader) if leader is not None else 0
        assert torch.equal(picture, x0[place : place + 1])


def test_an_interrupt_comes_out_of_it(best_of: Callable[..., Any], managed: Callable[..., Any]) -> None:
    import comfy.model_management as memory

    def press(images: Any, prompts: Any) -> list[float]:
        memory.interrupt_current_processing()
        return [0.0] * len(images)

    with pytest.raises(memory.InterruptProcessingException):
        best_of(scorer=managed(press))


def test_taesd_decodes_previews(best_of: Callable[..., Any], inputs: dict[str, Any], tiny_checkpoint: Any) -> None:
    import folder_paths

    folder = Path(folder_paths.models_dir) / "vae_approx"
    folder.mkdir(parents=True, exist_ok=True)
    file = tiny_checkpoint.write_tiny_taesd(folder)
    try:
        *_, log = best_of(preview="TAESD")
    finally:
        file.unlink()

    assert inputs["vae"].decoded == [2]  # only what was finished
    assert "previews by TAESD" in log.splitlines()[0]


def test_a_missing_taesd_is_told_before_anything_is_sampled(best_of: Callable[..., Any], progress: list[Any]) -> None:
    message = r"taesd_decoder in models/vae_approx for preview 'TAESD', got no such file\. Put taesd_decoder\.safet"
    with pytest.raises(FileNotFoundError, match=message):
        best_of(preview="TAESD")
    assert progress == []


@pytest.mark.parametrize(("name", "dimensions"), [(None, 2), ("a decoder to come", 3)])
def test_a_model_without_a_taesd_is_told(
    best_of: Callable[..., Any], inputs: dict[str, Any], name: str | None, dimensions: int
) -> None:
    latent_format = inputs["model"].model.latent_format
    latent_format.taesd_decoder_name, latent_format.latent_dimensions = name, dimensions

    with pytest.raises(ValueError, match="got one that this ComfyUI knows none for"):
        best_of(preview="TAESD")


@pytest.mark.parametrize(
    ("own", "message"),
    [
        ({"prune_at": "0.4=4"}, r"prune_at in the form 0\.4:4, got '0\.4=4'"),
        ({"prune_at": "0.4:9"}, r"at most 4 candidates at 0\.4 in prune_at, got 9"),
        ({"prune_at": "0.4:1"}, r"leave at least the 2 candidates that are to be kept, got 1"),
        ({"keep": 5}, r"at most the 4 candidates there are, got 5"),
        ({"n": 1, "keep": 2, "prune_at": ""}, r"at most the 1 candidates there are, got 2"),
        ({"sampler_name": "res_2s"}, r"a sampler that this ComfyUI has, got 'res_2s'"),
        ({"scheduler": "bong_tangent"}, r"a scheduler that this ComfyUI has, got 'bong_tangent'"),
        ({"preview": "taesd"}, r"Expected preview VAE or TAESD, got 'taesd'"),
        ({"scorer": 5}, r"a scorer of Load Image Scorer or Combine Image Scorers, got int"),
        ({"sampler_name": "dpm_adaptive"}, r"got 'dpm_adaptive', whose steps depend on all of them"),
        ({"sampler_name": "dpm_adaptive", "prune_at": "", "batch_limit": 2}, r"set batch_limit to 0"),
        ({"latent_image": {"samples": torch.zeros(3, 4, 8, 8)}}, r"one latent, or one for each of 4 candidates, got 3"),
        ({"latent_image": {"samples": torch.zeros(1, 4, 9)}}, r"got \(1, 4, 9\), which are sound"),
        ({"denoise": 0.0}, r"at least 2 steps to prune between, got 0"),
    ],
)
def test_what_cannot_be_done_is_told_before_anything_is_sampled(
    best_of: Callable[..., Any], inputs: dict[str, Any], progress: list[Any], own: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        best_of(**own)
    assert inputs["vae"].decoded == []
    assert progress == []


def test_a_scorer_that_reads_needs_a_prompt(best_of: Callable[..., Any], managed: Callable[..., Any]) -> None:
    with pytest.raises(ValueError, match="a prompt for mean, which compares pictures with their text, got none"):
        best_of(scorer=managed(needs_prompt=True))


def test_nan_is_told_by_the_number_of_its_candidate(best_of: Callable[..., Any], inputs: dict[str, Any]) -> None:
    def decode(latents: torch.Tensor) -> torch.Tensor:
        pictures = torch.linspace(0, 1, len(latents)).reshape(-1, 1, 1, 1).repeat(1, 16, 16, 3)
        return pictures if len(latents) > 2 else pictures / 0

    inputs["vae"].decode = decode
    with pytest.raises(ValueError, match="NaN or infinite ones in picture 2"):
        best_of(prune_at="0.5:2")


def test_a_vae_that_makes_nan_is_told(best_of: Callable[..., Any], inputs: dict[str, Any]) -> None:
    inputs["vae"].decode = lambda latents: torch.full((len(latents), 16, 16, 3), float("nan"))

    with pytest.raises(ValueError, match="NaN or infinite ones in picture 0"):
        best_of()
