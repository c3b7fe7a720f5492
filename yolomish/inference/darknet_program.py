"""A user's own build of AlexeyAB's Darknet, timed by what it prints itself."""

from __future__ import annotations

import os
import queue
import re
import shutil
import signal
import subprocess
import tempfile
import threading
from pathlib import Path

import numpy as np
from torch import Tensor

from yolomish.data.images import write_image
from yolomish.errors import YolomishError
from yolomish.files import shown_path
from yolomish.types import HeadSpec, InputSpec, SizeHW
from yolomish.weights.describe import write_darknet
from yolomish.weights.load import LoadedNetwork

# src/detector.c, test_detector: the prompt empties its buffer, so what went before has arrived when the prompt has
PROMPT = "Enter Image Path: "
PREDICTED = re.compile(r"Predicted in ([0-9.]+) milli-seconds")
PICTURE = "picture.png"
TIMEOUT_S = 300.0  # without a word


def find_program(program: str) -> Path:
    """The file of ``program``, a path or a name on PATH; YolomishError where there is none that can be started."""
    found = shutil.which(program)
    if found is None:
        raise YolomishError(f"--darknet {shown_path(program)} is no program here: name the file that Darknet's make left")
    return Path(found).resolve()


class DarknetProgram:
    """``darknet detector test`` on the network of ``loaded`` and one picture (H, W, 3) uint8 RGB, asked again at each call.

    ``seconds`` holds what it said of each call: its network alone, by its own clock. It runs in a temporary folder, on
    ``threads`` threads where it was built with OpenMP. YolomishError where it does not start, ends, or says nothing for
    ``timeout`` seconds.
    """

    def __init__(
        self,
        program: Path,
        loaded: LoadedNetwork,
        image: np.ndarray,
        size_hw: SizeHW,
        *,
        threads: int,
        timeout: float = TIMEOUT_S,
    ) -> None:
        self.input: InputSpec = loaded.network.input
        self.heads: tuple[HeadSpec, ...] = loaded.network.heads
        self.how = f"{shown_path(program)}, by its own clock"
        self.seconds: list[float] = []
        self._program, self._timeout, self._heard = program, timeout, ""
        self._folder = tempfile.TemporaryDirectory(prefix="yolomish-darknet-")
        folder = Path(self._folder.name)
        write_darknet(loaded, folder, "net", size_hw=size_hw)
        write_image(folder / PICTURE, image)
        (folder / "net.data").write_text(f"classes={len(loaded.names)}\nnames=net.names\n")
        if (letters := program.parent / "data").is_dir():
            (folder / "data").symlink_to(letters)  # which it draws labels with
        command = [str(program), "detector", "test", "net.data", "net.cfg", "net.weights", "-dont_show", "-ext_output"]
        try:
            self._process = subprocess.Popen(
                command,
                cwd=folder,
                env=os.environ | {"OMP_NUM_THREADS": str(threads)},
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
            )
        except OSError as error:
            self._folder.cleanup()
            raise YolomishError(f"{shown_path(program)} cannot be started: {error.strerror}") from None
        self._parts: queue.Queue[str] = queue.Queue()
        self._reader = threading.Thread(target=self._listen, daemon=True)
        self._reader.start()
        try:
            self._until_prompt()
        except YolomishError:
            self.close()
            raise

    def __call__(self, images: Tensor) -> tuple[Tensor, ...]:
        """Asks for the picture once more; ``images`` is not read, and there are no maps."""
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(f"{PICTURE}\n".encode())
            self._process.stdin.flush()
        except OSError:
            pass  # it has ended, which is said by what it left
        said = self._until_prompt()
        found = PREDICTED.search(said)
        if found is None:
            raise YolomishError(f"{shown_path(self._program)} does not say 'Predicted in ... milli-seconds.': is it AlexeyAB's?")
        self.seconds.append(float(found.group(1)) / 1000)
        return ()

    def _listen(self) -> None:
        assert self._process.stdout is not None
        while part := os.read(self._process.stdout.fileno(), 1 << 16):
            self._parts.put(part.decode(errors="replace"))
        self._parts.put("")

    def _until_prompt(self) -> str:
        while PROMPT not in self._heard:
            try:
                part = self._parts.get(timeout=self._timeout)
            except queue.Empty:
                raise YolomishError(f"{shown_path(self._program)} said nothing for {self._timeout:g} s") from None
            if not part:
                raise YolomishError(f"{shown_path(self._program)} {self._end()}")
            self._heard += part
        said, _, self._heard = self._heard.partition(PROMPT)
        return said

    def _end(self) -> str:
        code = self._process.wait()
        how = f"was ended by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
        lines = [line.strip() for line in self._heard.splitlines() if line.strip()]
        return f"{how}: {lines[-1][:160]}" if lines else f"{how} and printed nothing"

    def close(self) -> None:
        """End the program and remove its folder."""
        self._process.kill()
        self._process.wait()
        self._reader.join()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                try:
                    pipe.close()
                except OSError:  # what it did not read any more
                    pass
        self._folder.cleanup()
