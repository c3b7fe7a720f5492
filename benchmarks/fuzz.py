"""Mutated inputs to every reader, each format in a process of its own; prints a Markdown table.

PYTHONPATH=tests python benchmarks/fuzz.py --examples 10000 (or make fuzz); --only picture, for one format.
A fault is anything but being read or refused with one short line: also a process that dies or hangs, which a new one follows.
The first of each kind is shown, and makes the exit code 1; what a process died of is kept.
"""

import argparse
import multiprocessing
import random
import resource
import shutil
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path

HANGS = 60  # s


@dataclass
class Row:
    """Inputs tried and refused, faults by kind, the slowest in s and the peak memory in MiB."""

    done: int = 0
    refused: int = 0
    faults: Counter[str] = field(default_factory=Counter)
    slowest: float = 0.0
    memory: float = 0.0


def watch(name: str, examples: int, seed: int, folder: Path, row: Connection) -> None:
    """Send (refused, fault or none, seconds, peak memory in MiB) of each input."""
    import torch
    from hypothesis import HealthCheck, Phase, given, settings
    from hypothesis import seed as seeded
    from reference.hostile import FORMATS, attempt

    torch.set_num_threads(1)

    @seeded(seed)
    @settings(
        max_examples=examples, deadline=None, database=None, phases=[Phase.generate], suppress_health_check=list(HealthCheck)
    )
    @given(FORMATS[name].inputs)
    def try_one(content: bytes) -> None:
        refused, fault, began = False, "", time.monotonic()
        try:
            refused = not attempt(FORMATS[name], content, folder)
        except Exception as error:
            fault = f"{type(error).__name__}: {str(error)[:100]!r}"
        memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        row.send((refused, fault, time.monotonic() - began, memory))

    try_one()


def collect(name: str, suffix: str, examples: int, seed: int, seconds: float) -> Row:
    """What came of up to ``examples`` inputs, in as many processes as it takes."""
    row, until = Row(), time.monotonic() + seconds
    while row.done < examples and time.monotonic() < until:
        with tempfile.TemporaryDirectory() as folder:
            ours, theirs = multiprocessing.Pipe(duplex=False)
            work = (name, examples - row.done, seed + row.done, Path(folder), theirs)
            child = multiprocessing.get_context("spawn").Process(target=watch, args=work)
            child.start()
            theirs.close()
            end = ""
            try:
                while time.monotonic() < until and not end:
                    if not ours.poll(HANGS):
                        end = f"no answer in {HANGS} s"
                        break
                    refused, fault, took, memory = ours.recv()
                    row.done, row.refused = row.done + 1, row.refused + refused
                    row.slowest, row.memory = max(row.slowest, took), max(row.memory, memory)
                    row.faults.update([fault] if fault else [])
            except EOFError:
                child.join()
                if not child.exitcode:
                    return row  # there are no more inputs of this kind
                end = f"died with code {child.exitcode}"
            finally:
                child.kill()
                child.join()
            if end:
                row.done += 1
                row.faults[end] += 1
                kept = Path(tempfile.mkdtemp(prefix="yolomish-fuzz-")) / f"input{suffix}"
                shutil.copy(Path(folder) / f"input{suffix}", kept)
                print(f"{name}: {end} on {kept}", file=sys.stderr, flush=True)
    return row


def main() -> None:
    """Watch every format and print the table."""
    from reference.hostile import FORMATS

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--examples", type=int, default=10_000, help="inputs a format")
    parser.add_argument("--seconds", type=float, default=3600, help="most time a format")
    parser.add_argument("--seed", type=int, default=random.randrange(2**32))
    parser.add_argument("--only", choices=FORMATS, help="one format alone")
    chosen = parser.parse_args()
    print(f"seed {chosen.seed}\n\n| format | inputs | refused | faults | slowest, ms | memory, MiB |\n|---|---|---|---|---|---|")
    bad = False
    for name in [chosen.only] if chosen.only else FORMATS:
        row = collect(name, FORMATS[name].suffix, chosen.examples, chosen.seed, chosen.seconds)
        cells = f"{row.refused:,} | {row.faults.total()} | {1000 * row.slowest:.0f} | {row.memory:.0f}"
        print(f"| {name} | {row.done:,} | {cells} |", flush=True)
        for kind, count in row.faults.items():
            bad = True
            print(f"{name}: {count} x {kind}", file=sys.stderr, flush=True)
    sys.exit(bad)


if __name__ == "__main__":
    main()
