"""The report as Markdown and JSON."""

from __future__ import annotations

import json
import re
from dataclasses import asdict, replace
from typing import Any

from yolomish.comparison.render import tables, wording
from yolomish.comparison.render.tables import Table, shown_path
from yolomish.comparison.report import Design, Report
from yolomish.comparison.runs import Run


def summary(report: Report) -> str:
    """The findings, results and paired differences as Markdown."""
    parts = ["# Activation comparison", "", f"**{plain_line(wording.headline(report))}**", "", *wording.looks(report), ""]
    return "\n".join(parts + markdown(tables.results(report)) + markdown(tables.differences(report))).strip()


def to_markdown(report: Report) -> str:
    """The report as Markdown, without pictures."""
    rest = (
        tables.tests,
        tables.exact,
        tables.cost,
        tables.eight_bits,
        tables.classes,
        tables.layers,
        tables.tuned,
        tables.changed,
        tables.runs,
    )
    lines = [summary(report), ""]
    for table in (*rest, tables.surroundings):
        lines += markdown(table(report))
    lines += ["## What next", "", *(f"- {plain_line(line)}" for line in wording.next_steps(report)), ""]
    lines += ["## What this does not show", "", *(f"- {plain_line(line)}" for line in wording.limits(report)), ""]
    lines += ["## How to reproduce", "", "```", report.design.command.replace("\n", " "), "```", ""]
    return "\n".join(lines)


def plain_line(text: str) -> str:
    """Text as one line of Markdown in which no class or arm can begin a tag or a link."""
    line = "".join(c if c.isprintable() else " " for c in text)
    return re.sub(r"<(?=[A-Za-z/!?])", "&lt;", line).replace("](", "]\\(")


def markdown(table: Table) -> list[str]:
    """The lines of a table, what stands out in bold; none where it is empty."""

    def row(cells: tuple[str, ...]) -> str:
        return "| " + " | ".join(plain_line(c).replace("|", "\\|") for c in cells) + " |"

    if table.empty:
        return []
    lines = [f"## {table.title}", ""] + ([plain_line(table.note), ""] if table.note else [])
    if table.rows:
        marked = [
            tuple(f"**{cell}**" if (i, j) in table.best else cell for j, cell in enumerate(cells))
            for i, cells in enumerate(table.rows)
        ]
        lines += [row(table.head), "|" + " --- |" * len(table.head), *map(row, marked), ""]
    return lines


def to_json(report: Report) -> str:
    """The report as JSON: the numbers and decisions of ``Report``, and the sentences that ``wording`` makes of them."""
    plain = asdict(replace(report, runs=(), design=Design()))
    design = report.design
    content = {
        "headline": wording.headline(report),
        "verdicts": [{"a": d.a, "b": d.b, "verdict": d.verdict} for d in report.primary],
        "controlled": report.controlled,
        "not_controlled": wording.not_controlled(report),
        "declared": wording.declared(report),
        "scope": design.scope,
        "pairing": design.pairing,
        "initial_weights": report.initial_weights,
        "left_out": {label: list(seeds) for label, seeds in design.left_out.items()},
        "looks": [asdict(look) for look in design.looks],
        "judging": asdict(design.judging),
        **{key: plain[key] for key in ("seeds", "images", "clusters", "objects", "resamples", "arms")},
        **{
            key: plain[key]
            for key in ("differences", "without_far", "class_differences", "best_differences", "advice", "notes", "mcnemar")
        },
        "what_next": wording.next_steps(report),
        "runs": [_plain_run(run, report) for run in report.runs],
        **{key: plain[key] for key in ("speed", "layers", "missing", "eight_bits")},
        "tuned": asdict(design.tuned) if design.tuned else None,
        **{key: plain[key] for key in ("config_difference", "config")},
        "environment": dict(design.environment),
        "command": design.command,
        "limits": wording.limits(report),
    }
    return json.dumps(content, indent=2, allow_nan=False) + "\n"


def _plain_run(run: Run, report: Report) -> dict[str, Any]:
    best = run.best_point
    return {
        "arm": run.arm,
        "seed": run.config.seed if run.config else None,
        "metrics": dict(run.metrics),
        "per_class": dict(run.per_class),
        "best_ap": run.best_ap,
        "best_epoch": best.epoch if best else None,
        "step_ms": run.step_ms,
        "peak_memory_bytes": run.peak_memory_bytes,
        "initial_weights": run.start.weights,
        "initial_weights_sha256": run.start.sha256,
        "initial_kernels": run.start.kernels,
        "folder": shown_path(run.path, report.folder),
        "best": shown_path(run.best, report.folder) if run.config else "",
        "epochs": [asdict(point) for point in run.epochs],
    }
