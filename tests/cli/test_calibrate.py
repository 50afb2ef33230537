"""`ma-agiqa calibrate` on a tiny pipeline in a folder: what it prints and writes, and a user's mistakes."""

import json
import shutil
from pathlib import Path
from types import ModuleType

import PIL.Image
import pytest
import torch

from ma_agiqa_core import cli, load_scorer
from ma_agiqa_core.generation.calibration import measure as calibration
from ma_agiqa_core.generation.pipelines import loading as pipeline_files
from ma_agiqa_core.generation.pipelines.loading import load_pipeline


@pytest.fixture(scope="module")
def pipeline_folder(tiny_pipelines: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pipelines") / "tiny-sd"
    tiny_pipelines.pipeline("sd").save_pretrained(folder)
    return folder


@pytest.fixture
def command(capsys, tmp_path, monkeypatch, pipeline_folder):
    """Runs `ma-agiqa calibrate` in a folder with prompts.txt of two prompts."""
    monkeypatch.chdir(tmp_path)
    Path("prompts.txt").write_text("\ufeffa red cube\n\n  two cats \n", encoding="utf-8")

    def run(
        *arguments: object, pipeline: object = pipeline_folder, prompts: object = "prompts.txt"
    ) -> tuple[int, str, str]:
        small = ("--width", 16, "--height", 16, "--device", "cpu", "--n", 3, "--steps", 4)
        line = ["calibrate", pipeline, "--prompts", prompts, *small, *arguments]
        code = cli.run([str(argument) for argument in line])
        output = capsys.readouterr()
        return code, output.out, output.err

    return run


def test_the_table_and_the_files(command, pipeline_folder):
    code, out, err = command("--out", "report.json", "--plot", "curves.png", "--guidance", 2, "--seed", 5)
    assert code == 0, err
    lines = out.splitlines()
    assert lines[0].startswith("StableDiffusionPipeline with DDIMScheduler, 4 steps: 2 prompts, best of 3 by lite@")
    assert "for 24 network evaluations." in lines[1]
    assert sum("(step " in line for line in lines) == 7
    assert "Recommended: " in out
    assert "Only 2 prompts" in lines[-1]
    assert "Written: report.json, curves.png" in err
    report = json.loads(Path("report.json").read_text(encoding="utf-8"))
    assert report["prompts"] == ["a red cube", "two cats"]
    assert report["setting"]["seed"] == 5
    assert report["setting"]["arguments"] == {
        "num_inference_steps": 4,
        "guidance_scale": 2.0,
        "width": 16,
        "height": 16,
    }
    assert PIL.Image.open("curves.png").format == "PNG"
    direct = calibration.calibrate(
        load_pipeline(str(pipeline_folder), device=torch.device("cpu"), dtype=torch.float32),
        load_scorer("lite", device="cpu"),
        ["a red cube", "two cats"],
        n=3,
        seed=5,
        num_inference_steps=4,
        guidance_scale=2.0,
        width=16,
        height=16,
    )
    assert report["scores"]["final"] == [pytest.approx(row, abs=1e-3) for row in direct.measured.final.tolist()]


def test_json_alone_on_stdout(command, tiny_models, tmp_path):
    clip = tiny_models.write_clip(tmp_path / "tiny-clip")
    code, out, err = command("--json", "--model", f"clip:{clip}", "--observe", "lite", "--target-share", 0.5)
    assert code == 0, err
    report = json.loads(out)
    assert report["setting"]["scorer"].startswith("clipscore(tiny-clip)@")
    assert report["setting"]["observer"].startswith("lite@")
    assert report["setting"]["target_share"] == 0.5
    assert report["observed_best"] is not None


@pytest.mark.parametrize(
    ("arguments", "changes", "message"),
    [
        (("--n", 1), {}, "'--n'"),
        (("--steps", 1), {}, "'--steps'"),
        (("--target-share", 0), {}, "'--target-share'"),
        (("--target-share", 1.5), {}, "'--target-share'"),
        (("--out", "report.txt"), {}, "Expected a file ending in .json, got report.txt"),
        (("--plot", "curves.jpg"), {}, "Expected a file ending in .png, got curves.jpg"),
        (("--out", "nowhere/report.json"), {}, "Expected an existing folder for report.json, got nowhere"),
        ((), {"prompts": "absent.txt"}, "absent.txt"),
        ((), {"prompts": "empty.txt"}, "Expected prompts in empty.txt, one a line, got none"),
        ((), {"prompts": "bytes.txt"}, "Expected prompts in UTF-8, got bytes.txt"),
        ((), {"pipeline": "./absent"}, "got './absent': no such folder"),
        ((), {"pipeline": "."}, "with model_index.json in '.', got none"),
        (("--local-files-only",), {"pipeline": "owner/absent"}, "Run `hf download owner/absent`"),
        (("--model", "absent"), {}, "got 'absent'"),
        (("--device", "abacus"), {}, "got 'abacus'"),
        (("--preview", "absent"), {}, "got 'absent'"),
    ],
)
def test_mistakes_are_one_line_and_exit_code_2(command, monkeypatch, arguments, changes, message):
    Path("empty.txt").write_text("\n \n")
    Path("bytes.txt").write_bytes(b"\xff\xfe\x00")
    monkeypatch.setattr(calibration.Calibration, "_add", None)
    code, out, err = command(*arguments, **changes)
    assert (code, out) == (cli.WRONG_USAGE, "")
    assert message in err
    assert "Traceback" not in err


def test_a_damaged_pipeline_is_told_in_one_line(command, pipeline_folder, tmp_path):
    broken = Path(shutil.copytree(pipeline_folder, tmp_path / "broken"))
    (broken / "unet" / "diffusion_pytorch_model.safetensors").write_bytes(b"12345678 no weights")
    code, out, err = command(pipeline=broken)
    assert (code, out) == (cli.WRONG_USAGE, "")
    assert "Traceback" not in err
    assert str(broken) in err.splitlines()[-1]


def test_too_little_memory_is_told_in_one_line(command, monkeypatch):
    def no_memory(self, prompt, seed):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20 GiB")

    monkeypatch.setattr(calibration.Calibration, "_call", no_memory)
    code, out, err = command()
    assert (code, out) == (cli.WRONG_USAGE, "")
    assert "one candidate at a time on 'cpu', got too little. Use --dtype float16" in err
    assert "Traceback" not in err


@pytest.mark.parametrize(("finished", "written"), [(1, ["interrupted.json"]), (0, [])])
def test_an_interruption_keeps_what_is_done(command, monkeypatch, finished, written):
    add = calibration.Calibration._add
    calls = iter(range(10))

    def interrupted(self, prompt):
        if next(calls) >= finished:
            raise KeyboardInterrupt
        add(self, prompt)

    monkeypatch.setattr(calibration.Calibration, "_add", interrupted)
    code, out, err = command("--out", "interrupted.json")
    assert (code, out) == (cli.INTERRUPTED, "")
    assert f"{finished} of 2 prompts are done." in err
    assert [path.name for path in Path().glob("*.json")] == written
    if written:
        assert json.loads(Path("interrupted.json").read_text())["prompts"] == ["a red cube"]


def test_hub_ids_are_looked_for_on_this_machine_first(tiny_pipelines, pipeline_folder, tmp_path, monkeypatch):
    from huggingface_hub import constants

    commit = "c" * 40
    cached = tmp_path / "models--owner--tiny"
    shutil.copytree(pipeline_folder, cached / "snapshots" / commit)
    (cached / "refs").mkdir()
    (cached / "refs" / "main").write_text(commit)
    import diffusers.pipelines.pipeline_utils as loading

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(loading, "HF_HUB_CACHE", str(tmp_path), raising=False)
    monkeypatch.setattr(pipeline_files, "check_reachable", None)
    pipe = load_pipeline("owner/tiny", device=torch.device("cpu"), dtype=torch.bfloat16)
    assert type(pipe).__name__ == "StableDiffusionPipeline"
    assert pipe.unet.dtype == torch.bfloat16
