"""``--log-file``: what stdout and stderr are told, kept in a file too."""

from __future__ import annotations

import sys
import time
from typing import Any, TextIO, cast

from yolomish.errors import YolomishError
from yolomish.files import reason


class Copied:
    """A stream whose text goes to a file as well, but for progress bars, which write over themselves."""

    def __init__(self, stream: TextIO, file: TextIO) -> None:
        self._stream, self._file = stream, file

    def write(self, text: str) -> int:
        """Write to both. A log that can no longer be written is said once, and ends nothing."""
        if not self._file.closed and "\r" not in text and "\x1b" not in text:
            try:
                self._file.write(text)
            except OSError as error:
                _close(self._file)
                print(f"no log file from here on: it cannot be written: {reason(error)}", file=sys.__stderr__, flush=True)
        return self._stream.write(text)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def keep_log(path: str) -> None:
    """From here on, what stdout and stderr are told is added to ``path``, until ``end_log``; YolomishError where it cannot be."""
    try:
        file = open(path, "a", buffering=1, encoding="utf-8", errors="backslashreplace")
        file.write(f"# {time.strftime('%Y-%m-%d %H:%M:%S')} {' '.join(sys.argv)}\n")
    except (OSError, ValueError) as error:
        raise YolomishError(f"--log-file {path} cannot be written: {reason(error)}") from None
    sys.stdout, sys.stderr = (cast(TextIO, Copied(stream, file)) for stream in (sys.stdout, sys.stderr))


def end_log() -> None:
    """Give stdout and stderr back, and close the file."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if isinstance(stream, Copied):
            setattr(sys, name, stream._stream)
            _close(stream._file)


def _close(file: TextIO) -> None:
    try:
        file.close()
    except OSError:
        pass  # a full disk, which has been said
