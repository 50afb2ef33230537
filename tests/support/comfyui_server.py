"""The real ComfyUI as a child process: headless, on the processor, on a free loopback port, in a folder of its own.

Its custom nodes are the pack as an installation from the registry makes it, and `stand_in_nodes`: pictures that none
of ComfyUI's own nodes makes, and a look into the process. The installed `ma_agiqa_core` is hidden from it.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import queue
import shutil
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import PIL.Image

PACK = "ma-agiqa"  # its folder in custom_nodes
STAND_INS = Path(__file__).with_name("stand_in_nodes.py")
BOOT_LIMIT, RUN_LIMIT = 240, 240  # seconds; a boot takes 6, the longest prompt 10, on a machine that is not busy
ENDINGS = ("execution_success", "execution_error", "execution_interrupted")
OPTIONS = ["--cpu", "--disable-auto-launch", "--disable-all-custom-nodes", "--disable-api-nodes"]
OPTIONS += ["--database-url", "sqlite:///:memory:"]
_DIED = "died"  # beside ComfyUI's own kinds of messages

Prompt = dict[str, Any]
"""A workflow's API form: node id -> {"class_type", "inputs"}."""


class RefusedPromptError(Exception):
    """ComfyUI's answer to a prompt that it does not queue; `answer` is its JSON."""

    def __init__(self, answer: dict[str, Any]) -> None:
        super().__init__(json.dumps(answer))
        self.answer = answer


@dataclass
class Run:
    """What ComfyUI told about one prompt."""

    base: Path
    events: list[tuple[str, dict[str, Any]]] = field(default_factory=list)

    def of(self, kind: str) -> list[dict[str, Any]]:
        return [data for name, data in self.events if name == kind]

    @property
    def ending(self) -> str:
        """One of `ENDINGS`."""
        return self.events[-1][0]

    @property
    def cached(self) -> set[str]:
        """Ids of nodes whose outputs were still there."""
        return {node for data in self.of("execution_cached") for node in data["nodes"]}

    @property
    def executed(self) -> list[str]:
        """Ids of nodes that really ran, in order."""
        return [data["node"] for data in self.of("executing") if data["node"] is not None]

    @property
    def outputs(self) -> dict[str, dict[str, Any]]:
        """What each node shows: {"images": [...], "text": [...]}."""
        return {data["node"]: data["output"] for data in self.of("executed")}

    @property
    def error(self) -> dict[str, Any]:
        """The red node: node_id, node_type, exception_message."""
        errors = self.of("execution_error")
        assert errors, f"the prompt ended with {self.ending}"
        return errors[0]

    def progress(self, node: str) -> list[tuple[float, float]]:
        """What the bar on a node showed: (value, total)."""
        return [(data["value"], data["max"]) for data in self.of("progress") if data["node"] == node]

    def text(self, node: str) -> str:
        """What a node shows as text."""
        return "".join(self.outputs[node]["text"])

    def picture_files(self, node: str) -> list[Path]:
        """The files of the pictures that a node shows."""
        return [
            self.base / picture["type"] / picture["subfolder"] / picture["filename"]
            for picture in self.outputs[node]["images"]
        ]

    def pictures(self, node: str) -> list[PIL.Image.Image]:
        return [PIL.Image.open(path) for path in self.picture_files(node)]


class ComfyuiServer:
    """A running ComfyUI.

    Attributes:
        url: Its address, without a slash at the end.
        base: Its folder: models, input, output, temp.
        log: All that it printed.
    """

    def __init__(self, checkout: Path, base: Path) -> None:
        self.base, self.log = base, ""
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        self.url = f"http://127.0.0.1:{port}"
        self._is_up, self._has_ended = threading.Event(), threading.Event()
        self._events: queue.Queue[tuple[str, dict[str, Any]]] = queue.Queue()
        extra = base / "extra_model_paths.yaml"
        options = [*OPTIONS, "--extra-model-paths-config", extra] if extra.is_file() else OPTIONS
        packs = ["--whitelist-custom-nodes", *sorted(path.name for path in (base / "custom_nodes").iterdir())]
        self._process = subprocess.Popen(
            [sys.executable, checkout / "main.py", *options, "--base-directory", base, "--port", str(port), *packs],
            cwd=base,
            env=_environment(base),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            encoding="utf-8",
            errors="replace",
        )
        threading.Thread(target=self._read_log, daemon=True).start()
        self._wait_for(self._is_up, "to start")
        connected = threading.Event()
        threading.Thread(target=lambda: asyncio.run(self._listen(connected)), daemon=True).start()
        self._wait_for(connected, "to open a websocket")

    def close(self) -> None:
        self._process.terminate()
        try:
            self._process.wait(30)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def get(self, path: str) -> Any:
        with urllib.request.urlopen(self.url + path, timeout=60) as answer:
            return json.load(answer)

    def post(self, path: str, **fields: Any) -> Any:
        request = urllib.request.Request(
            self.url + path, json.dumps(fields).encode(), {"Content-Type": "application/json"}
        )
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                return json.loads(answer.read() or b"null")
        except urllib.error.HTTPError as error:
            if error.code != 400:
                raise
            raise RefusedPromptError(json.load(error)) from None

    def run(
        self,
        prompt: Prompt,
        workflow: dict[str, Any] | None = None,
        on_event: Callable[[str, dict[str, Any]], None] = lambda kind, data: None,
    ) -> Run:
        """Queues a prompt and waits for its end.

        Args:
            prompt: API form.
            workflow: Its UI form, as the front end sends it along, for the metadata of saved pictures.
            on_event: Gets every message about the prompt as it arrives.

        Raises:
            RefusedPromptError: ComfyUI does not queue it.
        """
        extra = {"extra_pnginfo": {"workflow": workflow}} if workflow else {}
        queued = self.post("/prompt", prompt=prompt, client_id="tests", extra_data=extra)["prompt_id"]
        run = Run(self.base)
        end = time.monotonic() + RUN_LIMIT
        while True:
            try:
                kind, data = self._events.get(timeout=max(end - time.monotonic(), 0))
            except queue.Empty:
                log = self.log[-4000:]
                raise RuntimeError(f"Expected an end within {RUN_LIMIT} s, got {run.events[-3:]}\n{log}") from None
            if kind == _DIED:
                raise RuntimeError(f"Expected ComfyUI to run, got its end:\n{self.log[-6000:]}")
            if data.get("prompt_id") == queued:
                run.events.append((kind, data))
                on_event(kind, data)
                if kind in ENDINGS:
                    return run

    def _wait_for(self, event: threading.Event, what: str) -> None:
        """Fails at once where ComfyUI has ended, with what it printed."""
        end = time.monotonic() + BOOT_LIMIT
        while not event.wait(0.1):
            if self._has_ended.is_set() or time.monotonic() > end:
                self.close()
                raise RuntimeError(f"Expected ComfyUI {what} within {BOOT_LIMIT} s, got:\n{self.log[-6000:]}")

    def _read_log(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self.log += line
            if "To see the GUI go to" in line:
                self._is_up.set()
        self._has_ended.set()
        self._events.put((_DIED, {}))

    async def _listen(self, connected: threading.Event) -> None:
        import aiohttp  # one of ComfyUI's requirements

        async with aiohttp.ClientSession() as session, session.ws_connect(f"{self.url}/ws?clientId=tests") as socket:
            async for message in socket:
                if message.type == aiohttp.WSMsgType.TEXT:
                    said = json.loads(message.data)
                    if said["type"] == "status":
                        connected.set()
                    self._events.put((said["type"], said["data"]))


@contextlib.contextmanager
def comfyui_server(checkout: Path, base: Path, install: Callable[[Path], object]) -> Iterator[ComfyuiServer]:
    """Starts ComfyUI with the pack, and ends it.

    Args:
        checkout: ComfyUI's sources.
        base: A new folder for it; models, other custom nodes and extra_model_paths.yaml may lie in it already.
        install: Puts the pack into the folder it is given.
    """
    install(base / "custom_nodes" / PACK)
    shutil.copy(STAND_INS, base / "custom_nodes" / STAND_INS.name)
    server = ComfyuiServer(checkout, base)
    try:
        yield server
    finally:
        server.close()


def _environment(base: Path) -> dict[str, str]:
    hidden = base / "hidden" / "ma_agiqa_core"
    hidden.mkdir(parents=True, exist_ok=True)
    (hidden / "__init__.py").write_text("raise ImportError('the pack has to bring its own core')\n")
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("MA_AGIQA")}
    one_thread = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    return inherited | one_thread | {"PYTHONPATH": str(hidden.parent), "HF_HUB_OFFLINE": "1", "PYTHONUTF8": "1"}
