"""The door of the command line: whatever happens inside, one line comes out, and the right exit code."""

from __future__ import annotations

import gc
import io
import os
import platform
import signal
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from yolomish import __version__
from yolomish.commands.log_file import end_log
from yolomish.errors import YolomishError, first_line
from yolomish.files import cache_folder, shown_path

DEBUG = "YOLOMISH_DEBUG"  # not empty: tracebacks go to stderr too


def run(app: Callable[[], Any]) -> None:
    """Call ``app`` and end the process as it says.

    What the user can fix (YolomishError; a disk, a pipe or memory that does not suffice) is one line on stderr and exit code
    2. What else is raised is a bug: one line, exit code 1, and a log file with the traceback. SIGTERM unwinds, so that no
    half-written file stays, and is exit code 143.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # an ASCII terminal, or a code page without a name's letters
    threading.excepthook = _of_thread
    sys.unraisablehook = _ignored
    before = signal.signal(signal.SIGTERM, _terminate)
    try:
        code = _code(app)
    finally:
        signal.signal(signal.SIGTERM, before)
    code = _flushed(code)
    end_log()
    gc.freeze()  # else Python looks through all of torch's objects for cycles before it ends: half a second, or one
    sys.exit(code)


def _of_thread(raised: threading.ExceptHookArgs) -> None:
    """One line for what ends a thread that nobody waits for; TensorBoard's writer keeps its exception for who writes next."""
    if os.environ.get(DEBUG):
        threading.__excepthook__(raised)
    error = raised.exc_value
    if getattr(raised.thread, "exception", None) is not error:
        _say(f"a thread in the background ended: {getattr(error, 'strerror', None) or f'{type(error).__name__}: {error}'}", 1)


def _ignored(raised: Any) -> None:
    """Nothing for what Python goes on after: in an object that goes, or a thread whose starter was interrupted."""
    if os.environ.get(DEBUG):
        sys.__unraisablehook__(raised)


def _terminate(*_: Any) -> None:
    raise SystemExit(143)


def _code(app: Callable[[], Any]) -> int:
    try:
        app()
    except SystemExit as ended:
        return ended.code if isinstance(ended.code, int) else 0
    except KeyboardInterrupt:
        return 130
    except YolomishError as error:
        return _say(str(error), 2)
    except BrokenPipeError:
        return 1
    except Exception as error:
        if os.environ.get(DEBUG):
            traceback.print_exc()
        if isinstance(error, OSError) and error.errno is not None:
            where = f": {shown_path(str(error.filename))}" if error.filename else ""
            return _say(f"{error.strerror or first_line(error)}{where}", 2)
        if isinstance(error, ValueError) and "embedded null" in str(error):
            return _say("a name holds the character NUL, which no file can be called", 2)
        if _is_memory(error):
            return _say(f"there is not enough memory: {first_line(error)}; try a smaller --batch or --imgsz", 2)
        return _say(f"{type(error).__name__}: {first_line(error)}: this is a bug, please report it{_logged()}", 1)
    return 0


def _is_memory(error: Exception) -> bool:
    return isinstance(error, MemoryError) or any(
        text in str(error) for text in ("allocate memory", "out of memory", "Insufficient memory")
    )


def _say(text: str, code: int) -> int:
    line = "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text.replace("\n", " "))
    try:
        print(f"yolomish: {line if len(line) < 4000 else line[:4000] + ' ...'}", file=sys.stderr, flush=True)
    except OSError:
        pass  # nobody can be told
    return code


def _logged() -> str:
    """Write the traceback into a log file, in the cache folder or, where that cannot be written, the system's temporary one."""
    words = (f"yolomish {__version__}, Python {platform.python_version()}, {platform.platform()}", " ".join(map(ascii, sys.argv)))
    text = "\n".join((*words, traceback.format_exc()))
    for folder in (cache_folder() / "logs", Path(tempfile.gettempdir())):
        try:
            folder.mkdir(parents=True, exist_ok=True)
            file = folder / f"yolomish-{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}.log"
            file.write_text(text, encoding="utf-8", errors="backslashreplace")
            return f" with {file}"
        except OSError:
            continue
    return f" (--debug shows more; {DEBUG}=1 too)"


def _flushed(code: int) -> int:
    """``code``, or 1 with a line where what was printed does not reach stdout."""
    try:
        if sys.stdout is not None:
            sys.stdout.flush()
    except BrokenPipeError:
        code = code or 1
    except (OSError, ValueError) as error:
        code = code or _say(f"what was printed cannot be written: {getattr(error, 'strerror', None) or error}", 1)
    else:
        return code
    sys.stdout = open(os.devnull, "w")  # Python flushes it again at the end
    return code
