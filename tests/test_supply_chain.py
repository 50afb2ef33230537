"""Bundled files have licences and origins; the workflows do what the pages promise; wheels run alone."""

import fnmatch
import json
import re
import subprocess
import sys
import venv
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
WRITTEN_HERE = (".py", ".md", ".toml", ".yml", ".yaml", ".j2", ".txt", ".js", "")
IGNORED = {
    ".git",
    ".venv",
    "__pycache__",
    "build",
    "dist",
    ".mypy_cache",
    ".pytest_cache",
    ".ruff_cache",
    ".hypothesis",
}


def bundled() -> list[str]:
    """All files that are no code or text of ours, as git has them where there is git."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True)
    if listed.returncode == 0 and listed.stdout:
        names = [name for name in listed.stdout.split("\0") if name and (ROOT / name).exists()]
    else:
        paths = [path.relative_to(ROOT) for path in ROOT.rglob("*") if path.is_file()]
        names = [path.as_posix() for path in paths if not IGNORED & set(path.parts)]
    return [name for name in names if Path(name).suffix not in WRITTEN_HERE]


def test_every_bundled_file_has_an_origin_and_a_licence():
    page = (ROOT / "docs" / "bundled_files.md").read_text("utf-8")
    rows = [line.strip("|").split("|") for line in page.splitlines() if line.startswith("| `")]
    patterns = [pattern for row in rows for pattern in re.findall(r"`([^`]+)`", row[0])]
    assert all(len(row) == 4 and all(cell.strip() for cell in row) for row in rows)
    known_by_name = (".comfyignore", ".gitignore", "LICENSE", "MANIFEST.in", "ma_agiqa_core/py.typed")
    unnamed = [
        name
        for name in bundled()
        if name not in known_by_name and not any(fnmatch.fnmatch(name, pattern) for pattern in patterns)
    ]
    assert unnamed == []
    assert [pattern for pattern in patterns if not any(fnmatch.fnmatch(name, pattern) for name in bundled())] == []


def test_the_licence_is_in_the_repository():
    assert "Apache License" in (ROOT / "LICENSE").read_text("utf-8")


def test_the_workflows_are_what_the_pages_promise():
    yaml = pytest.importorskip("yaml", reason="PyYAML is not installed")
    folder = ROOT / ".github" / "workflows"
    ci = yaml.safe_load((folder / "ci.yml").read_text("utf-8"))["jobs"]
    assert {"newest", "oldest", "comfyui", "engines", "supply_chain"} <= set(ci)
    systems = {row["os"] for row in ci["newest"]["strategy"]["matrix"]["include"]}
    assert {name.partition("-")[0] for name in systems} == {"ubuntu", "macos", "windows"}
    text = (folder / "ci.yml").read_text("utf-8")
    for command in ("pip-audit", "pip-licenses", "twine check --strict", "check-wheel-contents", ".ci/oldest"):
        assert command in text, command
    release = yaml.safe_load((folder / "release.yml").read_text("utf-8"))["jobs"]
    assert release["publish"]["permissions"] == {"id-token": "write"}
    assert release["publish"]["environment"] == "pypi"
    text = (folder / "release.yml").read_text("utf-8")
    for part in ("cyclonedx-py", "SHA256SUMS", "pypa/gh-action-pypi-publish", "attest-build-provenance"):
        assert part in text, part
    assert "password:" not in text
    used = re.findall(r"uses: (\S+)", text)
    assert used
    assert [action for action in used if not re.fullmatch(r"[\w./-]+@[0-9a-f]{40}", action)] == []


@pytest.mark.long
def test_a_wheel_is_well_made_and_runs_in_a_bare_environment(tmp_path):
    """Built, checked, installed without its dependencies beside those of this environment, and run."""
    tools = tmp_path / "tools"
    venv.create(tools, with_pip=True)
    python = tools / ("Scripts" if sys.platform == "win32" else "bin") / "python"
    own = [str(python), "-m", "pip", "--disable-pip-version-check", "--quiet"]
    done = subprocess.run([*own, "install", "build", "twine", "check-wheel-contents"], capture_output=True, text=True)
    if done.returncode:
        pytest.skip("the package registry cannot be reached")
    subprocess.run(
        [str(python), "-m", "build", "--outdir", str(tmp_path / "dist"), str(ROOT)], check=True, capture_output=True
    )
    made = sorted((tmp_path / "dist").iterdir())
    assert [path.name.partition("-")[0] for path in made] == ["ma_agiqa", "ma_agiqa"]
    subprocess.run([str(python), "-m", "twine", "check", "--strict", *map(str, made)], check=True, capture_output=True)
    (wheel,) = [path for path in made if path.suffix == ".whl"]
    checked = subprocess.run(
        [str(python), "-m", "check_wheel_contents", str(wheel)], capture_output=True, text=True, cwd=tmp_path
    )
    assert checked.returncode == 0, checked.stdout

    bare = tmp_path / "bare"
    venv.create(bare, with_pip=True)
    binaries = bare / ("Scripts" if sys.platform == "win32" else "bin")
    there = subprocess.run(
        [sys.executable, "-c", "import sys, json; print(json.dumps([p for p in sys.path if 'site-packages' in p]))"],
        capture_output=True,
        text=True,
        check=True,
    )
    site = next(path for path in bare.rglob("site-packages") if path.is_dir())
    (site / "others.pth").write_text("\n".join(json.loads(there.stdout)) + "\n")
    subprocess.run([binaries / "python", "-m", "pip", "install", "--quiet", "--no-deps", wheel], check=True)
    code = "import ma_agiqa_core; print(ma_agiqa_core.__file__)"
    placed = subprocess.run([binaries / "python", "-c", code], capture_output=True, text=True, check=True, cwd=tmp_path)
    assert str(bare) in placed.stdout
    ran = subprocess.run([binaries / "ma-agiqa", "demo"], capture_output=True, text=True, cwd=tmp_path)
    assert ran.returncode == 0, ran.stderr
    assert (tmp_path / "ma-agiqa-demo" / "report.html").stat().st_size > 10_000
