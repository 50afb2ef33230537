"""The command that generates: calibrate."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from ..errors import MaAgiqaError
from .options import EXIT_CODES, PATH, check_outputs, json_option, model_options


@click.command(epilog=EXIT_CODES)
@click.argument("pipeline", metavar="PIPELINE")
@click.option("--prompts", required=True, type=PATH, metavar="FILE", help="Text file with one prompt per line.")
@click.option(
    "--n",
    default=8,
    show_default=True,
    type=click.IntRange(min=2),
    metavar="N",
    help="Number of candidates per prompt.",
)
@click.option(
    "--steps", type=click.IntRange(min=2), metavar="N", help="Number of inference steps.  [default: the pipeline's]"
)
@click.option("--guidance", type=float, metavar="X", help="Guidance scale.  [default: the pipeline's]")
@click.option(
    "--width", type=click.IntRange(min=8), metavar="N", help="Image width in pixels.  [default: the pipeline's]"
)
@click.option(
    "--height", type=click.IntRange(min=8), metavar="N", help="Image height in pixels.  [default: the pipeline's]"
)
@click.option(
    "--target-share",
    default=0.9,
    show_default=True,
    type=click.FloatRange(0, 1, min_open=True),
    metavar="X",
    help="Share of the gain of best-of-N to keep.",
)
@click.option(
    "--seed", default=0, show_default=True, type=click.IntRange(min=0), metavar="S", help="Seed of the first candidate."
)
@click.option(
    "--preview",
    default="auto",
    show_default=True,
    metavar="P",
    help="Preview decoder: auto, vae, tiny, or the folder or Hub id of a tiny autoencoder.",
)
@click.option(
    "--observe",
    multiple=True,
    metavar="MODEL",
    help="Scorer that only watches: the report says how much of its own gain it gets. Repeat for more.",
)
@click.option(
    "--save-previews", type=PATH, metavar="DIR", help="New folder for the previews, to teach an early scorer from."
)
@click.option("--out", type=PATH, metavar="F.json", help="Write the full report as JSON.")
@click.option("--plot", type=PATH, metavar="F.png", help="Plot the curves.")
@json_option
@model_options
def calibrate(
    pipeline: str,
    prompts: Path,
    n: int,
    target_share: float,
    seed: int,
    preview: str,
    observe: Sequence[str],
    save_previews: Path | None,
    out: Path | None,
    plot: Path | None,
    as_json: bool,
    **options: Any,
) -> None:
    """Find out how early a pipeline's worst candidates can be dropped.

    PIPELINE is the folder or Hub id of a diffusers pipeline. For every prompt, N candidates are generated in full,
    and previews of each are scored at several steps. The table shows how well previews predict the best candidate,
    and which prune_at keeps the target share of the gain of best-of-N. Start with about twenty prompts like yours.
    """
    from ..records.prompts import read_prompt_lines

    check_outputs(out, endings=(".json",))
    check_outputs(plot, endings=(".png",))
    texts = read_prompt_lines(prompts)
    names = {"steps": "num_inference_steps", "guidance": "guidance_scale", "width": "width", "height": "height"}
    given = {name: options.pop(option) for option, name in names.items()}

    from ..compute.batching import is_out_of_memory
    from ..compute.devices import resolve_device, resolve_dtype
    from ..generation.calibration.measure import Calibration
    from ..generation.pipelines.loading import load_pipeline
    from .scoring_run import ScoringOptions, load
    from .terminal import calibrate_with_progress

    scoring = ScoringOptions(**options)
    device = resolve_device(scoring.device)
    scorer = load(scoring)
    calibration = Calibration(
        load_pipeline(
            pipeline,
            device=device,
            dtype=resolve_dtype(scoring.dtype, device),
            local_files_only=scoring.local_files_only,
        ),
        scorer,
        texts,
        n=n,
        target_share=target_share,
        seed=seed,
        preview=preview,
        observe=[load(scoring, model) for model in observe],
        batch_size=scoring.batch_size,
        save_previews=save_previews,
        local_files_only=scoring.local_files_only,
        pipe_kwargs={name: value for name, value in given.items() if value is not None},
    )
    try:
        calibrate_with_progress(calibration, out=out, plot=plot, as_json=as_json)
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        raise MaAgiqaError(
            f"Expected memory for one candidate at a time on {str(device)!r}, got too little. Use --dtype float16, or "
            "a smaller --width and --height."
        ) from error
