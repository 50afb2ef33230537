"""Load Image Scorer."""

from comfy_api.latest import io

from .schema import CATEGORY, Scorer, schema
from .scorers.devices import DEFAULT, device_options, is_device
from .scorers.loading import PRECISIONS, TARGETS, file_states, managed_scorer
from .scorers.model_folder import (
    FROM_CHECKPOINT,
    ITS_OWN,
    LITE,
    percentile_names,
    percentiles_file,
    scorer_file,
    scorer_names,
    semantic_folder,
    semantic_names,
)


class LoadScorer(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return schema(
            node_id="MaAgiqaLoadScorer",
            category=CATEGORY,
            search_aliases=[
                "image quality",
                "aesthetic score",
                "IQA",
                "quality model",
                "scorer loader",
                "CLIP score",
                "PickScore",
            ],
            inputs=[
                io.Combo.Input("model", options=scorer_names(), default=LITE),
                io.Combo.Input("semantic_model", options=semantic_names(), default=FROM_CHECKPOINT),
                io.Combo.Input("precision", options=PRECISIONS, default="auto"),
                io.Combo.Input("device", options=device_options(), default=DEFAULT),
                io.Boolean.Input("cache_vectors", default=True),
                io.Combo.Input("target", options=TARGETS, optional=True, default=TARGETS[0]),
                io.Combo.Input("percentiles", options=percentile_names(), optional=True, default=ITS_OWN),
            ],
            advanced=["precision", "device", "cache_vectors", "percentiles"],
            outputs=[Scorer.Output("scorer")],
        )

    @classmethod
    def fingerprint_inputs(cls, model=None, semantic_model=None, percentiles=ITS_OWN, **_):
        """Files that were rewritten under the same name are loaded again. Linked inputs are not known yet."""
        file = None if model in (None, LITE) else scorer_file(model)
        semantic = None if semantic_model is None else semantic_folder(semantic_model)
        scale = percentiles_file(percentiles)
        return model, semantic_model, percentiles, *(file_states(path) for path in (file, semantic, scale) if path)

    @classmethod
    def validate_inputs(cls, device=DEFAULT):
        """A card of another machine is no mistake: the workflow runs here too."""
        return True if is_device(device) else f"Expected default, cpu, or gpu:0 and so on, got {device!r}."

    @classmethod
    def execute(cls, model, semantic_model, precision, device, cache_vectors, target=TARGETS[0], percentiles=ITS_OWN):
        return io.NodeOutput(
            managed_scorer(model, semantic_model, precision, device, cache_vectors, target, percentiles)
        )
