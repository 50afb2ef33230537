"""What the two aesthetic predictors share: a vision tower of transformers, and a head of linear layers over it.

The head's file is small and published alone; the tower is that of CLIP or SigLIP. Both may lie in one folder, or the
tower comes from the repository that its authors published it in.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ...errors import MaAgiqaError, MissingFileError
from ...model_files.hub import hub_file
from ...model_files.transformers_folder import read_json, read_shard, weight_files
from ..family import Request
from .affine_head import AffineHead
from .judge_files import JudgeFiles, checked_revision
from .picture_judge import place_and_precision
from .published_weights import as_float32, checkpoint_of, filled, read_weights


class AestheticNetwork(torch.nn.Module):
    """A tower and a head.

    Args:
        tower: A vision model of transformers.
        head: From the width of its embedding to a score.
        embedding: What in the tower's output is the picture's embedding.
    """

    def __init__(self, tower: torch.nn.Module, head: AffineHead, embedding: str) -> None:
        super().__init__()
        self.tower, self.head, self.embedding = tower, head, embedding

    def forward(self, pixels: Tensor) -> Tensor:
        """Scores (B,) of pixels (B, 3, S, S): the head of the embedding divided by its length."""
        embeddings = getattr(self.tower(pixel_values=pixels), self.embedding).float()
        return self.head(embeddings / torch.linalg.vector_norm(embeddings, dim=-1, keepdim=True))


@dataclass(frozen=True)
class Tower:
    """A vision model, as a predictor needs it.

    Attributes:
        model_class: Of transformers.
        config_class: The same.
        repository: Where it is published.
        model_types: What a config.json says of it, or of the image-text model that it is half of.
        embedding: What in its output is the picture's embedding.
        weights: How the names of its weights start; the text half and the head are left out.
    """

    model_class: str
    config_class: str
    repository: str
    model_types: tuple[str, ...]
    embedding: str
    weights: tuple[str, ...]

    def config(self, content: Mapping[str, Any]) -> Any:
        """From a config.json, its own or that of the image-text model.

        Raises:
            ValueError: Of another model.
        """
        import transformers

        if content.get("model_type") not in self.model_types:
            raise MaAgiqaError(
                f"a model_type {content.get('model_type')!r} in the place of {' or '.join(self.model_types)}"
            )
        inner = dict(content.get("vision_config", content))
        if "projection_dim" in content:
            inner.setdefault("projection_dim", content["projection_dim"])
        inner.pop("model_type", None)
        return getattr(transformers, self.config_class)(**inner)


def load_predictor(
    request: Request, files: JudgeFiles, judge: str, tower: Tower, prefixes: tuple[str, ...]
) -> tuple[AestheticNetwork, str]:
    """The network of a predictor, where and in the precision that is wanted, and its revision.

    Args:
        request: Device, precision, and whether the network may be used.
        files: The head's.
        judge: For messages.
        tower: Of the predictor.
        prefixes: How the names of the head's layers may start, before their number.

    Raises:
        FileNotFoundError: The tower is not on this machine and cannot be downloaded.
        ValueError: Head or tower are those of something else, or damaged.
    """
    where, precision = place_and_precision(request, f"'{judge}:{request.model}'")
    config, shards = _tower_files(files, tower, judge, request.local_files_only)
    layers = read_weights(files.weights)
    prefix = next((prefix for prefix in prefixes if f"{prefix}0.weight" in layers), prefixes[0])
    with checkpoint_of(files.weights, f"{judge}'s head"):
        head = AffineHead.of_layers(as_float32(layers), prefix)
    with checkpoint_of(config, f"{judge}'s tower"):
        own = tower.config(read_json(config))
    network = filled(
        _maker(tower, own), _tower_weights(shards, tower), shards[0], f"{judge}'s tower", prefix="vision_model."
    )
    width = int(getattr(own, "projection_dim" if tower.embedding == "image_embeds" else "hidden_size"))
    if head.width != width:
        raise MaAgiqaError(
            f"Expected a head of {judge} for the {width} features of {str(shards[0].parent)!r}, got one for "
            f"{head.width} in {str(files.weights)!r}. Head and tower must be those that were trained together."
        )
    others = [shard for shard in shards if shard != files.weights]
    return AestheticNetwork(network.to(where, precision), head.to(where), tower.embedding), checked_revision(
        files, others
    )


def _maker(tower: Tower, config: Any) -> Callable[[], torch.nn.Module]:
    import transformers

    return lambda: getattr(transformers, tower.model_class)(config)


def _tower_files(files: JudgeFiles, tower: Tower, judge: str, local_files_only: bool) -> tuple[Path, list[Path]]:
    """config.json and the files of weights: beside the head, else those that are published."""
    if (config := files.folder / "config.json").is_file() and not _is_of_hub(files):
        return config, weight_files(files.folder)
    try:
        names = ("config.json", "model.safetensors")
        config, weights = (hub_file(tower.repository, name, local_files_only=local_files_only) for name in names)
    except FileNotFoundError as error:
        raise MissingFileError(
            f"Expected the tower of {judge} (config.json and weights of {tower.repository}) beside "
            f"{str(files.weights)!r}, got none: {error}"
        ) from error
    return config, [weights]


def _is_of_hub(files: JudgeFiles) -> bool:
    """A head's own repository may have a config.json that is none of a tower's."""
    return not files.folder.joinpath("model.safetensors").is_file() and files.folder.parent.name == "snapshots"


def _tower_weights(shards: list[Path], tower: Tower) -> dict[str, Tensor]:
    named = (pair for shard in shards for pair in read_shard(shard))
    return as_float32({name: tensor for name, tensor in named if _is_tower(name, tower)})


def _is_tower(name: str, tower: Tower) -> bool:
    return name.startswith(tower.weights) and not name.endswith("position_ids")
