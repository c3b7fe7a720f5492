"""Mutated inputs to every reader, each format in a process of its own; prints a Markdown table.

PYTHONPATH=tests python benchmarks/fuzz.py --examples 10000 (or make fuzz).
A fault is anything but being read or refused with one short line; the first of each kind is shown, and makes the exit code 1.
"""

import argparse
import multiprocessing
import random
import resource
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path


class _Enough(BaseException):
    """The time is over."""


def watch(name: str, examples: int, seed: int, seconds: float) -> tuple[int, int, dict[str, int], float, float]:
    """Inputs tried, inputs refused, faults by kind, the slowest in s and the peak memory in MiB."""
    import torch
    from hypothesis import HealthCheck, Phase, given, settings
    from hypothesis import seed as seeded
    from reference.hostile import FORMATS, attempt

    torch.set_num_threads(1)
    done, refused, slowest, faults = 0, 0, 0.0, {}
    until = time.monotonic() + seconds
    with tempfile.TemporaryDirectory() as folder:

        @seeded(seed)
        @settings(
            max_examples=examples, deadline=None, database=None, phases=[Phase.generate], suppress_health_check=list(HealthCheck)
        )
        @given(FORMATS[name].inputs)
        def try_one(content: bytes) -> None:
            nonlocal done, refused, slowest
            if time.monotonic() > until:
                raise _Enough
            began = time.monotonic()
            try:
                refused += not attempt(FORMATS[name], content, Path(folder))
            except Exception as error:
                kind = f"{type(error).__name__}: {str(error)[:100]!r}"
                faults[kind] = faults.get(kind, 0) + 1
            done += 1
            slowest = max(slowest, time.monotonic() - began)

        with suppress(_Enough):
            try_one()
    return done, refused, faults, slowest, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main() -> None:
    """Watch every format and print the table."""
    from reference.hostile import FORMATS

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--examples", type=int, default=10_000, help="inputs a format")
    parser.add_argument("--seconds", type=float, default=3600, help="most time a format")
    parser.add_argument("--seed", type=int, default=random.randrange(2**32))
    chosen = parser.parse_args()
    print(f"seed {chosen.seed}\n\n| format | inputs | refused | faults | slowest, ms | memory, MiB |\n|---|---|---|---|---|---|")
    bad = False
    for name in FORMATS:
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            done, refused, faults, slowest, memory = pool.apply(watch, (name, chosen.examples, chosen.seed, chosen.seconds))
        print(f"| {name} | {done:,} | {refused:,} | {sum(faults.values())} | {1000 * slowest:.0f} | {memory:.0f} |", flush=True)
        for kind, count in faults.items():
            bad = True
            print(f"{name}: {count} x {kind}", file=sys.stderr, flush=True)
    sys.exit(bad)


if __name__ == "__main__":
    main()
