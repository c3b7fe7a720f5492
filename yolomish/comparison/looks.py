"""How often a comparison that can grow was looked at: kept beside its runs, so that no report can forget it."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

from yolomish.comparison.report import Look, Report
from yolomish.errors import YolomishError
from yolomish.evaluation.sequential import FIRST_LOOK, looks_at, t_levels
from yolomish.evaluation.stats import LEVEL, Equality, Verdict
from yolomish.files import write_json

FILE = "looks.json"
DECIDED = (Verdict.A_BETTER, Verdict.B_BETTER, Verdict.IDENTICAL)


def read_looks(folder: Path) -> tuple[Look, ...]:
    """The looks taken so far; none where the folder records none."""
    try:
        content = json.loads((folder / FILE).read_text(encoding="utf-8"))
        return tuple(
            Look(seeds=int(v["seeds"]), level=float(v["level"]), most_seeds=int(v["most_seeds"])) for v in content["looks"]
        )
    except (OSError, ValueError, KeyError, TypeError):
        return ()


def take_look(folder: Path, look: Look) -> tuple[Look, ...]:
    """All looks, this one last, which is recorded; one taken before, at the same trainings, is no new one."""
    before = read_looks(folder)
    looks = (*(taken for taken in before if taken != look), look)
    if looks != before:
        folder.mkdir(parents=True, exist_ok=True)
        write_json(folder / FILE, {"looks": [asdict(taken) for taken in looks]})
    return looks


def declared_looks(seeds: int, most_seeds: int) -> tuple[Look, ...]:
    """The looks to come: one at ``seeds``, or, with ``most_seeds``, one at each number from 3 on, errors spent over all."""
    if not most_seeds:
        return (Look(seeds=seeds, level=LEVEL),)
    if most_seeds < FIRST_LOOK:
        raise YolomishError(f"--max-seeds must be at least {FIRST_LOOK}, where the first look is, not {most_seeds}")
    counts = looks_at(most_seeds)
    return tuple(Look(seeds=n, level=level, most_seeds=most_seeds) for n, level in zip(counts, t_levels(counts), strict=True))


def undeclared(looks: tuple[Look, ...]) -> int:
    """How many looks were taken before without the plan of the last one."""
    return sum(look.most_seeds == 0 or look.most_seeds != looks[-1].most_seeds for look in looks[:-1]) if looks else 0


def decided(report: Report) -> bool:
    """Whether each of AP's differences is told from 0, or shown to be none of importance."""
    return all(
        d.verdict in DECIDED or (d.equivalence is not None and d.equivalence.finding is Equality.EQUIVALENT)
        for d in report.primary
    )
