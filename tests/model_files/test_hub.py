"""The Hub as far as it can be tested without it: ids, the local cache, and what is said when there is nothing."""

from pathlib import Path

import pytest

from ma_agiqa_core.model_files import hub

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty Hub cache, and no network."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(hub, "check_reachable", lambda: (_ for _ in ()).throw(OSError("no network in tests")))
    return tmp_path


def put(cache: Path, repository: str, files: dict[str, str]) -> Path:
    """A repository in the layout of the Hub's cache."""
    folder = cache / f"models--{repository.replace('/', '--')}"
    snapshot = folder / "snapshots" / COMMIT
    snapshot.mkdir(parents=True)
    (folder / "refs").mkdir()
    (folder / "refs" / "main").write_text(COMMIT)
    for name, text in files.items():
        (snapshot / name).write_text(text)
    return snapshot


@pytest.mark.parametrize("model", ["owner/name", "owner/na.me-2", "owner/name@main", f"owner/name@{COMMIT}"])
def test_hub_ids(model):
    assert hub.is_hub_id(model)


@pytest.mark.parametrize(
    "model", ["lite", "/owner/name", "a/b/c", "./owner/name", "owner/", "owner/name@", Path("a/b"), 3]
)
def test_no_hub_ids(model):
    assert not hub.is_hub_id(model)


def test_a_path_on_this_machine_is_no_hub_id(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "owner" / "name").mkdir(parents=True)
    assert not hub.is_hub_id("owner/name")
    assert hub.is_hub_id("owner/other")


def test_the_revision_stands_in_the_id_or_beside_it():
    assert hub.split_hub_id("owner/name@v1") == ("owner/name", "v1")
    assert hub.split_hub_id("owner/name", "v1") == ("owner/name", "v1")
    assert hub.split_hub_id("owner/name@v1", "v1") == ("owner/name", "v1")
    with pytest.raises(ValueError, match="one revision of 'owner/name', got 'v1' and 'v2'"):
        hub.split_hub_id("owner/name@v1", "v2")
    with pytest.raises(ValueError, match="such as 'owner/name', got 'no'"):
        hub.split_hub_id("no")


def test_a_file_in_the_cache_is_taken_without_a_network(cache):
    snapshot = put(cache, "owner/name", {"model.safetensors": "weights"})
    found = hub.hub_file("owner/name", "model.safetensors")
    assert found.read_text() == "weights"
    assert hub.hub_file("owner/name", "model.safetensors", revision=COMMIT, local_files_only=True) == found
    assert found.parent.samefile(snapshot)


def test_a_folder_in_the_cache_is_taken_without_a_network_and_knows_its_commit(cache):
    put(cache, "owner/name", {"config.json": "{}"})
    folder = hub.hub_folder("owner/name", lambda folder: (folder / "config.json").is_file())
    assert hub.commit_of(folder) == COMMIT
    assert hub.commit_of(cache) is None


@pytest.mark.parametrize("local_files_only", [True, False])
def test_what_is_not_here_says_how_to_get_it(cache, local_files_only):
    with pytest.raises(
        FileNotFoundError, match=r"'owner/name' at revision 'v1'.*hf download owner/name --revision v1"
    ) as caught:
        hub.hub_file("owner/name@v1", "model.safetensors", local_files_only=local_files_only)
    assert ("no network in tests" in str(caught.value)) is not local_files_only


def test_an_interrupted_download_is_not_taken_for_the_model(cache):
    put(cache, "owner/name", {"config.json": "{}"})
    with pytest.raises(FileNotFoundError, match="only a part of it in the local Hub cache"):
        hub.hub_folder("owner/name", lambda folder: (folder / "weights").is_file(), local_files_only=True)


def test_without_a_name_server_it_says_so_at_once(monkeypatch):
    monkeypatch.setattr(hub, "getproxies", dict)

    def unknown(host: str, port: object) -> None:
        raise OSError(-2, "Name or service not known")

    monkeypatch.setattr(hub.socket, "getaddrinfo", unknown)
    with pytest.raises(OSError, match=r"cannot be reached \(Name or service not known\)"):
        hub.check_reachable()


def test_a_gated_repository_says_where_to_ask_for_access(cache, monkeypatch):
    import huggingface_hub
    from huggingface_hub.errors import GatedRepoError

    def gated(*arguments: object, local_files_only: bool, **options: object) -> str:
        if local_files_only:
            raise OSError("not in the cache")
        error = GatedRepoError.__new__(GatedRepoError)  # its own way to be made needs an answer of the Hub
        error.args = ("403 Client Error. Access to model owner/secret is restricted.",)
        raise error

    monkeypatch.setattr(hub, "check_reachable", lambda: None)
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", gated)
    with pytest.raises(
        FileNotFoundError, match=r"Ask for access at https://huggingface\.co/owner/secret, then run `hf"
    ):
        hub.hub_file("owner/secret", "model.safetensors")
