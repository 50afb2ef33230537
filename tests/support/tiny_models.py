"""Small random models in the layouts that real ones are published in. conftest.py makes fixtures of them."""

import io
import json
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import torch
from project_paths import FIXTURES

from ma_agiqa_core.semantic.questions import QUESTIONS, questions_for

OWL = json.loads((FIXTURES / "mplug_owl2.json").read_text(encoding="utf-8"))
SHARDS = 3


def owl_weights(intermediate_size: int = OWL["config"]["intermediate_size"]) -> dict[str, torch.Tensor]:
    """The fixture's weights; tables that the model computes are left out.

    Args:
        intermediate_size: Of the language layers; another than the fixture's gives other weights.
    """
    weights = {}
    for key, made in OWL["state_dict"].items():
        if not made.get("buffer"):
            random = np.random.RandomState(zlib.crc32(f"{OWL['seed']}:{key}".encode()))
            own = OWL["config"]["intermediate_size"]
            shape = [intermediate_size if size == own else size for size in made["shape"]]
            values = made["offset"] + made["scale"] * random.standard_normal(shape)
            weights[key] = torch.from_numpy(values).float()
    return weights


def write_tokenizer(path: Path, vocabulary: int) -> None:
    """A sentencepiece model with LLaMA's settings and few pieces."""
    import sentencepiece

    text = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter([f"USER: {question}\n ASSISTANT:" for question in QUESTIONS.values()]),
        model_writer=text,
        model_type="bpe",
        vocab_size=vocabulary,
        hard_vocab_limit=False,
        remove_extra_whitespaces=False,
        normalization_rule_name="identity",
        minloglevel=2,
        num_threads=1,
    )
    path.write_bytes(text.getvalue())


def write_owl(folder: Path, **changes: int) -> Path:
    """A small mPLUG-Owl2 as on the Hub: config, pickled shards with an index, tokenizer, preprocessing."""
    folder.mkdir(parents=True, exist_ok=True)
    config = {"model_type": "mplug_owl2", "architectures": ["MPLUGOwl2LlamaForCausalLM"], **OWL["config"], **changes}
    (folder / "config.json").write_text(json.dumps(config))
    side = config["visual_config"]["visual_model"]["image_size"]
    preprocessing = {
        "crop_size": side,
        "do_center_crop": True,
        "do_normalize": True,
        "do_resize": True,
        "feature_extractor_type": "CLIPFeatureExtractor",
        "image_mean": [0.48145466, 0.4578275, 0.40821073],
        "image_std": [0.26862954, 0.26130258, 0.27577711],
        "resample": 3,
        "size": side,
    }
    (folder / "preprocessor_config.json").write_text(json.dumps(preprocessing))
    write_tokenizer(folder / "tokenizer.model", config["vocab_size"])
    weights = owl_weights(**changes)
    weight_map: dict[str, str] = {}
    for shard in range(SHARDS):
        name = f"pytorch_model-{shard + 1}-of-{SHARDS}.bin"
        part = {key: tensor for i, (key, tensor) in enumerate(weights.items()) if i * SHARDS // len(weights) == shard}
        torch.save(part, folder / name)
        weight_map |= dict.fromkeys(part, name)
    index = {"metadata": {"total_size": sum(t.nbytes for t in weights.values())}, "weight_map": weight_map}
    (folder / "pytorch_model.bin.index.json").write_text(json.dumps(index))
    return folder


def write_checkpoint(path: Path, semantic_dim: int, targets: tuple[str, ...] = ("quality",)) -> Path:
    """A small MA-AGIQA checkpoint; scores of random pictures spread by about 0.05."""
    from ma_agiqa_core.checkpoint import CheckpointFacts, save_checkpoint
    from ma_agiqa_core.model import MaAgiqa, MaAgiqaConfig

    torch.manual_seed(0)
    config = MaAgiqaConfig(
        backbone="vit_tiny_patch16_224",
        image_size=64,
        backbone_blocks=(1, 2),
        stage_widths=(16, 8),
        swin_mlp_width=16,
        window_size=2,
        semantic_dim=semantic_dim,
        targets=targets,
    )
    facts = CheckpointFacts(
        name="tiny",
        trained_on="random numbers",
        quantiles=(-3.0, -1.0, 0.0, 1.0, 3.0),
        semantic_model="owner/owl" if semantic_dim else None,
        questions=questions_for(targets) if semantic_dim else {},
    )
    model = MaAgiqa(config)
    heads: list[Any] = [model.fusion, *model.heads.values()]
    with torch.no_grad():
        for head in heads:
            head.score.weight.mul_(30)
    save_checkpoint(model, path, facts)
    return path


def write_clip(folder: Path, *, model_type: str = "clip", seed: int = 0, **config: object) -> Path:
    """A small CLIP or SigLIP as on the Hub: config, safetensors, preprocessing, tokenizer. Reads 77 or 64 tokens.

    Args:
        folder: Is made.
        model_type: "clip" or "siglip".
        seed: Of the weights.
        config: Further entries of config.json, such as `_name_or_path`.
    """
    import transformers

    folder.mkdir(parents=True, exist_ok=True)
    tower = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2}
    is_clip = model_type == "clip"
    vocabulary = (_write_clip_tokenizer if is_clip else _write_letter_tokenizer)(folder)
    text = {**tower, "vocab_size": vocabulary, "max_position_embeddings": 77 if is_clip else 64}
    text |= {"bos_token_id": vocabulary - 2, "eos_token_id": vocabulary - 1, "pad_token_id": vocabulary - 1}
    text |= {} if is_clip else {"projection_size": 32}
    vision = {**tower, "image_size": 32, "patch_size": 8}
    torch.manual_seed(seed)
    model: Any
    if is_clip:
        model = transformers.CLIPModel(
            transformers.CLIPConfig(text_config=text, vision_config=vision, projection_dim=16)
        )
        crop = {"crop_size": {"height": 32, "width": 32}, "size": {"shortest_edge": 32}, "do_center_crop": True}
        mean, std = [0.48145466, 0.4578275, 0.40821073], [0.26862954, 0.26130258, 0.27577711]
    else:
        model = transformers.SiglipModel(transformers.SiglipConfig(text_config=text, vision_config=vision))
        crop = {"size": {"height": 32, "width": 32}}
        mean = std = [0.5, 0.5, 0.5]
    with torch.no_grad():  # random towers see all pictures alike; PickScore's scale is about 100 as well
        for weights in model.parameters():
            if weights.ndim > 1:
                weights.mul_(4)
        model.logit_scale.fill_(4.6)
        if not is_clip:
            model.logit_bias.fill_(-10.0)
    model.save_pretrained(folder)
    (folder / "config.json").write_text(json.dumps(json.loads((folder / "config.json").read_text()) | config))
    name = "CLIPImageProcessor" if is_clip else "SiglipImageProcessor"
    preprocessing = {"image_processor_type": name, "do_resize": True, "do_normalize": True, "resample": 3, **crop}
    preprocessing |= {"do_rescale": True, "rescale_factor": 1 / 255, "image_mean": mean, "image_std": std}
    (folder / "preprocessor_config.json").write_text(json.dumps(preprocessing))
    return folder


def _write_clip_tokenizer(folder: Path) -> int:
    """CLIP's tokenizer without merges, one token a byte; the number of its tokens."""
    from tokenizers.pre_tokenizers import ByteLevel

    letters = sorted(ByteLevel.alphabet())
    tokens = [*letters, *(f"{letter}</w>" for letter in letters), "<|startoftext|>", "<|endoftext|>"]
    (folder / "vocab.json").write_text(json.dumps({token: i for i, token in enumerate(tokens)}), encoding="utf-8")
    (folder / "merges.txt").write_text("#version: 0.2\n")
    special = {"bos_token": tokens[-2], "eos_token": tokens[-1], "unk_token": tokens[-1], "pad_token": tokens[-1]}
    settings = {"tokenizer_class": "CLIPTokenizer", "model_max_length": 77, **special}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    (folder / "special_tokens_map.json").write_text(json.dumps(special))
    return len(tokens)


def _write_letter_tokenizer(folder: Path) -> int:
    """A tokenizer of letters in tokenizer.json, as SigLIP 2 has one; the number of its tokens."""
    import string

    from tokenizers import Regex, Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    tokens = ["<unk>", *string.ascii_lowercase, " ", "<s>", "</s>"]
    tokenizer = Tokenizer(models.WordLevel({token: i for i, token in enumerate(tokens)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex("."), "isolated")
    tokenizer.post_processor = processors.TemplateProcessing("$A </s>", special_tokens=[("</s>", len(tokens) - 1)])
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        unk_token="<unk>",
        bos_token="<s>",
        eos_token="</s>",
        pad_token="</s>",
        model_max_length=64,
        model_input_names=["input_ids"],
    ).save_pretrained(folder)
    return len(tokens)


def write_student(path: Path) -> Path:
    """A small scorer of random weights, as `ma-agiqa distill` writes them."""
    from safetensors.torch import load_file, save_file

    from ma_agiqa_core.scorers.lite import LITE_WEIGHTS
    from ma_agiqa_core.scorers.lite.network import LiteNetwork
    from ma_agiqa_core.scorers.lite.student import StudentNetwork

    network = StudentNetwork(LiteNetwork.from_state_dict(load_file(LITE_WEIGHTS)))
    network.weight.copy_(torch.randn(len(network.weight), generator=torch.Generator().manual_seed(0)) / 10)
    metadata = {"ma_agiqa.format": "1", "ma_agiqa.kind": "lite", "ma_agiqa.network": "student", "ma_agiqa.name": "tiny"}
    save_file(network.state_dict(), path, metadata | {"ma_agiqa.low": "-9", "ma_agiqa.high": "9"})
    return path


def write_learned(path: Path, features: str = "lite") -> Path:
    """A learned scorer of random weights, as `ma-agiqa learn` writes them."""
    from ma_agiqa_core.scorers.learned import LearnedFacts, LearnedScorer, Taste
    from ma_agiqa_core.scorers.picture_features.load import load_features
    from ma_agiqa_core.scorers.prior import load_prior

    cpu = torch.device("cpu")
    described_by = load_features(features, cpu)
    prior = load_prior("lite", described_by, cpu)
    taste = Taste(sum(described_by.parts.values()))
    taste.weight.copy_(torch.randn(len(taste.weight), generator=torch.Generator().manual_seed(0)) / 20)
    taste.deviation.fill_(1.0 if features == "lite" else 0.1)
    taste.prior_weight.fill_(0.5)
    facts = LearnedFacts(
        "tiny", described_by.source, described_by.revision, prior.name, prior.revision, "", "", (0.0, 5.0, 10.0), {}
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    LearnedScorer(taste, described_by, prior, facts).save(path)
    return path


def write_dinov2(folder: Path) -> Path:
    """A small DINOv2 as on the Hub: config, safetensors, preprocessing."""
    import transformers

    torch.manual_seed(0)
    sizes: dict[str, Any] = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "mlp_ratio": 2}
    transformers.Dinov2Model(transformers.Dinov2Config(image_size=28, patch_size=14, **sizes)).save_pretrained(folder)
    square = {"height": 28, "width": 28}
    preprocessing = {"image_processor_type": "BitImageProcessor", "do_resize": True, "size": {"shortest_edge": 28}}
    preprocessing |= {"do_center_crop": True, "crop_size": square, "do_normalize": True, "do_rescale": True}
    preprocessing |= {"image_mean": [0.485, 0.456, 0.406], "image_std": [0.229, 0.224, 0.225], "resample": 3}
    (folder / "preprocessor_config.json").write_text(json.dumps(preprocessing))
    return folder
