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
from ..scorers.picture_features.load import load_features
from ..semantic.questions import questions_for
from .batches import Batches
from .loop import TrainingResult, TrainingRun
from .network import network_config
from .preparation import check_trainable, opened_accelerator, opened_extractor, training_data
from .progress import TrainingProgress
from .settings import TrainingSettings
from .state import StateFolder, check_can_resume, run_identity

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
    progress: TrainingProgress | None = None,
) -> TrainingResult:
    """Trains a model and measures it.

    `out` gets model.safetensors (the best epoch so far, from the first epoch on), metrics.json, predictions.csv,
    curves.png, settings.json, and state/, from which an interrupted run resumes. With the same settings, number of
    threads and number of processes it then gives the same weights, on the CPU bit for bit.

    Args:
        settings: The training protocol.
        labelled: The labelled pictures; all targets with scores are trained together.
        split: Rows to train on, to validate on and to test on.
        out: Output folder, created if missing.
        semantic: Folder or Hub id of the semantic model; "none" trains the visual expert alone; None takes the
            preset's.
        cache: Folder of semantic vectors; None takes `out`/vectors.
        picture_cache: Folder for the decoded and resized pictures, which runs share; None decodes every time.
        resume: Resume the run in `out`; without one there, start.
        device: "auto", "cpu", "cuda", "cuda:1", "mps".
        dtype: Precision of the semantic model.
        quantization: Quantization of the semantic model: None, "int8" or "nf4".
        device_map: Device map of the semantic model.
        local_files_only: Never use the network.
        workers: Threads that decode; default one per processor, at most 4.
        progress: Callback of the main process.

    Raises:
        FileExistsError: There is a run in `out`, and `resume` is False; or another process is writing to it.
        FileNotFoundError: The semantic model or the backbone's weights are not here and cannot be downloaded.
        OSError: A file cannot be written; the last state stays.
        ValueError: Nothing to learn from, a resume with other settings or data, a picture that cannot be read (the
            state then holds all steps before it), a loss that is not finite.
    """
    out, state = Path(out), StateFolder(Path(out) / "state")
    check_trainable(labelled, split)
    with opened_accelerator(settings, device, out) as accelerator:
        progress = progress if progress is not None and accelerator.is_main_process else TrainingProgress()
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
        features = None if settings.features is None else load_features(settings.features, accelerator.device)
        semantic_dim = 0 if extractor is None else extractor.hidden_size
        network_config(settings, labelled.targets, semantic_dim, features)  # or refuses
        identity = run_identity(settings, labelled, split, extractor)
        saved = check_can_resume(state, out, identity, settings, resume=resume)
        out.mkdir(parents=True, exist_ok=True)
        with state.held() if accelerator.is_main_process else nullcontext():
            batches = Batches(
                training_data(
                    labelled, settings.model.image_size, features, extractor, picture_cache, accelerator, progress
                ),
                settings,
                accelerator.process_index,
                accelerator.num_processes,
                workers,
            )
            training = TrainingRun(
                accelerator=accelerator,
                settings=settings,
                labelled=labelled,
                split=split,
                out=out,
                features=features,
                extractor=extractor,
                identity=identity,
                saved=saved,
                batches=batches,
                state=state,
                progress=progress,
                local_files_only=local_files_only,
            )
            try:
                training.run()
            except PictureError as error:
                raise training.stopped_by(error) from error
            return training.finish()
