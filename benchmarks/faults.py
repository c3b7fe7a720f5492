"""Kills, full and read-only disks, and two processes at once; prints a Markdown table. Linux; as root the disks are real ones.

python benchmarks/faults.py --moments 25 > benchmarks/results/faults.md (some minutes with --moments 2). Root mounts a tmpfs that
is filled up and turned read-only; others get a limit on a file's size (RLIMIT_FSIZE) and folders without the right to write.
What did not hold is on stderr and makes the exit code 1.
"""

import argparse
import hashlib
import itertools
import json
import os
import platform
import random
import re
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import torch

from yolomish.comparison.environment import processor
from yolomish.data.shapes import shapes_root
from yolomish.files import PARTIAL
from yolomish.weights.checkpoint import read_checkpoint

DATA = ("--data", "shapes", "--fraction", "0.06")
TRAIN = ("train", "--model", "yolov4-n", *DATA, "--imgsz", "64", "--batch", "8", "--epochs", "2", "--device", "cpu")
CODES = {signal.SIGKILL: -signal.SIGKILL, signal.SIGTERM: 143, signal.SIGINT: 130}
PARTS = ("kill", "term", "interrupt", "worker", "disks", "twice")
MOST = 300  # s that a command may take
ROOT = os.geteuid() == 0


@dataclass
class Row:
    """One line of the table: how many of the tries held, and what was seen."""

    fault: str
    command: str
    tries: int = 0
    bad: list[str] = field(default_factory=list)
    seen: dict[str, int] = field(default_factory=dict)

    def note(self, seen: str, *faults: str) -> None:
        self.tries += 1
        self.seen[seen] = self.seen.get(seen, 0) + 1
        if any(faults):
            self.bad.append(", ".join(filter(None, faults)))

    def show(self) -> None:
        seen = "; ".join(f"{text} ({count})" if len(self.seen) > 1 else text for text, count in self.seen.items())
        text = seen.replace("|", "\\|").replace("<", "&lt;")
        print(f"| {self.fault} | {self.command} | {self.tries} | {self.tries - len(self.bad)} | {text} |", flush=True)
        for fault in self.bad:
            print(f"{self.fault}, {self.command}: {fault}", file=sys.stderr, flush=True)


def start(*arguments: str, most: int | None = None) -> subprocess.Popen[str]:
    """``yolomish ARGUMENTS`` in a session of its own; ``most`` bytes a file."""
    limit = (lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))) if most is not None else None
    command = [sys.executable, "-m", "yolomish", *arguments]
    pipe = subprocess.PIPE
    return subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True, start_new_session=True, preexec_fn=limit)


def finish(process: subprocess.Popen[str]) -> tuple[int, str]:
    """Exit code and stderr; a process that hangs is killed, code -9."""
    try:
        return process.returncode, process.communicate(timeout=MOST)[1]
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        return -9, process.communicate()[1]
    finally:
        process.poll()


def run(*arguments: str, most: int | None = None) -> tuple[int, str]:
    process = start(*arguments, most=most)
    errors = finish(process)[1]
    return process.returncode, errors


def said(errors: str, folder: Path) -> tuple[str, str]:
    """The last line without ``folder``, and what is wrong with it as a message of one line."""
    lines = errors.strip().splitlines() or [""]
    own = [line for line in lines if line.startswith("yolomish: ")]
    wrong = "traceback" if "Traceback" in errors else "" if len(own) == 1 and own[0] == lines[-1] else f"{len(own)} lines"
    if "report it" in lines[-1]:
        wrong = "taken for a bug"
    return lines[-1].replace(f"{folder}/", "").replace(str(folder), "."), wrong


def whole(path: Path) -> bool:
    """Whether the file is one that its readers take."""
    try:
        if path.suffix == ".json":
            json.loads(path.read_text())
        elif path.suffix in (".jpg", ".png"):
            return path.read_bytes()[-2:] == b"\xff\xd9" or (cv2.imread(str(path)) is not None and path.suffix == ".png")
        elif path.suffix == ".pt":
            torch.load(path, weights_only=True)
        elif path.suffix == ".onnx":
            __import__("onnx").checker.check_model(str(path))
        elif path.suffix == ".mp4":
            return cv2.VideoCapture(str(path)).read()[0]
        elif path.suffix == ".html":
            return path.read_text().rstrip().endswith("</html>")
        elif path.suffix in (".csv", ".yaml", ".md", ".txt"):
            return (path.read_bytes()[-1:] in (b"", b"\n") and path.stat().st_size > 0) or path.suffix == ".txt"
    except Exception:
        return False
    return True


def files(folder: Path) -> dict[Path, str]:
    """SHA-256 of every file that bears its final name; locks and logs of events aside."""
    return {
        path: hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and not any(PARTIAL in part for part in path.parts) and path.name not in (".lock", "filler")
        and "tfevents" not in path.name
    }  # fmt: skip


def cut(folder: Path) -> str:
    """The files that are cut off under their final names, in words."""
    found = [path.name for path in files(folder) if not whole(path)]
    return f"cut: {' '.join(found)}" if found else ""


@contextmanager
def disk(folder: Path, size: str = "2g") -> Iterator[Path]:
    """A folder that is a file system of its own, as far as this is root."""
    folder.mkdir()
    if ROOT:
        subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)], check=True)
    try:
        yield folder
    finally:
        if ROOT:
            subprocess.run(["umount", str(folder)], check=True)
        shutil.rmtree(folder, ignore_errors=True)


def fill(folder: Path, free: int) -> None:
    """Leave ``free`` bytes of the disk."""
    if ROOT:
        left = os.statvfs(folder)
        with (folder / "filler").open("wb") as file:
            os.posix_fallocate(file.fileno(), 0, max(left.f_bavail * left.f_bsize - free, 1))


def protect(folder: Path) -> None:
    """Take the right to write away."""
    if ROOT:
        subprocess.run(["mount", "-o", "remount,ro", str(folder)], check=True)
    else:
        for path in [folder, *(p for p in folder.rglob("*") if p.is_dir())]:
            path.chmod(0o555)


def release(folder: Path) -> None:
    """Give the right to write back."""
    if not ROOT:
        for path in [folder, *(p for p in folder.rglob("*") if p.is_dir())]:
            path.chmod(0o755)


def commands(home: Path) -> dict[str, Callable[[Path], list[str]]]:
    """The commands that write, as arguments for a folder to write into."""
    picture = next((shapes_root() / "val").glob("*.jpg"))
    video = home / "v.mp4"
    writer = cv2.VideoWriter(str(video), cv2.VideoWriter.fourcc(*"mp4v"), 10, (192, 192))
    for _ in range(30):
        writer.write(np.random.default_rng(0).integers(0, 256, (192, 192, 3), dtype=np.uint8))
    writer.release()
    code, errors = run("eval", "--weights", "demo", *DATA, "--output", str(home / "found"))
    assert code == 0, errors
    found = next((home / "found").rglob("results.json"))
    shutil.copy(found, home / "other.json")
    results = [f"a={found}", f"b={home / 'other.json'}"]
    weights = ["--weights", "demo"]
    return {
        "train": lambda to: [*TRAIN, "--workers", "0", "--output", str(to)],
        "eval": lambda to: ["eval", *weights, *DATA, "--output", str(to / "o")],
        "detect": lambda to: ["detect", str(picture), *weights, "--engine", "torch", "--output", str(to / "o")],
        "detect (video)": lambda to: ["detect", str(video), *weights, "--engine", "torch", "--output", str(to / "o")],
        "export": lambda to: ["export", *weights, "--output", str(to / "o.onnx"), "--force"],
        "compare": lambda to: ["compare", *results, *DATA, "--output", str(to / "o"), "--force"],
        "data convert": lambda to: ["data", "convert", "shapes", str(to / "o"), "--to", "yolo", "--force"],
    }


def full_and_read_only(home: Path) -> Iterator[Row]:
    """Every command on a disk that fills up half-way, on a full one over its own older files, and on a read-only one."""
    for name, arguments in commands(home).items():
        half, full, read_only = Row("disk full half-way", name), Row("disk full, old files", name), Row("read-only disk", name)
        with disk(home / "d") as folder:
            make = arguments(folder)
            code, errors = run(*make)
            assert code == 0, errors
            old = files(folder)
            taken = sum(path.stat().st_size for path in old)
            biggest = max(path.stat().st_size for path in old)
            if name == "train":  # its own folder is not written into again but by --resume
                make = [*arguments(folder / "new")]
            fill(folder, 0)
            code, errors = run(*make, most=None if ROOT else 1)
            line, wrong = said(errors, folder)
            full.note(
                f"{code}: {line}", wrong, "" if code == 2 else f"code {code}", "" if files(folder) == old else "old changed"
            )
            (folder / "filler").unlink(missing_ok=True)
            protect(folder)
            code, errors = run(*make)
            line, wrong = said(errors, folder)
            same = files(folder) == old
            release(folder)
            read_only.note(f"{code}: {line}", wrong, "" if code == 2 else f"code {code}", "" if same else "old changed")
        with disk(home / "d") as folder:
            fill(folder, taken // 2)
            code, errors = run(*arguments(folder), most=None if ROOT else biggest // 2)
            line, wrong = said(errors, folder)
            half.note(f"{code}: {line}", wrong, "" if code == 2 else f"code {code}", cut(folder))
        yield from (half, full, read_only)


def two_at_once(home: Path) -> Iterator[Row]:
    """Two processes of one command line: both are done, or one is done and one says one line; every file is whole."""
    for name, arguments in commands(home).items():
        row, folder = Row("two at once", name), home / "two"
        folder.mkdir()
        one_line = [a for a in arguments(folder) if a != "--force"]
        pair = [start(*one_line) for _ in range(2)]
        errors = [finish(process)[1] for process in pair]
        codes = sorted(process.returncode for process in pair)
        wrong = [said(text, folder)[1] for process, text in zip(pair, errors, strict=True) if process.returncode]
        lines = [said(text, folder)[0] for process, text in zip(pair, errors, strict=True) if process.returncode]
        row.note(" ".join([f"{codes[0]} and {codes[1]}", *lines]), *wrong, "" if codes in ([0, 0], [0, 2]) else f"codes {codes}",
                 cut(folder))  # fmt: skip
        shutil.rmtree(folder)
        yield row


def run_folder(home: Path) -> Path:
    """The one run under ``home``; it may not be there yet."""
    return next(iter(home.glob("*/*.yaml")), home / "x" / "x").parent


def train(home: Path, workers: int) -> subprocess.Popen[str]:
    """A training that goes on with what is in ``home``, or begins."""
    saved = run_folder(home) / "last.pt"
    if saved.exists():
        return start("train", "--resume", str(saved.parent))
    shutil.rmtree(home, ignore_errors=True)
    return start(*TRAIN, "--workers", str(workers), "--output", str(home))


def differs(a: Path, b: Path) -> str:
    """What differs between two runs' results and weights, in words."""
    if not (b / "last.pt").exists():
        return "no last.pt"
    lines = [(folder / "results.csv").read_text().splitlines() for folder in (a, b)]
    if lines[0] != lines[1]:
        pairs = itertools.zip_longest(*lines, fillvalue="")
        return "other results.csv: " + next(f"{one!r} and {other!r}" for one, other in pairs if one != other)
    first, second = read_checkpoint(a / "last.pt"), read_checkpoint(b / "last.pt")
    same = all(torch.equal(first[part][key], second[part][key]) for part in ("model", "ema") for key in first[part])
    return "" if same else "other weights"


def descendants(pid: int) -> list[int]:
    """Processes begun by ``pid``, and by those."""
    found: list[int] = []
    for file in Path(f"/proc/{pid}/task").glob("*/children"):
        for child in map(int, file.read_text().split()):
            found += [child, *descendants(child)]
    return found


def loaders(pid: int) -> list[int]:
    """The data loader's processes of the training ``pid``."""
    return [p for p in descendants(pid) if b"pt_data_worker" in Path(f"/proc/{p}/comm").read_bytes()]


def stopped(
    home: Path, whole_run: Path, seconds: float, number: signal.Signals, moments: int, rng: random.Random
) -> Iterator[Row]:
    """Trainings stopped at random moments and resumed, held against ``whole_run``, which took ``seconds``."""
    for workers in (0, 1, 2) if number == signal.SIGKILL else (1,):
        row = Row("Ctrl-C" if number == signal.SIGINT else number.name, f"train --workers {workers}, then --resume")
        while row.tries < moments:
            out, wrong = home / "stopped", ""
            process = train(out, workers)
            while process.poll() is None and not run_folder(out).exists():
                time.sleep(0.01)
            began = time.monotonic()
            with suppress(subprocess.TimeoutExpired):
                if process.wait(rng.uniform(0, seconds)):
                    row.note("ended before", finish(process)[1][-300:])
                seconds = time.monotonic() - began  # the machine has become faster: not a try
                shutil.rmtree(out)
                continue
            if number == signal.SIGKILL:
                process.kill()
            else:
                os.killpg(process.pid, number)  # as a terminal or a cluster does
            errors = finish(process)[1]
            done = "epoch 2/2" in errors and not differs(whole_run, run_folder(out))
            if done:  # before the signal came: not a try
                seconds *= 0.95
                shutil.rmtree(out)
                continue
            if process.returncode not in (CODES[number], 0) or "Traceback" in errors:
                wrong = f"code {process.returncode}: {errors[-300:]}"
            saved = (run_folder(out) / "last.pt").exists()
            seen = "resumed" if saved else "no checkpoint yet, begun again"
            process = train(out, workers)
            errors = finish(process)[1]
            row.note(seen, wrong, errors[-300:] if process.returncode else "", differs(whole_run, run_folder(out)))
            shutil.rmtree(out)
        yield row


def lost_worker(home: Path, whole_run: Path, moments: int, rng: random.Random) -> Iterator[Row]:
    """A loader's process killed in a training's second epoch: one line that names --resume, and the same end."""
    row = Row("a loader's process killed", "train --workers 2, then --resume")
    while row.tries < moments:
        out, found = home / "lost", list[int]()
        process = train(out, 2)
        while process.poll() is None and not found:
            time.sleep(0.01)
            found = loaders(process.pid) if (run_folder(out) / "last.pt").exists() else []
        if found:
            with suppress(ProcessLookupError):
                os.kill(rng.choice(found), signal.SIGKILL)
        errors = finish(process)[1]
        if process.returncode == 0:  # it had what it needed of them already: not a try
            shutil.rmtree(out)
            continue
        line, wrong = said(errors, out)
        code = process.returncode
        fault = "" if code == 2 and "--resume" in line else f"code {code}"
        process = train(out, 2)
        errors = finish(process)[1]
        row.note(
            f"{code}: {re.sub(r'[0-9]{3,}', 'N', line)}",
            wrong,
            fault,
            errors[-300:] if process.returncode else "",
            differs(whole_run, run_folder(out)),
        )
        shutil.rmtree(out)
    yield row


def main() -> None:
    """Try every fault and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--moments", type=int, default=25, help="random moments for each way to be stopped")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS, help="which faults")
    parser.add_argument("--seed", type=int, default=0)
    chosen = parser.parse_args()
    rng, bad = random.Random(chosen.seed), False
    print(f"# Faults\n\n`python {' '.join([os.path.relpath(sys.argv[0]), *sys.argv[1:]])}`\n")
    print(f"{processor()}, {os.cpu_count()} cores; torch {torch.__version__}, Python {platform.python_version()}.", end=" ")
    print(
        "Disks are " + ("a tmpfs, filled up or mounted read-only." if ROOT else "RLIMIT_FSIZE and folders without write access.")
    )
    print("Held: the exit code 2 and one line; every older file as it was, byte for byte; no file cut off under its final name.")
    print("Trainings (yolov4-n, 24 pictures of 64 px, 2 epochs), stopped and resumed: results.csv and all weights are equal, bit")
    print("for bit, to those of one that was not. Two at once: done, or one line; every file whole.\n")
    print("| fault | command | tries | held | exit code and what was said |\n| --- | --- | --- | --- | --- |")
    with tempfile.TemporaryDirectory() as temporary:
        home = Path(temporary)
        process = train(home / "whole", 0)
        while process.poll() is None and not run_folder(home / "whole").exists():
            time.sleep(0.01)
        began = time.monotonic()
        errors = finish(process)[1]
        assert process.returncode == 0, errors
        whole_run, seconds = run_folder(home / "whole"), time.monotonic() - began
        kill = partial(stopped, home, whole_run, seconds, moments=chosen.moments, rng=rng)
        parts: dict[str, Callable[[], Iterator[Row]]] = {
            "kill": partial(kill, number=signal.SIGKILL),
            "term": partial(kill, number=signal.SIGTERM),
            "interrupt": partial(kill, number=signal.SIGINT),
            "worker": lambda: lost_worker(home, whole_run, chosen.moments, rng),
            "disks": lambda: full_and_read_only(home),
            "twice": lambda: two_at_once(home),
        }
        for part in chosen.parts:
            for row in parts[part]():
                row.show()
                bad |= bool(row.bad)
    sys.exit(bad)


if __name__ == "__main__":
    main()
