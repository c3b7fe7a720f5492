"""An interrupt or SIGTERM in the middle of a stream: what is being written is finished, and the files are completed."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

IMPATIENT = 3  # signals until the process ends at once


class Stop:
    """Turns the first interrupt or SIGTERM into KeyboardInterrupt, at once or at the end of a ``shield``; the next ones are
    passed over while files are completed, the third ends the process. ``number`` is the signal, 0 before."""

    def __init__(self) -> None:
        self.number, self._count, self._shielded = 0, 0, False

    def _note(self, number: int, _: Any) -> None:
        self._count += 1
        if self._count >= IMPATIENT:
            os._exit(128 + number)
        if self.number:
            return
        self.number = number
        if not self._shielded:
            raise KeyboardInterrupt

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Meanwhile the signals come here; in another thread than the main one, which alone gets them, nothing changes."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {number: signal.signal(number, self._note) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    @contextmanager
    def shield(self) -> Iterator[None]:
        """What is in here is done whole; KeyboardInterrupt comes after it."""
        self._shielded = True
        try:
            yield
        finally:
            self._shielded = False
        if self.number:
            raise KeyboardInterrupt
