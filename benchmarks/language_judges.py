"""Vision-language judges beside their published flows; part of `python -m benchmarks.judges`.

The published flow sees one picture with one question at a time: its own preprocessing, the whole prompt, logits of the
whole vocabulary at every position (as the transformers of their pins computes them; HPSv3's head likewise). Ours is the
judge itself, from decoded pictures to scores, with the same random weights; its scores are compared. What ours reads
once per run, the text before the picture, is read before the clock starts.
"""

from __future__ import annotations

import copy
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import PIL.Image
import torch
from torch import Tensor, nn

from ma_agiqa_core.preprocess import ClipPreprocessing
from ma_agiqa_core.scorers.judges.deqa import DeqaScorer
from ma_agiqa_core.scorers.judges.held_reader import HeldReader
from ma_agiqa_core.scorers.judges.hpsv3 import HpsV3Scorer, Reward, enlarged
from ma_agiqa_core.scorers.judges.hpsv3_instruction import INSTRUCTION, PROMPT, REWARD_TOKEN
from ma_agiqa_core.scorers.judges.levels import LEVELS, LevelJudge
from ma_agiqa_core.scorers.judges.mrope import plain_positions
from ma_agiqa_core.scorers.judges.owl_reader import OwlReader
from ma_agiqa_core.scorers.judges.qalign import QAlignScorer
from ma_agiqa_core.scorers.judges.qrealign import QUESTIONS, QRealignScorer
from ma_agiqa_core.scorers.judges.qwen_prompt import resized_by_pillow
from ma_agiqa_core.scorers.judges.qwen_reader import QwenReader
from ma_agiqa_core.scorers.judges.readouts import LogProbability, TokenLogits
from ma_agiqa_core.scorers.judges.vqascore import QUESTION, VqaScorer
from ma_agiqa_core.scorers.scorer import ScorerInfo
from ma_agiqa_core.semantic.decoder import OwnDecoder
from ma_agiqa_core.semantic.published_mplug_owl2 import PublishedMplugOwl2

from .plain_mplug_owl2 import PlainOwl
from .random_qwen import SYSTEM, processor, random_qwen, word_tokenizer
from .semantic import _config as owl_config
from .semantic import random_owl

ONE_BAR, TWO_BAR = 1.5, 2.0  # times faster at batch 8: with one question, with two about each picture
CPU, F32 = torch.device("cpu"), torch.float32
PROMPTS = [
    "a red bicycle leaning against a brick wall, golden hour, detailed",
    "an old fisherman with a white beard in a yellow coat, portrait, sharp focus",
]
REDUCED_OWL = owl_config(vision=(128, 6, 4), abstractor=(4, 352), language=(512, 8, 8, 1376, 2400))
FIXTURE_OWL = owl_config(vision=(32, 2, 4), abstractor=(4, 48), language=(64, 3, 4, 112, 32000))
SIDES = {"fixture": 224, "reduced": 336}  # of a picture


@dataclass
class Pair:
    """A published flow and ours, both from decoded pictures to scores."""

    name: str
    plain: Callable[[], list[float]]
    ours: Callable[[], list[float]]
    seconds: dict[str, list[float]] = field(default_factory=lambda: {"plain": [], "ours": []})

    def run(self, turns: int) -> str:
        expected, got = self.plain(), self.ours()  # what is kept for a run is kept now
        for _ in range(turns):
            for name in ("plain", "ours"):
                start = time.perf_counter()
                getattr(self, name)()
                self.seconds[name].append(time.perf_counter() - start)
        ratios = [plain / ours for plain, ours in zip(self.seconds["plain"], self.seconds["ours"], strict=True)]
        spread = max(float(np.std(expected)), 1e-12)
        apart = max(abs(a - b) for a, b in zip(expected, got, strict=True)) / spread
        rows = len(expected)
        per = {name: statistics.median(seconds) / rows * 1e3 for name, seconds in self.seconds.items()}
        return (
            f"| {self.name} | {per['plain']:.1f} | {per['ours']:.1f} | {statistics.median(ratios):.2f} "
            f"({min(ratios):.2f}–{max(ratios):.2f}) | {apart:.1e} |"
        )

    @property
    def ratio(self) -> float:
        pairs = zip(self.seconds["plain"], self.seconds["ours"], strict=True)
        return statistics.median(plain / ours for plain, ours in pairs)


def run(scale: str, batch: int, turns: int) -> None:
    """Prints the tables."""
    for one in ("fixture", "reduced") if scale == "both" else (scale,):
        print(
            f"\n### Vision-language judges, {one} scale\n\nCPU, float32, one thread, batch {batch}, pictures of "
            f"{SIDES[one]} px, medians of {turns} interleaved turns. Two: two aspects, or two prompts, a picture.\n"
        )
        print("| judge | published, ms per score | ours, ms per score | times faster | difference, spreads |")
        print("|---|---|---|---|---|")
        met = []
        for asked, bar in ((1, ONE_BAR), (2, TWO_BAR)):
            for make in (deqa, qalign, qrealign, vqascore, hpsv3):
                if asked == 2 and make is deqa:
                    continue
                pair = make(one, batch, asked)
                print(pair.run(turns), flush=True)
                met.append((pair.name, pair.ratio, bar))
        for name, ratio, bar in met:
            print(f"\nBar for {name}, at least {bar}: {ratio:.2f}, {'met' if ratio >= bar else 'MISSED'}.", end="")
        print()
    from .language_judge_flops import flops_table, weights_table

    print(flops_table(batch))
    print(weights_table())


# ------------------------------------------------------------------------------------------------------- mPLUG-Owl2
def deqa(scale: str, batch: int, asked: int) -> Pair:
    return _owl("DeQA-Score", DeqaScorer, ["quality"], scale, batch)


def qalign(scale: str, batch: int, asked: int) -> Pair:
    targets = ["quality", "aesthetics"][:asked]
    return _owl(f"Q-Align{', two' if asked == 2 else ''}", QAlignScorer, targets, scale, batch)


def _owl(name: str, judge: type[LevelJudge], targets: list[str], scale: str, batch: int) -> Pair:
    config = FIXTURE_OWL if scale == "fixture" else REDUCED_OWL
    network = random_owl(config, CPU, F32)
    head = torch.randn(config["vocab_size"], config["hidden_size"], generator=torch.Generator().manual_seed(0))
    weights = {f"model.{key}": parameter.data for key, parameter in network.named_parameters()}
    plain = PlainOwl(config, weights | {"lm_head.weight": head}, fused=True)
    owl = PublishedMplugOwl2(network, ClipPreprocessing(448), _letters_to_ids(config), 1, device=CPU, dtype=F32)
    ids = list(range(10, 15))
    scorer: Any = judge(_held(OwlReader(owl, head[ids])), _info(name, tuple(targets)))
    pictures = _pictures(batch, SIDES[scale])
    prompts = [OwlReader(owl, head[ids]).prompt_ids(scorer.question(target, None)) for target in targets]

    def published() -> list[float]:
        found = []
        for prompt in prompts:
            for picture in pictures:
                pixels = ClipPreprocessing(448)([torch.from_numpy(picture).movedim(-1, 0)], CPU, F32)
                with torch.no_grad():
                    logits, _ = plain.run(pixels, prompt)
                found.append(scorer.score_of(logits[0, -1, ids]))
        return found

    return Pair(name, published, partial(_targets, scorer, pictures, targets))


def _letters_to_ids(config: dict[str, Any]) -> Callable[[str], list[int]]:
    """About one token for four letters, as LLaMA's tokenizer makes."""
    return lambda text: [
        20 + sum(map(ord, text[at : at + 4])) % (config["vocab_size"] - 20) for at in range(0, len(text), 4)
    ]


# ------------------------------------------------------------------------------------------------------------- Qwen
def qrealign(scale: str, batch: int, asked: int) -> Pair:
    name = f"Q-ReAlign{', two' if asked == 2 else ''}"
    targets = ["quality", "aesthetics"][:asked]
    texts = [question.text + question.stem for question in QUESTIONS.values()]
    tokenizer = word_tokenizer([*texts, "user assistant", *(f" {level}" for level in LEVELS)])
    made = processor("qwen3_5", tokenizer)
    model = random_qwen("qwen3_5", scale, tokenizer)
    ids = [tokenizer(f" {level}", add_special_tokens=False)["input_ids"][0] for level in LEVELS]
    scorer: Any = QRealignScorer(_held(_reader(model, made, TokenLogits(ids))), _info(name, tuple(targets)))
    pictures = _pictures(batch, SIDES[scale])

    def published() -> list[float]:
        found = []
        for target in targets:
            question = QUESTIONS[target]
            stem = tokenizer(question.stem, add_special_tokens=False, return_tensors="pt")["input_ids"]
            for picture in pictures:
                inputs = _prompted(made, PIL.Image.fromarray(picture), question.text)
                inputs["input_ids"] = torch.cat([inputs["input_ids"], stem], 1)
                inputs["attention_mask"] = torch.ones_like(inputs["input_ids"])
                types = torch.zeros_like(inputs["input_ids"])
                types[:, : inputs["mm_token_type_ids"].shape[1]] = inputs["mm_token_type_ids"]
                with torch.no_grad():
                    logits = model(**{**inputs, "mm_token_type_ids": types}).logits
                found.append(scorer.score_of(logits[0, -1, ids].float()))
        return found

    return Pair(name, published, partial(_targets, scorer, pictures, targets))


def vqascore(scale: str, batch: int, asked: int) -> Pair:
    name = f"VQAScore by a Qwen2.5-VL{', two' if asked == 2 else ''}"
    prompts = PROMPTS[:asked]
    tokenizer = word_tokenizer(
        [SYSTEM, "user assistant Yes", *(QUESTION.replace("{prompt}", text) for text in prompts)]
    )
    made = processor("qwen2_5_vl", tokenizer)
    model = random_qwen("qwen2_5_vl", scale, tokenizer)
    yes = tokenizer("Yes", add_special_tokens=False)["input_ids"][0]
    resize = partial(resized_by_pillow, factor=28, least=3136, most=12845056)
    scorer = VqaScorer(
        _held(_reader(model, made, LogProbability(yes), resize=resize)), _info(name, ("alignment",), True)
    )
    pictures = _pictures(batch, SIDES[scale])

    def published() -> list[float]:
        found = []
        for prompt in prompts:
            for picture in pictures:
                image = resize(PIL.Image.fromarray(picture))
                inputs = _prompted(made, image, scorer.question(None, prompt).text)
                with torch.no_grad():
                    logits = model(**inputs).logits
                found.append(float(torch.softmax(logits[0, -1].float(), -1)[yes]))
        return found

    return Pair(name, published, partial(_prompts, scorer, pictures, prompts))


def hpsv3(scale: str, batch: int, asked: int) -> Pair:
    name = f"HPSv3{', two' if asked == 2 else ''}"
    prompts = PROMPTS[:asked]
    tokenizer = word_tokenizer([SYSTEM, "user assistant", *(INSTRUCTION.replace(PROMPT, text) for text in prompts)])
    tokenizer.add_special_tokens({"additional_special_tokens": [REWARD_TOKEN]})
    reward = tokenizer.convert_tokens_to_ids(REWARD_TOKEN)
    made = processor("qwen2_vl", tokenizer)
    model = random_qwen("qwen2_vl", scale, tokenizer)
    width = model.config.get_text_config().hidden_size
    head = nn.Sequential(nn.Linear(width, 1024), nn.ReLU(), nn.Linear(1024, 16), nn.ReLU(), nn.Linear(16, 2))
    model.lm_head = head
    reader = _reader(model, made, Reward(), resize=enlarged, position_rule=plain_positions, until=reward)
    scorer = HpsV3Scorer(_held(reader), _info(name, ("preference",), True))
    pictures = _pictures(batch, SIDES[scale])

    def published() -> list[float]:
        found = []
        for prompt in prompts:
            for picture in pictures:
                inputs = _prompted(made, enlarged(PIL.Image.fromarray(picture)), scorer.question(None, prompt).text)
                places = torch.arange(inputs["input_ids"].shape[1]).expand(3, 1, -1)
                with torch.no_grad():
                    rewards = model(**inputs, position_ids=places).logits
                found.append(float(rewards[0, inputs["input_ids"][0].tolist().index(reward), 0]))
        return found

    return Pair(name, published, partial(_prompts, scorer, pictures, prompts))


def _reader(model: Any, made: Any, readout: Any, **options: Any) -> QwenReader:
    """Over a copy: its LM head is taken out of the way."""
    return QwenReader(
        OwnDecoder(copy.deepcopy(model), keeps_head=True), made, readout, device=CPU, dtype=F32, **options
    )


def _prompted(made: Any, image: PIL.Image.Image, text: str) -> dict[str, Tensor]:
    chat = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": text}]}]
    rendered = made.apply_chat_template(chat, add_generation_prompt=True, tokenize=False)
    return dict(made(images=[image], text=[rendered], return_tensors="pt"))


# ----------------------------------------------------------------------------------------------------------- shared
def _held(reader: Any) -> HeldReader:
    return HeldReader(reader, "random", device=CPU, dtype=F32)


def _info(name: str, targets: tuple[str, ...], needs_prompt: bool = False) -> ScorerInfo:
    return ScorerInfo(
        name, "0", -1e9, 1e9, "random numbers", needs_prompt=needs_prompt, targets=targets, target=targets[0]
    )


def _targets(scorer: Any, pictures: list[np.ndarray], targets: list[str]) -> list[float]:
    found = scorer.score_targets(pictures, targets, batch_size=len(pictures))
    return [score for target in targets for score in found[target].tolist()]


def _prompts(scorer: Any, pictures: list[np.ndarray], prompts: list[str]) -> list[float]:
    texts = [prompt for prompt in prompts for _ in pictures]
    return scorer.score(pictures * len(prompts), texts, batch_size=len(pictures)).tolist()


def _pictures(count: int, side: int) -> list[np.ndarray]:
    """Blocks of colour under noise, each picture brighter than the one before, or random weights see all alike."""
    random = np.random.default_rng(0)
    found = []
    for place in range(count):
        blocks = random.integers(0, 256, (8, 8, 3)).repeat(side // 8, 0).repeat(side // 8, 1)
        noise = random.integers(-20, 21, (side, side, 3))
        share = (place + 1) / count
        found.append(np.clip(share * blocks + noise, 0, 255).astype(np.uint8))
    return found
