"""One training run, from labelled pictures to a model that scores.

On several processes (`accelerate launch`) each computes its share of every step: batch, order and augmentation are
those of one process. `out` must then be a folder that all of them see.
"""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path

from ..compute.caller_state import as_loaded
from ..labels.labelled_set import LabelledSet
from ..labels.splits import Split
from ..pictures.inputs import PictureError
from ..semantic.questions import questions_for
from .batches import Batches
from .loop import TrainingResult, TrainingRun
from .network import network_config
from .preparation import check_trainable, opened_accelerator, opened_extractor, training_data
from .progress import Watch
from .run_identity import check_can_begin, run_identity
from .settings import TrainingSettings
from .state import StateFolder

__all__ = ["TrainingResult", "train"]


@as_loaded(learns=True)
def train(
    settings: TrainingSettings,
    labelled: LabelledSet,
    split: Split,
    out: Path,
    *,
    semantic: str | None = None,
    cache: Path | None = None,
    picture_cache: Path | None = None,
    resume: bool = False,
    device: str = "auto",
    dtype: str = "auto",
    quantization: str | None = None,
    device_map: str | None = None,
    local_files_only: bool = False,
    workers: int | None = None,
    watch: Watch | None = None,
) -> TrainingResult:
    """Trains a model and measures it.

    `out` gets model.safetensors (the best epoch so far, from the first epoch on), metrics.json, predictions.csv,
    curves.png, settings.json, and state/, from which a run that was ended goes on. With the same settings, number of
    threads and number of processes it then gives the same weights, on the CPU bit for bit.

    Args:
        settings: The protocol.
        labelled: The pictures; all targets that it has scores for are trained together.
        split: Its rows.
        out: Folder, made if there is none.
        semantic: Folder or Hub id of the semantic model; "none" trains the visual expert alone; None takes the
            preset's.
        cache: Folder of semantic vectors; None takes `out`/vectors.
        picture_cache: Folder for the decoded and resized pictures, which runs share; None decodes every time.
        resume: Go on with the run in `out`; with none there, begin.
        device: "auto", "cpu", "cuda", "cuda:1", "mps".
        dtype: Of the language model.
        quantization: Of the language model: None, "int8" or "nf4".
        device_map: Of the language model.
        local_files_only: Never use the network.
        workers: Threads that decode; default one per processor, at most 4.
        watch: Is told how it goes, in the main process.

    Raises:
        FileExistsError: There is a run in `out`, and `resume` is False; or another process is writing to it.
        FileNotFoundError: The semantic model or the backbone's weights are not here and cannot be downloaded.
        OSError: A file cannot be written; the last state stays.
        ValueError: Nothing to learn from, a resume with other settings or data, a picture that cannot be read (the
            state then holds all steps before it), a loss that is not finite.
    """
    out, state, watch = Path(out), StateFolder(Path(out) / "state"), watch or Watch()
    check_trainable(labelled, split)
    with opened_accelerator(settings, device, out) as accelerator:
        watch = watch if accelerator.is_main_process else Watch()
        extractor = opened_extractor(
            semantic if semantic is not None else settings.semantic_model,
            cache=cache or out / "vectors",
            device=accelerator.device,
            dtype=dtype,
            quantization=quantization,
            device_map=device_map,
            local_files_only=local_files_only,
            questions={
                name: text for name, text in questions_for(labelled.targets).items() if name not in settings.left_out
            },
        )
        network_config(settings, labelled.targets, 0 if extractor is None else extractor.hidden_size)  # or refuses
        identity = run_identity(settings, labelled, split, extractor)
        saved = check_can_begin(state, out, identity, settings, resume=resume)
        out.mkdir(parents=True, exist_ok=True)
        with state.held() if accelerator.is_main_process else nullcontext():
            batches = Batches(
                training_data(labelled, settings.model.image_size, extractor, picture_cache, accelerator, watch),
                settings,
                accelerator.process_index,
                accelerator.num_processes,
                workers,
            )
            run = TrainingRun(
                accelerator,
                settings,
                labelled,
                split,
                out,
                extractor,
                identity,
                saved,
                batches,
                state,
                watch,
                local_files_only,
            )
            try:
                run.learn()
            except PictureError as error:
                raise run.stopped_by(error) from error
            return run.finish()
