"""Makes N pictures of a prompt, drops the poor ones early, and saves the best with score and seed inside.

    python examples/best_of_n.py "a lighthouse in a storm, oil painting"

Two scorers choose by rank: `lite` for technical quality, and a CLIP model for how well the picture shows the prompt,
because a scorer of quality alone prefers beautiful pictures of something else. On several GPUs the candidates are
shared out:

    accelerate launch --num_processes 4 examples/best_of_n.py "a lighthouse in a storm, oil painting" --n 32
"""

import json
import logging
from pathlib import Path
from typing import Any

import click

SDXL = "stabilityai/stable-diffusion-xl-base-1.0"
SCORERS = ("lite", "clip:openai/clip-vit-base-patch32")


class Schedule(click.ParamType):
    """0.4:4,0.7:2 is {0.4: 4, 0.7: 2}."""

    name = "fraction:count,..."

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> dict[float, int]:
        if isinstance(value, dict):
            return value
        from ma_agiqa_core.generation.pruning.schedule import PruneSchedule

        try:
            return dict(PruneSchedule.parse(value).stages)
        except ValueError as error:
            return self.fail(str(error), param, ctx)


@click.command()
@click.argument("prompts", metavar="PROMPT...", nargs=-1, required=True)
@click.option("--pipeline", default=SDXL, show_default=True, help="Hub id, or folder, of a diffusers pipeline.")
@click.option(
    "--scorer", "scorers", multiple=True, default=SCORERS, show_default=True, help="Several choose by mean rank."
)
@click.option("--observe", help="A second scorer, whose scores are only reported.")
@click.option("--n", default=8, show_default=True, help="Candidates of each prompt.")
@click.option("--keep", default=1, show_default=True)
@click.option(
    "--prune-at",
    type=Schedule(),
    help='Fractions of the steps with the number of candidates that survive; "" finishes all.  '
    "[default: half of N at 0.5, a quarter at 0.75, never below --keep]",
)
@click.option("--seed", default=0, show_default=True, help="Candidate i has the seed SEED + i.")
@click.option("--batch-size", type=int, help="Candidates at a time; without it, as many as fit.")
@click.option("--strategy", type=click.Choice(["batch", "sequential"]), default="batch", show_default=True)
@click.option("--preview", default="auto", show_default=True, help="auto, vae, tiny, or an AutoencoderTiny.")
@click.option("--negative-prompt")
@click.option("--steps", type=int, help="Without it, as the pipeline has it; the same goes for the following.")
@click.option("--guidance", type=float)
@click.option("--width", type=int)
@click.option("--height", type=int)
@click.option("--out", type=click.Path(path_type=Path), default=Path("best_of_n"), show_default=True)
@click.option("--device", default="auto", show_default=True)
@click.option("--dtype", default="auto", show_default=True, help="auto, float32, bfloat16 or float16.")
@click.option("--offload", is_flag=True, help="Keep in GPU memory only the part of the pipeline that computes.")
@click.option("--local-files-only", is_flag=True, help="Never use the network.")
def main(
    prompts: tuple[str, ...],
    pipeline: str,
    scorers: tuple[str, ...],
    observe: str | None,
    device: str,
    dtype: str,
    offload: bool,
    local_files_only: bool,
    steps: int | None,
    guidance: float | None,
    out: Path,
    **options: Any,
) -> None:
    """Makes N pictures of every PROMPT and saves the best of each."""
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    try:
        pipe, scorer, observer = load(pipeline, scorers, observe, device, dtype, offload, local_files_only)
        settings = {"num_inference_steps": steps, "guidance_scale": guidance}
        settings |= {name: options.pop(name) for name in ("negative_prompt", "width", "height")}

        if options["prune_at"] is None:
            options["prune_at"] = halving(options["n"], options["keep"])

        from ma_agiqa_core.generation import best_of_n

        results = best_of_n(
            pipe,
            scorer,
            list(prompts),
            observe=observer,
            save_dir=out,
            **options,
            **{name: value for name, value in settings.items() if value is not None},
        )
    except (OSError, ValueError) as error:
        raise click.ClickException(str(error)) from None
    for prompt, result in zip(prompts, results, strict=True):
        report(prompt, result)


def halving(n: int, keep: int) -> dict[float, int]:
    """Half of the candidates survive half of the steps, a quarter at three quarters; at least `keep`."""
    counts = {0.5: max(n // 2, keep), 0.75: max(n // 4, keep)}
    return {fraction: count for fraction, count in counts.items() if 0 < count < n}


def load(
    pipeline: str,
    scorers: tuple[str, ...],
    observe: str | None,
    device: str,
    dtype: str,
    offload: bool,
    local_files_only: bool,
) -> tuple[Any, Any, Any]:
    """The pipeline and the scorers, on the GPU of this process."""
    from ma_agiqa_core import EnsembleScorer, load_scorer
    from ma_agiqa_core.compute.devices import resolve_device, resolve_dtype
    from ma_agiqa_core.generation.best_of.processes import Processes
    from ma_agiqa_core.generation.pipelines.loading import load_pipeline

    processes = Processes()
    where = processes.device if processes.count > 1 and device == "auto" else resolve_device(device)
    loaded = [load_scorer(name, device=where, local_files_only=local_files_only) for name in scorers]
    scorer = loaded[0] if len(loaded) == 1 else EnsembleScorer([(one, 1.0) for one in loaded], combine="rank")
    observer = None if observe is None else load_scorer(observe, device=where, local_files_only=local_files_only)
    pipe = load_pipeline(
        pipeline,
        device=resolve_device("cpu") if offload else where,
        dtype=resolve_dtype(dtype, where),
        local_files_only=local_files_only,
    )
    pipe.set_progress_bar_config(disable=processes.index != 0)
    if offload:
        pipe.enable_model_cpu_offload(device=where)
    return pipe, scorer, observer


def report(prompt: str, result: Any) -> None:
    """What was made; in the first process only, where the files are."""
    if not result.paths:
        return
    click.echo(f"{prompt}: {result.network_evaluations} network evaluations")
    for step in result.history:
        click.echo(
            f"  at {step.fraction:g} of the steps kept {json.dumps(list(step.kept))}, dropped {len(step.dropped)}"
        )
    for place, (path, score, seed) in enumerate(zip(result.paths, result.scores, result.seeds, strict=True)):
        seen = "" if result.observed is None else f"   observed {result.observed[place]:.3f}"
        click.echo(f"  {score:8.3f}   seed {seed}{seen}   {path}")


if __name__ == "__main__":
    main()
