"""The cache of semantic vectors: never stale, never torn, with several writers at once."""

import hashlib
import logging
import re
import struct
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch

from ma_agiqa_core.semantic import cache as cache_module
from ma_agiqa_core.semantic.cache import SemanticCache

KEY = "ab" * 32
WRITER = """
import sys
import torch
from ma_agiqa_core.semantic.cache import SemanticCache

cache, number = SemanticCache(sys.argv[1]), int(sys.argv[2])
print("ready", flush=True)
sys.stdin.readline()  # until all writers are
for turn in range(150):
    cache.put("ab" * 32, torch.full((2048,), float(number)))
    cache.put(f"{turn:02x}{number:062x}", torch.full((8,), float(turn)))
"""


@pytest.fixture
def cache(tmp_path: Path) -> SemanticCache:
    return SemanticCache(tmp_path / "vectors")


def vector(size: int = 16, seed: int = 0) -> torch.Tensor:
    return torch.randn(size, generator=torch.Generator().manual_seed(seed))


def files(cache: SemanticCache) -> list[Path]:
    return [path for path in cache.folder.rglob("*") if path.is_file()]


def entry_of(cache: SemanticCache) -> Path:
    (path,) = files(cache)
    return path


class TestEntries:
    def test_what_is_put_comes_back(self, cache: SemanticCache) -> None:
        cache.put(KEY, vector(4096))
        found = cache.get(KEY)
        assert found is not None
        assert found.dtype == torch.float32
        assert torch.equal(found, vector(4096))
        assert found.add_(1) is found  # writable, as torch warns of other arrays

    @pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
    def test_other_float_types_are_kept_as_float32(self, cache: SemanticCache, dtype: torch.dtype) -> None:
        cache.put(KEY, vector().to(dtype))
        found = cache.get(KEY)
        assert found is not None
        assert torch.equal(found, vector().to(dtype).float())

    def test_the_file_is_as_documented(self, cache: SemanticCache) -> None:
        cache.put(KEY, torch.tensor([1.0, -2.5]))
        content = b"MAQASEM1" + struct.pack("<Iff", 2, 1.0, -2.5)
        assert entry_of(cache).read_bytes() == content + hashlib.sha256(content).digest()
        assert entry_of(cache) == cache.folder / "ab" / "ab" / KEY[4:]

    def test_nothing_is_made_before_the_first_vector(self, cache: SemanticCache) -> None:
        assert cache.get(KEY) is None
        assert not cache.folder.exists()

    def test_a_later_vector_replaces_an_earlier_one(self, cache: SemanticCache) -> None:
        cache.put(KEY, vector(seed=0))
        cache.put(KEY, vector(seed=1))
        found = cache.get(KEY)
        assert found is not None
        assert torch.equal(found, vector(seed=1))
        assert len(files(cache)) == 1

    @pytest.mark.parametrize("bad", [torch.nan, torch.inf, -torch.inf])
    def test_values_that_are_not_finite_are_refused(self, cache: SemanticCache, bad: float) -> None:
        values = vector()
        values[[2, 5]] = bad
        with pytest.raises(ValueError, match=r"Expected finite values, got 2 of 16 .* in torch.float16"):
            cache.put(KEY, values.half())
        with pytest.raises(ValueError, match=r"got 1 of 1 .* in torch.float64"):
            cache.put(KEY, torch.tensor([1e300], dtype=torch.float64))
        assert cache.get(KEY) is None

    @pytest.mark.parametrize("shape", [(), (0,), (1, 16)])
    def test_other_shapes_are_refused(self, cache: SemanticCache, shape: tuple[int, ...]) -> None:
        with pytest.raises(ValueError, match=re.escape(f"Expected a vector (D,), got shape {shape}.")):
            cache.put(KEY, torch.zeros(shape))


class TestDamage:
    def test_an_entry_cut_short_anywhere_is_never_read(self, cache: SemanticCache) -> None:
        cache.put(KEY, vector())
        path = entry_of(cache)
        whole = path.read_bytes()
        for length in range(len(whole)):
            path.write_bytes(whole[:length])
            assert cache.get(KEY) is None
        path.write_bytes(whole)
        assert cache.get(KEY) is not None

    def test_a_changed_byte_anywhere_is_noticed(self, cache: SemanticCache) -> None:
        cache.put(KEY, vector(4))
        path = entry_of(cache)
        whole = path.read_bytes()
        for place in range(len(whole)):
            path.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
            assert cache.get(KEY) is None

    @pytest.mark.parametrize(
        "content",
        [
            b"MAQASEM2" + struct.pack("<If", 1, 1.0),  # another format
            b"MAQASEM1" + struct.pack("<If", 2, 1.0),  # another length
            b"MAQASEM1" + struct.pack("<Iff", 1, 1.0, 1.0),
            b"MAQASEM1" + struct.pack("<I", 0),
            b"",
        ],
    )
    def test_a_right_checksum_is_not_enough(self, cache: SemanticCache, content: bytes) -> None:
        cache.put(KEY, vector())
        entry_of(cache).write_bytes(content + hashlib.sha256(content).digest())
        assert cache.get(KEY) is None

    def test_damage_is_logged_and_mended_by_the_next_put(
        self, cache: SemanticCache, caplog: pytest.LogCaptureFixture
    ) -> None:
        cache.put(KEY, vector())
        path = entry_of(cache)
        path.write_bytes(b"zeros")
        with caplog.at_level(logging.WARNING):
            assert cache.get(KEY) is None
        assert f"{path} is damaged (5 bytes)" in caplog.text
        cache.put(KEY, vector())
        assert cache.get(KEY) is not None

    def test_an_entry_that_cannot_be_read_counts_as_absent(
        self, cache: SemanticCache, caplog: pytest.LogCaptureFixture
    ) -> None:
        (cache.folder / KEY[:2] / KEY[2:4] / KEY[4:]).mkdir(parents=True)
        with caplog.at_level(logging.WARNING):
            assert cache.get(KEY) is None
        assert "cannot read" in caplog.text


class TestKeys:
    PIXELS = torch.arange(3 * 4 * 6, dtype=torch.uint8).view(3, 4, 6)

    def test_a_key_never_changes(self) -> None:
        digest = hashlib.sha256(b"2 (4, 6, 3)\n" + bytes(self.PIXELS.permute(1, 2, 0).flatten().tolist()))
        for text in (b"owl@1", "Größe?".encode()):
            digest.update(struct.pack("<Q", len(text)) + text)
        assert SemanticCache.key(self.PIXELS, "owl@1", "Größe?") == digest.hexdigest()

    def test_whatever_changes_an_answer_changes_the_key(self) -> None:
        other = self.PIXELS.clone()
        other[2, 3, 5] += 1
        keys = {
            SemanticCache.key(self.PIXELS, "owl@1", "good?"),
            SemanticCache.key(other, "owl@1", "good?"),
            SemanticCache.key(self.PIXELS.reshape(3, 6, 4), "owl@1", "good?"),
            SemanticCache.key(self.PIXELS.mT, "owl@1", "good?"),
            SemanticCache.key(self.PIXELS.flip(0), "owl@1", "good?"),
            SemanticCache.key(self.PIXELS, "owl@2", "good?"),
            SemanticCache.key(self.PIXELS, "owl@1", "bad?"),
            SemanticCache.key(self.PIXELS, "owl@1g", "ood?"),  # where one text ends counts
        }
        assert len(keys) == 8

    def test_floats_count_as_their_rounded_picture(self) -> None:
        key = SemanticCache.key(self.PIXELS, "owl@1", "good?")
        assert SemanticCache.key((self.PIXELS.float() + 0.3) / 255, "owl@1", "good?") == key
        in_other_order = self.PIXELS.permute(1, 2, 0).contiguous().permute(2, 0, 1)
        assert SemanticCache.key(in_other_order, "owl@1", "good?") == key

    def test_several_questions_at_once(self) -> None:
        questions = {"semantic_content": "meaning?", "coherence": "coherent?"}
        keys = SemanticCache.keys(self.PIXELS, "owl@1", questions)
        assert keys == {name: SemanticCache.key(self.PIXELS, "owl@1", text) for name, text in questions.items()}


class TestWriting:
    def test_a_folder_that_cannot_be_written_is_named(self, tmp_path: Path) -> None:
        (tmp_path / "file").write_bytes(b"")
        cache = SemanticCache(tmp_path / "file" / "vectors")
        with pytest.raises(OSError, match=r"Expected a folder to write .*vectors'.*--cache"):
            cache.put(KEY, vector())
        assert cache.get(KEY) is None

    def test_a_failed_write_leaves_nothing_behind(self, cache: SemanticCache, monkeypatch: pytest.MonkeyPatch) -> None:
        def full(self: Path, target: Path) -> Path:
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(Path, "replace", full)
        with pytest.raises(OSError, match="No space left on device"):
            cache.put(KEY, vector())
        assert files(cache) == []

    def test_windows_refuses_to_replace_what_is_being_read(
        self, cache: SemanticCache, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def refuse(self: Path, target: Path) -> Path:
            raise PermissionError(13, "Access is denied")

        cache.put(KEY, vector())
        monkeypatch.setattr(Path, "replace", refuse)
        monkeypatch.setattr(cache_module, "MOVE_PAUSE_S", 0)
        cache.put(KEY, vector())  # the entry is there: nothing is lost
        assert len(files(cache)) == 1
        entry_of(cache).write_bytes(b"damaged")
        with pytest.raises(OSError, match="Access is denied"):
            cache.put(KEY, vector())

    def test_a_move_that_windows_refuses_for_a_moment_is_tried_again(
        self, cache: SemanticCache, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        refusals, replace = iter(range(2)), Path.replace

        def busy(self: Path, target: Path) -> Path:
            if next(refusals, None) is not None:
                raise PermissionError(13, "Access is denied")
            return replace(self, target)

        monkeypatch.setattr(Path, "replace", busy)
        monkeypatch.setattr(cache_module, "MOVE_PAUSE_S", 0)
        cache.put(KEY, vector())
        assert cache.get(KEY) is not None

    def test_threads_write_and_read_the_same_entry(self, cache: SemanticCache) -> None:
        start = threading.Barrier(8)

        def work(number: int) -> bool:
            start.wait()
            for _ in range(40):
                cache.put(KEY, torch.full((512,), float(number)))
                found = cache.get(KEY)
                if found is not None and (len(found) != 512 or len(found.unique()) != 1):
                    return False
            return True

        with ThreadPoolExecutor(8) as pool:
            assert all(pool.map(work, range(8)))
        assert len(files(cache)) == 1

    def test_processes_write_while_another_reads(self, cache: SemanticCache) -> None:
        writers = [
            subprocess.Popen(
                [sys.executable, "-c", WRITER, str(cache.folder), str(number)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
            for number in range(2)
        ]
        for writer in writers:
            assert writer.stdout is not None
            assert writer.stdout.readline() == "ready\n"
        for writer in writers:
            assert writer.stdin is not None
            writer.stdin.write("\n")
            writer.stdin.flush()
        seen: set[float] = set()
        while any(writer.poll() is None for writer in writers):
            if (found := cache.get(KEY)) is not None:
                assert len(found) == 2048
                seen.update(found.unique().tolist())
                assert len(found.unique()) == 1  # never half of one writer's and half of another's
        assert [writer.returncode for writer in writers] == [0, 0]
        for writer in writers:
            writer.communicate()  # closes the pipes
        assert seen
        assert seen <= {0.0, 1.0}
        for number in range(2):
            for turn in range(150):
                own = cache.get(f"{turn:02x}{number:062x}")
                assert own is not None
                assert own.tolist() == [turn] * 8
        assert len(files(cache)) == 2 * 150 + 1  # no temporary files
