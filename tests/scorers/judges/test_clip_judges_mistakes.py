"""What a user can get wrong with ImageReward, HPSv2 and the aesthetic predictors: a sentence with the file in it."""

import logging
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import clip_judges
import numpy as np
import pytest
import torch

from ma_agiqa_core import MaAgiqaError, PictureError, load_scorer
from ma_agiqa_core.scorers.judges import prompt_tokens
from ma_agiqa_core.scorers.judges.convert import convert_judge, judge_of

COMMIT = "0123456789abcdef0123456789abcdef01234567"
Folders = dict[str, Path]
WRITERS = {
    "imagereward": clip_judges.write_imagereward,
    "hpsv2": clip_judges.write_hpsv2,
    "laion-aesthetic": clip_judges.write_laion,
    "aesthetic-v2.5": clip_judges.write_aesthetic_v2_5,
}
FILES = {
    "imagereward": "ImageReward.pt",
    "hpsv2": "HPS_v2.1_compressed.pt",
    "laion-aesthetic": "sac+logos+ava1-l14-linearMSE.pth",
    "aesthetic-v2.5": "aesthetic_predictor_v2_5.pth",
}


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Folders:
    place = tmp_path_factory.mktemp("judges")
    return {name: write(place / name) for name, write in WRITERS.items()}


@pytest.fixture
def copy_of(folders: Folders, tmp_path: Path) -> Callable[[str], Path]:
    return lambda name: Path(shutil.copytree(folders[name], tmp_path / name))


def test_the_published_names_are_found(folders: Folders) -> None:
    assert all((folder / FILES[name]).is_file() for name, folder in folders.items())


@pytest.mark.parametrize("name", WRITERS)
def test_another_familys_checkpoint_is_refused(name: str, folders: Folders, copy_of: Callable[[str], Path]) -> None:
    folder = copy_of(name)
    other = "hpsv2" if name == "imagereward" else "imagereward"
    shutil.copy(folders[other] / FILES[other], folder / FILES[name])
    with pytest.raises(MaAgiqaError, match=rf"{name}.*got .*another family's checkpoint"):
        load_scorer(f"{name}:{folder}", device="cpu")


@pytest.mark.parametrize("name", WRITERS)
@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"weights": Path("a")}, "it needs pathlib"),
        ({"state_dict": {"a": torch.ones(1), "b": 3}}, "got int under 'b'"),
        ({"a": torch.ones(1), "notes": {"b": 3}}, "got dict under 'notes'"),
        (torch.ones(3), "got Tensor"),
    ],
)
def test_anything_but_tensors_is_refused(name: str, content: Any, message: str, copy_of: Callable[[str], Path]) -> None:
    folder = copy_of(name)
    torch.save(content, folder / FILES[name])
    with pytest.raises(MaAgiqaError, match=message) as refused:
        load_scorer(f"{name}:{folder}", device="cpu")
    assert str(folder / FILES[name]) in str(refused.value)


@pytest.mark.parametrize("name", WRITERS)
def test_a_damaged_file_is_refused(name: str, copy_of: Callable[[str], Path]) -> None:
    file = copy_of(name) / FILES[name]
    file.write_bytes(file.read_bytes()[:1000])
    with pytest.raises(MaAgiqaError, match=r"Expected a whole file of weights|Expected a pickle of tensors"):
        load_scorer(f"{name}:{file.parent}", device="cpu")


@pytest.mark.parametrize("name", WRITERS)
def test_weights_that_are_not_finite_are_refused(name: str, copy_of: Callable[[str], Path]) -> None:
    file = copy_of(name) / FILES[name]
    table = torch.load(file, weights_only=True)
    weights = table.get("state_dict", table)
    next(tensor for tensor in reversed(weights.values()) if tensor.is_floating_point()).fill_(float("nan"))
    torch.save(table, file)
    with pytest.raises(MaAgiqaError, match="not finite"):
        load_scorer(f"{name}:{file.parent}", device="cpu")


@pytest.mark.parametrize(("name", "file"), [("imagereward", "vocab.txt"), ("hpsv2", "vocab.json")])
def test_a_missing_tokenizer_is_named(name: str, file: str, copy_of: Callable[[str], Path]) -> None:
    folder = copy_of(name)
    (folder / file).unlink()
    with pytest.raises(FileNotFoundError, match=r"Expected a tokenizer .*run `hf download .*copy it into the folder"):
        load_scorer(f"{name}:{folder}", device="cpu", local_files_only=True)


def test_special_tokens_that_are_no_single_ids_are_refused(copy_of: Callable[[str], Path]) -> None:
    folder = copy_of("imagereward")
    words = (folder / "vocab.txt").read_text(encoding="utf-8").splitlines()
    (folder / "vocab.txt").write_text("\n".join(["[new]", *words]), encoding="utf-8")
    with pytest.raises(MaAgiqaError, match=r"'\[PAD\]' to be the token 0 .*got"):
        load_scorer(f"imagereward:{folder}", device="cpu")


@pytest.mark.parametrize("name", ["imagereward", "hpsv2"])
def test_a_long_prompt_is_cut_and_the_log_says_so_once(
    name: str, folders: Folders, caplog: pytest.LogCaptureFixture
) -> None:
    scorer = load_scorer(f"{name}:{folders[name]}", device="cpu")
    limit = scorer.tokens.limit  # type: ignore[attr-defined]
    picture = clip_judges.waves(1, 64, 64)
    with caplog.at_level(logging.WARNING, logger=prompt_tokens.__name__):
        cut = scorer.score([picture, picture], "cat " * 100)
        longer = scorer.score(picture, "cat " * 200)
        scorer.score(picture, "cat " * 100)
    torch.testing.assert_close(cut[0], cut[1])
    torch.testing.assert_close(longer[0], cut[0])
    first, second = (record.getMessage() for record in caplog.records)
    assert f"reads the first {limit} of the 102 tokens" in first
    assert f"reads the first {limit} of the 202 tokens" in second


@pytest.mark.parametrize("name", ["imagereward", "hpsv2"])
def test_prompts_are_needed(name: str, folders: Folders) -> None:
    scorer = load_scorer(f"{name}:{folders[name]}", device="cpu")
    pictures = [clip_judges.waves(seed, 64, 64) for seed in (1, 2)]
    with pytest.raises(MaAgiqaError, match="Expected prompts, got None"):
        scorer.score(pictures)
    scores = scorer.score(pictures, ["a cat", "half \ud83d"], on_error="nan")
    assert scores.isnan().tolist() == [False, True]


@pytest.mark.parametrize(
    ("name", "shape", "message"),
    [
        ("hpsv2", (1, 3000), "3000 × 1 pixels, too narrow"),
        ("imagereward", (2, 3000), "3000 × 2 pixels, and sides may differ 200 times"),
        ("laion-aesthetic", (3000, 2), "2 × 3000 pixels, and sides may differ 200 times"),
    ],
)
def test_a_picture_that_cannot_be_made_ready_has_a_reason(
    name: str, shape: tuple[int, int], message: str, folders: Folders
) -> None:
    scorer = load_scorer(f"{name}:{folders[name]}", device="cpu")
    strip, whole = np.zeros((*shape, 3), np.uint8), clip_judges.waves(1, 30, 40)
    prompt = "a cat" if scorer.info.needs_prompt else None
    assert scorer.score([whole, strip, whole], prompt, on_error="nan").isnan().tolist() == [False, True, False]
    with pytest.raises(PictureError, match=message):
        scorer.score([whole, strip], prompt)


@pytest.mark.parametrize("name", WRITERS)
def test_an_overflow_of_half_precision_is_a_reason(name: str, copy_of: Callable[[str], Path]) -> None:
    folder = copy_of(name)
    scorer = load_scorer(f"{name}:{folder}", device="cpu", dtype="float16")
    for module in scorer.network.modules():  # type: ignore[attr-defined]
        if isinstance(module, torch.nn.Conv2d):
            module.weight.fill_(6e4)
    prompt = "a cat" if scorer.info.needs_prompt else None
    with pytest.raises(PictureError, match="its score is nan: use dtype 'float32'"):
        scorer.score(clip_judges.waves(1, 64, 64), prompt)


@pytest.mark.parametrize("name", WRITERS)
def test_options_that_do_not_apply_are_refused(name: str, folders: Folders) -> None:
    for option, value in (("semantic", "owl"), ("quantization", "int8"), ("device_map", "auto")):
        with pytest.raises(MaAgiqaError, match=f"Expected no {option}="):
            load_scorer(f"{name}:{folders[name]}", device="cpu", **{option: value})  # type: ignore[arg-type]
    with pytest.raises(MaAgiqaError, match=r"Expected a target of .*got 'colour'"):
        load_scorer(f"{name}:{folders[name]}", device="cpu", target="colour")


@pytest.mark.parametrize("name", WRITERS)
def test_the_revision_of_a_folder_is_its_fingerprint(name: str, folders: Folders) -> None:
    revision = load_scorer(f"{name}:{folders[name]}", device="cpu").info.revision
    assert load_scorer(f"{name}:{folders[name]}@{revision}", device="cpu").info.revision == revision
    assert load_scorer(f"{name}:{folders[name]}", revision=revision, device="cpu").info.revision == revision
    with pytest.raises(MaAgiqaError, match=f"Expected revision 'abc', got '{revision}'"):
        load_scorer(f"{name}:{folders[name]}@abc", device="cpu")
    with pytest.raises(MaAgiqaError, match=f"Expected one revision of .*got 'abc' and '{revision}'"):
        load_scorer(f"{name}:{folders[name]}@abc", revision=revision, device="cpu")


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ("imagereward", "Expected 'THUDM/ImageReward'.*hf download THUDM/ImageReward"),
        ("imagereward@v1", "Expected 'THUDM/ImageReward' at revision 'v1'"),
        ("hpsv2", "Expected 'xswu/HPSv2'"),
        ("hpsv2:owner/mine@abc", "Expected 'owner/mine' at revision 'abc'"),
        ("laion-aesthetic", "Expected 'trl-lib/ddpo-aesthetic-predictor'"),
        ("hpsv2:./nowhere", "no such file or folder"),
    ],
)
def test_without_a_network_it_says_what_to_download(model: str, message: str) -> None:
    with pytest.raises(FileNotFoundError, match=message):
        load_scorer(model, device="cpu", local_files_only=True)


def in_hub_cache(cache: Path, repository: str, source: Path, names: tuple[str, ...]) -> None:
    folder = cache / f"models--{repository.replace('/', '--')}"
    snapshot = folder / "snapshots" / COMMIT
    snapshot.mkdir(parents=True)
    (folder / "refs").mkdir()
    (folder / "refs" / "main").write_text(COMMIT)
    for name in names:
        shutil.copy(source / name, snapshot)


def test_published_repositories_in_the_hubs_cache(
    folders: Folders, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    clip = ("vocab.json", "merges.txt")
    for repository, family, names in (
        ("THUDM/ImageReward", "imagereward", ("ImageReward.pt", "med_config.json", "config.json")),
        ("google-bert/bert-base-uncased", "imagereward", ("vocab.txt",)),
        ("xswu/HPSv2", "hpsv2", ("HPS_v2.1_compressed.pt", "open_clip_config.json")),
        ("laion/CLIP-ViT-H-14-laion2B-s32B-b79K", "hpsv2", clip),
        ("openai/clip-vit-large-patch14", "laion-aesthetic", ("config.json", "model.safetensors")),
        ("trl-lib/ddpo-aesthetic-predictor", "laion-aesthetic", (FILES["laion-aesthetic"],)),
        ("google/siglip-so400m-patch14-384", "aesthetic-v2.5", ("config.json", "model.safetensors")),
    ):
        in_hub_cache(tmp_path, repository, folders[family], names)
    head = shutil.copy(folders["aesthetic-v2.5"] / FILES["aesthetic-v2.5"], tmp_path)
    picture = clip_judges.waves(3, 60, 50)
    for family, model in [*((name, name) for name in WRITERS if name != "aesthetic-v2.5"), ("aesthetic-v2.5", head)]:
        local = load_scorer(f"{family}:{folders[family]}", device="cpu")
        named = model if model == family else f"{family}:{model}"
        published = load_scorer(named, device="cpu", local_files_only=True)
        prompt = "a cat" if local.info.needs_prompt else None
        assert published.info == local.info
        assert published.score(picture, prompt) == local.score(picture, prompt)
        if model == family:
            assert load_scorer(f"{family}@{COMMIT}", device="cpu", local_files_only=True).info == local.info


@pytest.mark.parametrize("model", ["aesthetic-v2.5", "aesthetic-v2.5:owner/mine", "aesthetic-v2.5:"])
def test_the_agpl_head_is_never_fetched(model: str) -> None:
    with pytest.raises(MaAgiqaError, match=r"Expected the file aesthetic_predictor_v2_5.pth that you bring.*AGPL-3\.0"):
        load_scorer(model, device="cpu")


@pytest.mark.parametrize("name", ["laion-aesthetic", "aesthetic-v2.5"])
def test_a_head_without_its_tower_says_where_it_is(name: str, copy_of: Callable[[str], Path]) -> None:
    folder = copy_of(name)
    (folder / "config.json").unlink()
    with pytest.raises(FileNotFoundError, match=f"Expected the tower of {name} .*hf download"):
        load_scorer(f"{name}:{folder / FILES[name]}", device="cpu", local_files_only=True)


def test_a_head_of_another_width_is_refused(copy_of: Callable[[str], Path]) -> None:
    folder = copy_of("laion-aesthetic")
    head = {"layers.0.weight": torch.ones(1, 5), "layers.0.bias": torch.ones(1)}
    torch.save(head, folder / FILES["laion-aesthetic"])
    with pytest.raises(MaAgiqaError, match=r"got one for 5 in .*trained together"):
        load_scorer(f"laion-aesthetic:{folder}", device="cpu")


@pytest.mark.parametrize("name", WRITERS)
def test_a_converted_file_scores_the_same(name: str, folders: Folders, tmp_path: Path) -> None:
    out = tmp_path / "mine" / "converted.safetensors"
    out.parent.mkdir()
    assert convert_judge(folders[name] / FILES[name], out) == name
    for other in folders[name].iterdir():
        if other.name != FILES[name] and not (name == "imagereward" and other.suffix == ".json"):
            shutil.copy(other, out.parent)
    picture, prompt = clip_judges.waves(2, 50, 60), "a cat" if name in ("imagereward", "hpsv2") else None
    expected = load_scorer(f"{name}:{folders[name]}", device="cpu").score(picture, prompt)
    for model in (f"{name}:{out}", out):
        scorer = load_scorer(model, device="cpu")
        assert scorer.score(picture, prompt) == expected


def test_other_files_are_no_judges(tmp_path: Path) -> None:
    torch.save({"conv.weight": torch.ones(1)}, tmp_path / "other.pt")
    assert convert_judge(tmp_path / "other.pt", tmp_path / "out.safetensors") is None
    assert not (tmp_path / "out.safetensors").exists()
    assert judge_of({"layers.0.weight": torch.ones(1)}) is None
    with pytest.raises(MaAgiqaError, match=r"ends in \.safetensors"):
        convert_judge(tmp_path / "other.pt", tmp_path / "out.pt")
