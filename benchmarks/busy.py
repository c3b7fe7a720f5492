"""What does a training step cost when other programs keep the cores busy, by how OpenMP's threads wait for one another?

python benchmarks/busy.py --model yolov4-n --imgsz 128 --batch 4

Every setting is one process, asked for a few steps in turn, beside 0, 1, 2, 4 and 8 processes that do nothing but count.
A process with T threads on C cores beside K such others has a fair share of T / (T + K) of the cores, or all it can use:
"of the fair time" divides by what the first setting takes on a quiet machine, over that share.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence

import torch
from common import report, spread
from train_step import training_step

from yolomish.training.waiting import Sleepers

SETTINGS: dict[str, dict[str, str]] = {
    "as OpenMP comes": {},
    "GOMP_SPINCOUNT=100000": {"GOMP_SPINCOUNT": "100000"},
    "GOMP_SPINCOUNT=10000": {"GOMP_SPINCOUNT": "10000"},
    "GOMP_SPINCOUNT=1000": {"GOMP_SPINCOUNT": "1000"},
    "OMP_WAIT_POLICY=PASSIVE": {"OMP_WAIT_POLICY": "PASSIVE"},
    "idle threads beside": {},  # what a training changes to where that is better
}
KNOWN = ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")


def serve(options: argparse.Namespace) -> None:
    """For each number on stdin do so many steps and print the seconds of each."""
    settings = {"channels_last": True, "amp": "off", "compile": False}
    step = training_step(options.act, settings, options, torch.device("cpu"))
    step()
    if options.sleepers:
        Sleepers().set(True)
    print("ready", flush=True)
    for line in sys.stdin:
        times = []
        for _ in range(int(line)):
            began = time.perf_counter()
            step()
            times.append(time.perf_counter() - began)
        print(*times, flush=True)


class Server:
    """A process that does training steps under one setting."""

    def __init__(self, setting: dict[str, str], arguments: Sequence[str]) -> None:
        environment = {k: v for k, v in os.environ.items() if k not in KNOWN} | setting
        command = [sys.executable, __file__, "--serve", *arguments]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment)
        self._line()

    def _line(self) -> str:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise SystemExit(f"a measured process ended with code {self.process.wait()}")
        return line

    def steps(self, count: int) -> float:
        """Median seconds of ``count`` steps."""
        assert self.process.stdin is not None
        self.process.stdin.write(f"{count}\n")
        self.process.stdin.flush()
        return statistics.median(map(float, self._line().split()))


def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="yolov4-n")
    parser.add_argument("--imgsz", type=int, default=128, help="px")
    parser.add_argument("--batch", type=int, default=4, help="images")
    parser.add_argument("--act", default="mish")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--steps", type=int, default=3, help="of each process in each round")
    parser.add_argument("--busy", default="0,1,2,4,8", help="other processes")
    parser.add_argument("--sleepers", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        return serve(options)
    flags = {"idle threads beside": ["--sleepers"]}
    servers = {name: Server(setting, [*sys.argv[1:], *flags.get(name, [])]) for name, setting in SETTINGS.items()}
    threads, names = torch.get_num_threads(), list(servers)
    cores = len(os.sched_getaffinity(0))
    quiet = 0.0
    rows = []
    for others in map(int, options.busy.split(",")):
        busy = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(others)]
        try:
            times: dict[str, list[float]] = {name: [] for name in names}
            for i in range(options.rounds):
                for name in names[i % len(names) :] + names[: i % len(names)]:
                    times[name].append(servers[name].steps(options.steps))
        finally:
            for process in busy:
                process.kill()
        share = min(1.0, cores / (threads + others))
        for name, seconds in times.items():
            quiet = quiet or statistics.median(seconds)
            milliseconds = [1000 * s for s in seconds]
            fair = spread([s * share * threads / min(threads, cores) / quiet for s in seconds])
            base = spread([s / b for s, b in zip(seconds, times[names[0]], strict=True)])
            rows.append((str(others), name, spread(milliseconds), fair, base))
    columns = ("others", "waiting", "ms per step", "of the fair time", f"/ {names[0]}")
    report(f"Training step of {options.model} beside busy programs", columns, rows, torch.device("cpu"))


if __name__ == "__main__":
    main()
