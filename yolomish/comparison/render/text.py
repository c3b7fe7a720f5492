"""The report as Markdown, LaTeX and JSON."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from typing import Any

from yolomish.comparison.render import tables, wording
from yolomish.comparison.render.tables import Table, shown_path
from yolomish.comparison.report import Design, Report
from yolomish.comparison.runs import Run


def summary(report: Report) -> str:
    """The findings, results and paired differences as Markdown."""
    parts = ["# Activation comparison", "", f"**{wording.headline(report)}**", ""]
    return "\n".join(parts + _markdown(tables.results(report)) + _markdown(tables.differences(report))).strip()


def to_markdown(report: Report) -> str:
    """The report as Markdown, without pictures."""
    rest = (tables.tests, tables.exact, tables.cost, tables.classes, tables.layers, tables.tuned, tables.changed, tables.runs)
    lines = [summary(report), ""]
    for table in (*rest, tables.surroundings):
        lines += _markdown(table(report))
    lines += ["## What this does not show", "", *(f"- {line}" for line in wording.limits(report)), ""]
    lines += ["## How to reproduce", "", "```", report.design.command, "```", ""]
    return "\n".join(lines)


def _markdown(table: Table) -> list[str]:
    def row(cells: tuple[str, ...]) -> str:
        return "| " + " | ".join(c.replace("|", "\\|").replace("\n", " ") for c in cells) + " |"

    if table.empty:
        return []
    lines = [f"## {table.title}", ""] + ([table.note, ""] if table.note else [])
    if table.rows:
        lines += [row(table.head), "|" + " --- |" * len(table.head), *map(row, table.rows), ""]
    return lines


def to_json(report: Report) -> str:
    """The report as JSON: the numbers and decisions of ``Report``, and the sentences that ``wording`` makes of them."""
    plain = asdict(replace(report, runs=(), design=Design()))
    design, tuned = report.design, None
    if report.tuned:
        tuned = plain["tuned"] | {"headline": wording.tuned_headline(report.tuned)}
    content = {
        "headline": wording.headline(report),
        "verdict": report.verdict,
        "controlled": report.controlled,
        "not_controlled": wording.not_controlled(report),
        "declared": wording.declared(report),
        "scope": design.scope,
        "pairing": design.pairing,
        "initial_weights": report.initial_weights,
        "left_out": {label: list(seeds) for label, seeds in design.left_out.items()},
        "surplus": dict(design.surplus),
        **{key: plain[key] for key in ("seeds", "images", "objects", "resamples", "arms")},
        **{key: plain[key] for key in ("differences", "class_differences", "best_differences", "mcnemar")},
        "runs": [_plain_run(run, report) for run in report.runs],
        **{key: plain[key] for key in ("speed", "layers", "missing")},
        "tuned": tuned,
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
        "seed": run.seed,
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


_SPECIAL = {"\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{", "}": r"\}"}
_SPECIAL |= {"~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "±": r"$\pm$", "<": "$<$", ">": "$>$"}


def escape(text: str) -> str:
    """Text as LaTeX prints it."""
    return "".join(_SPECIAL.get(c, c) for c in text)


def to_latex(report: Report) -> str:
    """Results and paired differences as two ``booktabs`` tables; the headline and the note are their captions."""
    captions = (wording.headline(report), tables.differences(report).note)
    pairs = zip((tables.results(report), tables.differences(report)), captions, strict=True)
    return "% needs \\usepackage{booktabs}\n" + "\n".join(_latex_table(table, caption) for table, caption in pairs)


def _latex_table(table: Table, caption: str) -> str:
    plain = "l" * len(table.head)
    rows = "\n".join(" & ".join(map(escape, row)) + r" \\" for row in table.rows)
    head = " & ".join(map(escape, table.head))
    return (
        "\\begin{table}\n\\centering\n\\small\n"
        f"\\caption{{{escape(caption)}}}\n\\begin{{tabular}}{{{plain}}}\n\\toprule\n{head} \\\\\n\\midrule\n{rows}\n"
        "\\bottomrule\n\\end{tabular}\n\\end{table}\n"
    )
