"""The state of a run on disk, and the check of what a resumed run must have in common with it.

One safetensors file with all tensors, and the rest as JSON in its metadata. It is written beside its place and then
moved there, so that a kill at any moment leaves either the last state or the new one. The best weights so far have a
file of their own, named in the state; what no state names is deleted.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.optim import Optimizer

from ..atomic_write import atomic_write
from ..errors import MaAgiqaError, OutputExistsError
from ..labels.labelled_set import LabelledSet
from ..labels.splits import Split
from ..semantic.extractor import SemanticExtractor
from .settings import TrainingSettings, differences

FORMAT = "1"
_KEY = "ma_agiqa.training"
MODEL = "model.safetensors"  # in the run's folder
_ADVICE = "Delete the folder to start over."


@dataclass
class LoopState:
    """Where the loop is, and what it has measured so far.

    Attributes:
        epoch: Finished epochs.
        step: Finished steps of the epoch after these.
        loss: Sum of those steps' losses.
        history: Of each finished epoch its figures.
        best_epoch: The epoch, from 1, with the best validation so far; 0 for none.
        best_value: Its value; None where no correlation is defined.
        scaler: Of fp16's loss scaling.
    """

    epoch: int = 0
    step: int = 0
    loss: float = 0.0
    history: list[dict[str, Any]] = field(default_factory=list)
    best_epoch: int = 0
    best_value: float | None = None
    scaler: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class SavedState:
    """What `StateFolder.read` gives."""

    identity: dict[str, Any]
    loop: LoopState
    tensors: dict[str, Tensor]


class StateFolder:
    """A run's `state/`.

    Args:
        folder: Made when the first state is written.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.file = folder / "state.safetensors"

    def best_file(self, epoch: int) -> Path:
        """Where the checkpoint of the best epoch is."""
        return self.folder / f"best-{epoch:04d}.safetensors"

    def read(self, *, with_tensors: bool = True) -> SavedState | None:
        """The last state; None if there is none.

        Raises:
            ValueError: Its file is damaged or another program's.
        """
        if not self.file.is_file():
            return None
        try:
            with safe_open(self.file, framework="pt") as state:
                entry = json.loads((state.metadata() or {})[_KEY])
                names = state.keys() if with_tensors else []
                tensors = {name: state.get_tensor(name) for name in names}
            if entry["format"] != FORMAT:
                raise MaAgiqaError(f"format {entry['format']!r}")
            return SavedState(entry["identity"], LoopState(**entry["progress"]), tensors)
        except (SafetensorError, OSError, KeyError, TypeError, ValueError, RecursionError) as error:
            raise MaAgiqaError(f"Expected a state of training, got {str(self.file)!r}: {error}. {_ADVICE}") from error

    def write(self, identity: Mapping[str, Any], loop: LoopState, tensors: Mapping[str, Tensor]) -> None:
        """Replaces the state, whole or not at all.

        Raises:
            OSError: It cannot be written; the last state is still there.
        """
        entry = {"format": FORMAT, "identity": dict(identity), "progress": dataclasses.asdict(loop)}
        values = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
        with disk_errors_explained(self.folder):
            self.make()
            with atomic_write(self.file) as temporary:
                save_file(values, temporary, {_KEY: json.dumps(entry)})
                with temporary.open("r+b") as file:
                    os.fsync(file.fileno())
        self._delete(old for old in self.folder.glob("best-*.safetensors") if old != self.best_file(loop.best_epoch))

    @contextmanager
    def held(self) -> Iterator[None]:
        """Keeps other runs out of the folder meanwhile; the system releases the lock of a killed run.

        Raises:
            FileExistsError: Another run is at work in it.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(self.folder / "lock", timeout=0)
        try:
            lock.acquire()
        except Timeout:
            raise OutputExistsError(
                f"Expected a folder that no other run is writing to, got {str(self.folder.parent)!r}. Wait for that "
                "run, or choose another folder."
            ) from None
        except NotImplementedError:  # a file system without locks
            pass
        try:
            yield
        finally:
            lock.release()

    def make(self) -> None:
        """Makes the folder, and deletes what a killed writer left: temporary files of safetensors and of ours."""
        self.folder.mkdir(parents=True, exist_ok=True)
        self._delete(self.folder.glob(".tmp*"))
        self._delete(self.folder.glob("*.tmp"))

    @staticmethod
    def _delete(files: Iterable[Path]) -> None:
        for file in files:
            with suppress(OSError):
                file.unlink()


def run_identity(
    settings: TrainingSettings, labelled: LabelledSet, split: Split, extractor: SemanticExtractor | None
) -> dict[str, Any]:
    """For JSON: the settings, and digests of labels, prompts and split. Picture files may be fixed or moved."""
    labels = [[picture.name, dict(picture.scores), picture.prompt] for picture in labelled.pictures]
    return {
        "settings": settings.to_dict(),
        "data": {
            "name": labelled.name,
            "pictures": len(labelled),
            "targets": list(labelled.targets),
            "labels": _digest(labels),
            "split": _digest([split.train, split.val, split.test]),
        },
        "semantic": None if extractor is None else f"{extractor.name} {extractor.revision}",
    }


def check_can_resume(
    state: StateFolder, out: Path, identity: Mapping[str, Any], settings: TrainingSettings, *, resume: bool
) -> SavedState | None:
    """The state to resume from; None to start from the beginning. Overwrites nothing and mixes no two runs.

    Raises:
        FileExistsError: There is a run in `out`, and `resume` is False; or a model without a state.
        ValueError: The run in `out` has other settings or data, the message names them; or a damaged state.
    """
    saved = state.read()
    if saved is None:
        began = resume and state.folder.is_dir()  # killed before its first state
        if (out / MODEL).exists() and not began:
            raise OutputExistsError(f"Expected a folder without a model, got {str(out)!r}. Choose another.")
        return None
    if not resume:
        raise OutputExistsError(
            f"Expected a folder without a run, got {str(out)!r}. Resume it (on the command line --resume), "
            "or choose another."
        )
    if others := differences(saved.identity, identity, harmless=[f"settings.{name}" for name in settings.harmless]):
        raise MaAgiqaError(
            f"Expected the settings and data of the run in {str(out)!r}, which has {'; '.join(others)}. "
            "Use the same, or choose another folder."
        )
    return saved


@contextmanager
def disk_errors_explained(folder: Path) -> Iterator[None]:
    """Says what a full disk means for a run, in whatever words safetensors or Python report it."""
    try:
        yield
    except (SafetensorError, OSError) as error:
        raise OSError(
            f"Expected room for what training writes to {str(folder)!r}, got: {error}. The last state and the last "
            "model stay: free some space and resume (on the command line --resume)."
        ) from error


def collect(**parts: nn.Module | Optimizer | None) -> dict[str, Tensor]:
    """Tensors of modules and of an optimizer under one roof: "model.features...", "optimizer.0.exp_avg"."""
    tensors: dict[str, Tensor] = {}
    for name, part in parts.items():
        if isinstance(part, nn.Module):
            tensors |= {f"{name}.{key}": value for key, value in part.state_dict().items()}
        elif part is not None:
            for number, entries in part.state_dict()["state"].items():
                tensors |= {f"{name}.{number}.{key}": value for key, value in entries.items()}
    return tensors


def restore(tensors: Mapping[str, Tensor], **parts: nn.Module | Optimizer | None) -> None:
    """Puts back what `collect` took."""
    for name, part in parts.items():
        own = {key.removeprefix(f"{name}."): value for key, value in tensors.items() if key.startswith(f"{name}.")}
        if isinstance(part, nn.Module):
            part.load_state_dict(own)
        elif part is not None:
            state: dict[int, dict[str, Tensor]] = {}
            for key, value in own.items():
                number, _, entry = key.partition(".")
                state.setdefault(int(number), {})[entry] = value
            part.load_state_dict({"state": state, "param_groups": part.state_dict()["param_groups"]})


def _digest(values: Any) -> str:
    return hashlib.sha256(json.dumps(values, ensure_ascii=True).encode()).hexdigest()[:12]
