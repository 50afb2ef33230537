"""The table of the families of scorers.

A new family is its module and its row in `FAMILIES`: what lists or loads scorers takes it from there.
"""

from collections.abc import Callable, Mapping
from importlib import import_module
from pathlib import Path

from .family import OF_SEMANTIC_MODELS, Family, Request
from .scorer import Scorer


def _lite_weights() -> Path:
    from .lite import LITE_WEIGHTS

    return LITE_WEIGHTS


def _module(name: str) -> Callable[[Request], Scorer]:
    """The `load` of a family's module, which is imported when the first of its scorers is loaded."""

    def load(request: Request) -> Scorer:
        return import_module(name, __package__).load(request)

    return load


def _is_student(facts: Mapping[str, str]) -> bool:
    return facts.get("ma_agiqa.kind") == "lite" and facts.get("ma_agiqa.network") == "student"


def _is_clip(facts: Mapping[str, str]) -> bool:
    from .clip_files import MODEL_CLASSES

    return facts.get("model_type") in MODEL_CLASSES


FAMILIES: tuple[Family, ...] = (
    Family(
        name="lite",
        model="lite, or FILE.safetensors",
        scores="technical quality: sharpness, noise, artefacts",
        needs_prompt=False,
        licence="Apache-2.0",
        size="1.7 MB, carried in the package",
        detects=lambda facts: facts.get("ma_agiqa.kind") == "lite" and not _is_student(facts),
        load=_module(".lite"),
        carried=_lite_weights,
        refuses=OF_SEMANTIC_MODELS,
    ),
    Family(
        name="student",
        model="FILE.safetensors, made by `ma-agiqa distill`",
        scores="what its teacher scores",
        needs_prompt=False,
        licence="yours; see also its teacher's",
        size="3.3 MB",
        detects=_is_student,
        load=_module(".lite"),
    ),
    Family(
        name="learned",
        model="FILE.safetensors, made by `ma-agiqa learn`",
        scores="how well a picture fits the taste of whoever made the picks",
        needs_prompt=False,
        licence="yours",
        size="9 kB, and the folder of its features, if they are a model's",
        detects=lambda facts: facts.get("ma_agiqa.kind") == "learned",
        load=_module(".learned"),
    ),
    Family(
        name="ma-agiqa",
        model="FILE.safetensors, a folder with model.safetensors, or OWNER/NAME",
        scores="mean opinion scores of quality; of alignment and authenticity where the checkpoint was trained for it",
        needs_prompt=None,
        licence="none stated by its authors",
        size="16.1 GB of mPLUG-Owl2, and the checkpoint",
        detects=lambda facts: facts.get("ma_agiqa.kind") == "ma-agiqa",
        load=_module(".ma_agiqa"),
        agreement="AGIQA-3K: SRCC .8939, PLCC .9273 (Wang et al. 2024)",
    ),
    Family(
        name="clip",
        model="clip:FOLDER or clip:OWNER/NAME",
        scores="how well a picture fits its prompt: CLIPScore, PickScore, SigLIP",
        needs_prompt=True,
        licence="see the model's page",
        size="0.6 GB (CLIP ViT-B/32) to 3.9 GB (PickScore)",
        agreement="PickScore: preference accuracy 61.6 on ImageReward's set, 70.5 on Pick-a-Pic, 79.8 on HPDv2 "
        "(Ma et al. 2025, HPSv3)",
        detects=_is_clip,
        load=_module(".clip"),
        by_name=True,
        repository="openai/clip-vit-base-patch32",
        memory="1 to 5 GB",
        refuses=OF_SEMANTIC_MODELS,
    ),
    Family(
        name="imagereward",
        model="imagereward, imagereward:FOLDER, :FILE or :OWNER/NAME",
        scores="what people like, and whether it fits its prompt",
        needs_prompt=True,
        licence="Apache-2.0",
        size="1.8 GB",
        detects=lambda facts: facts.get("ma_agiqa.kind") == "imagereward",
        load=_module(".judges.imagereward"),
        by_name=True,
        repository="THUDM/ImageReward",
        agreement="preference accuracy 65.1 on ImageReward's set, 61.1 on Pick-a-Pic, 74.0 on HPDv2 (Ma et al. 2025, "
        "HPSv3)",
        memory="2.5 GB",
        files=("ImageReward.pt", "ImageReward.safetensors"),
        refuses=OF_SEMANTIC_MODELS,
    ),
    Family(
        name="hpsv2",
        model="hpsv2, hpsv2:FOLDER, :FILE or :OWNER/NAME",
        scores="which picture of a prompt people prefer: HPSv2.1, and HPSv2.0",
        needs_prompt=True,
        licence="Apache-2.0",
        size="2.0 GB",
        detects=lambda facts: facts.get("ma_agiqa.kind") == "hpsv2",
        load=_module(".judges.hpsv2"),
        by_name=True,
        repository="xswu/HPSv2",
        agreement="preference accuracy 65.7 on ImageReward's set, 63.8 on Pick-a-Pic, 83.3 on HPDv2 (Ma et al. 2025, "
        "HPSv3)",
        memory="5 GB",
        files=("HPS_v2.1_compressed.pt", "HPS_v2.1_compressed.safetensors", "HPS_v2_compressed.pt"),
        refuses=OF_SEMANTIC_MODELS,
    ),
    Family(
        name="laion-aesthetic",
        model="laion-aesthetic, laion-aesthetic:FOLDER, :FILE or :OWNER/NAME",
        scores="how much people like a picture, whatever it shows",
        needs_prompt=False,
        licence="Apache-2.0 (the head's repository), MIT (CLIP)",
        size="3.7 MB, and 1.7 GB of CLIP ViT-L/14",
        detects=lambda facts: facts.get("ma_agiqa.kind") == "laion-aesthetic",
        load=_module(".judges.laion_aesthetic"),
        by_name=True,
        repository="trl-lib/ddpo-aesthetic-predictor",
        memory="2 GB",
        files=("sac+logos+ava1-l14-linearMSE.pth", "sac+logos+ava1-l14-linearMSE.safetensors", "aesthetic-model.pth"),
        refuses=OF_SEMANTIC_MODELS,
    ),
    Family(
        name="aesthetic-v2.5",
        model="aesthetic-v2.5:FILE or :FOLDER, a file that you bring",
        scores="how much people like a picture, whatever it shows",
        needs_prompt=False,
        licence="AGPL-3.0 (head: never shipped or fetched), Apache-2.0 (SigLIP)",
        size="a few MB, and 3.5 GB of SigLIP so400m",
        detects=lambda facts: facts.get("ma_agiqa.kind") == "aesthetic-v2.5",
        load=_module(".judges.aesthetic_v2_5"),
        by_name=True,
        memory="3 GB",
        files=("aesthetic_predictor_v2_5.pth", "aesthetic_predictor_v2_5.safetensors"),
        refuses=OF_SEMANTIC_MODELS,
    ),
    Family(
        name="qrealign",
        model="qrealign, qrealign:FOLDER or qrealign:OWNER/NAME",
        scores="quality or aesthetics (target), 0 to 1",
        needs_prompt=False,
        licence="Apache-2.0",
        size="1.7 GB (Mini) to 18 GB (Pro)",
        detects=lambda facts: False,
        load=_module(".judges.qrealign"),
        by_name=True,
        repository="q-future/Q-ReAlign-Mini-0.8B",
        agreement="generated pictures: SRCC .811 (Mini), .829 (Lite), .843 (Pro), by its authors",
        memory="1.7 GB (Mini) to 18 GB (Pro) in bfloat16",
    ),
    Family(
        name="vqascore",
        model="vqascore, vqascore:FOLDER or vqascore:OWNER/NAME, any image-text model",
        scores="whether a picture shows what its prompt says: the probability of the answer Yes, 0 to 1",
        needs_prompt=True,
        licence="the model's",
        size="16.6 GB (Qwen2.5-VL-7B)",
        detects=lambda facts: False,
        load=_module(".judges.vqascore"),
        by_name=True,
        repository="Qwen/Qwen2.5-VL-7B-Instruct",
        memory="17 GB in bfloat16, 7 GB in nf4 (Qwen2.5-VL-7B); nothing more by `pipeline_judge`",
    ),
    Family(
        name="hpsv3",
        model="hpsv3, hpsv3:FOLDER or hpsv3:OWNER/NAME",
        scores="which picture of a prompt people prefer; no fixed range",
        needs_prompt=True,
        licence="MIT",
        size="16.5 GB",
        detects=lambda facts: False,
        load=_module(".judges.hpsv3"),
        by_name=True,
        repository="MizzenAI/HPSv3",
        agreement="preference accuracy 66.8 (ImageReward's set), 72.8 (Pick-a-Pic), 85.4 (HPDv2), 76.9 (HPDv3)",
        memory="17 GB in bfloat16, 7 GB in nf4",
        files=("HPSv3.safetensors",),
    ),
    Family(
        name="deqa",
        model="deqa, deqa:FOLDER or deqa:OWNER/NAME",
        scores="technical quality, 1 to 5",
        needs_prompt=False,
        licence="MIT",
        size="16.4 GB",
        detects=lambda facts: False,
        load=_module(".judges.deqa"),
        by_name=True,
        repository="zhiyuanyou/DeQA-Score-Mix3",
        agreement="KonIQ: .94 (You et al. 2025)",
        memory="16.1 GB in bfloat16, 4.9 GB in nf4",
    ),
    Family(
        name="qalign",
        model="qalign, qalign:FOLDER or qalign:OWNER/NAME",
        scores="quality or aesthetics (target), 0 to 1",
        needs_prompt=False,
        licence="see the model's page; its code: S-Lab License 1.0, non-commercial",
        size="16.4 GB",
        detects=lambda facts: False,
        load=_module(".judges.qalign"),
        by_name=True,
        repository="q-future/one-align",
        agreement="generated pictures: SRCC .738 (Q-ReAlign's authors)",
        memory="16.1 GB in bfloat16, 4.9 GB in nf4",
    ),
)


def family_of(facts: Mapping[str, str]) -> Family | None:
    """The family of a model, by what its files say: see `Family.detects`."""
    return next((family for family in FAMILIES if family.detects(facts)), None)


def family_of_folder(folder: Path) -> Family | None:
    """The family whose model a folder is: by its files' names, by its config.json, or by the name of the folder that
    it is in, as in imagereward/MINE; None for a folder of anything else."""
    from ..model_files.transformers_folder import complete_kind

    by_files = (family for family in FAMILIES if any((folder / name).is_file() for name in family.files))
    if (family := next(by_files, None)) is not None:
        return family
    if (kind := complete_kind(folder)) is None:
        return None
    by_place = (family for family in FAMILIES if family.by_name and family.name == folder.parent.name)
    return family_of({"model_type": kind}) or next(by_place, None)


def named_family(model: str) -> Family | None:
    """The family that a `model` for `load_scorer` names; None for files and Hub ids."""
    return next((family for family in FAMILIES if family.names(model)), None)
