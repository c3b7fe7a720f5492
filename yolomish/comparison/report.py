"""One frozen ``Report`` holds every number; report.html, report.md and report.json only print it."""

from __future__ import annotations

import base64
import html
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from yolomish.comparison.arms import ACTIVATION_KEYS
from yolomish.comparison.plots import draw_curves, draw_differences
from yolomish.evaluation.stats import NO_DIFFERENCE, ONE_SEED, PairedDifference, mean_sd, paired_difference

METRICS = ("AP", "AP50", "AP75")
PRIMARY = "AP"


@dataclass(frozen=True, kw_only=True)
class EpochPoint:
    """One epoch of a run: its weighted training loss (None where not finite), and AP and AP50 (0..1) where measured."""

    epoch: int
    loss: float | None
    ap: float | None
    ap50: float | None


@dataclass(frozen=True, kw_only=True)
class RunResult:
    """One trained arm at one seed; metrics 0..1 of the last epoch's averaged weights. ``folder`` lies in the comparison's."""

    arm: str
    seed: int
    ap: float
    ap50: float
    ap75: float
    step_ms: float
    peak_memory_bytes: int
    initial_kernels: str
    folder: str
    best: str
    epochs: tuple[EpochPoint, ...]

    def metric(self, name: str) -> float:
        """The value of ``AP``, ``AP50`` or ``AP75``."""
        return float(getattr(self, name.lower()))


@dataclass(frozen=True, kw_only=True)
class ArmSummary:
    """An arm over its seeds: means and sample standard deviations (None with one seed) by metric, and its cost."""

    label: str
    activation: str
    neck_activation: str
    mean: dict[str, float]
    sd: dict[str, float | None]
    step_ms: float
    peak_memory_bytes: int


@dataclass(frozen=True, kw_only=True)
class ArmNames:
    """What an arm is called and what it holds."""

    label: str
    activation: str
    neck_activation: str


@dataclass(frozen=True, kw_only=True)
class Report:
    """All that a comparison found. ``differences`` are arm A (the first) minus each other arm, for every metric."""

    headline: str
    verdict: str
    controlled: bool
    not_controlled: tuple[str, ...]
    scope: str
    seeds: tuple[int, ...]
    arms: tuple[ArmSummary, ...]
    differences: tuple[PairedDifference, ...]
    runs: tuple[RunResult, ...]
    config_difference: dict[str, tuple[Any, ...]]
    config: dict[str, Any]
    environment: dict[str, str]
    command: str
    limits: tuple[str, ...]


def _signed(value: float) -> str:
    return f"{value:+.4f}" if value else "0.0000"


def _interval(d: PairedDifference) -> str:
    if d.low is None or d.high is None:
        return "no interval from one seed"
    return f"{100 * d.confidence:.4g} % CI [{_signed(d.low)}, {_signed(d.high)}]"


def _sentence(d: PairedDifference, seeds: int) -> str:
    word = {"A better": f"A better ({d.a})", "B better": f"B better ({d.b})"}.get(d.verdict, d.verdict)
    text = f"A = {d.a}, B = {d.b}: {word}. {d.metric} A - B = {_signed(d.mean)}, {_interval(d)}"
    text += f", {seeds} paired seed{'s' if seeds > 1 else ''}."
    if not any(d.per_seed):
        text += f" Their {d.metric} is equal in every seed."
    elif d.verdict == NO_DIFFERENCE and d.low is not None:
        text += f" Only a difference beyond about ±{(d.mean - d.low):.4f} would have shown."
    elif d.verdict == ONE_SEED:
        text += " One seed cannot tell an activation from chance: use --seeds 3 or more."
    return text


def _limits(config: dict[str, Any], scope: str, seeds: int, pairs: int, epochs: int) -> tuple[str, ...]:
    where = {"backbone": "the backbone only", "neck": "the neck and heads only", "all": "backbone, neck and heads"}
    data, model = config.get("data", {}).get("format", "?"), config.get("model", {}).get("name", "?")
    lines = [
        f"Other data, models or sizes: this is {model} at {config.get('image_size', '?')} px on {data} data"
        + (" (generated pictures, far easier than photographs)." if data == "shapes" else "."),
        f"Other places for the activation: here it changes in {where.get(scope, scope)}.",
        f"Longer training: every arm had {epochs} epoch{'s' if epochs != 1 else ''} from random weights. "
        "An activation may win early and lose late, or the reverse.",
        "Settings tuned for each activation: learning rate and the rest are shared, and may suit one arm better.",
        f"Anything beyond the spread of {seeds} seed{'s' if seeds != 1 else ''}: the interval covers "
        "the initial weights and the order of data, not the choice of the validation images.",
        "Speed elsewhere: step time and memory are of training on this device only, not of inference.",
    ]
    if seeds < 5:
        lines.append("Normality: with so few seeds the t interval rests on differences being about normal.")
    if pairs > 1:
        lines.append(
            f"A ranking of all arms: {pairs} arms are each held against the first, with intervals widened for {pairs} "
            "looks (Bonferroni); the others are not held against each other."
        )
    lines.append("AP50 and AP75 are shown beside AP but not corrected for being looked at: the verdict is AP's.")
    return tuple(lines)


def build_report(
    *,
    arms: tuple[ArmNames, ...],
    runs: tuple[RunResult, ...],
    scope: str,
    config: dict[str, Any],
    config_difference: dict[str, tuple[Any, ...]],
    environment: dict[str, str],
    command: str,
) -> Report:
    """The report of complete ``runs``: every arm at every seed, once. The first arm is A.

    ``config`` is the first arm's as plain values; ``config_difference`` gives a value an arm for each key that differs.
    Arms that differ in more than activations, or start from other kernels, make it NOT CONTROLLED. The interval is
    paired t at 95 %, widened for the number of arms held against the first (Bonferroni). ValueError for missing runs.
    """
    seeds = tuple(sorted({run.seed for run in runs}))
    table = {(run.arm, run.seed): run for run in runs}
    if len(table) != len(runs) or set(table) != {(arm.label, seed) for arm in arms for seed in seeds} or len(arms) < 2:
        raise ValueError("a report needs two arms or more, and every arm at every seed exactly once")
    by_arm = {arm.label: [table[arm.label, seed] for seed in seeds] for arm in arms}
    summaries = []
    for arm in arms:
        of_arm = by_arm[arm.label]
        spread = {m: mean_sd([run.metric(m) for run in of_arm]) for m in METRICS}
        summaries.append(
            ArmSummary(
                label=arm.label,
                activation=arm.activation,
                neck_activation=arm.neck_activation,
                mean={m: mean for m, (mean, _) in spread.items()},
                sd={m: sd for m, (_, sd) in spread.items()},
                step_ms=mean_sd([run.step_ms for run in of_arm])[0],
                peak_memory_bytes=max(run.peak_memory_bytes for run in of_arm),
            )
        )
    pairs = len(arms) - 1
    differences = tuple(
        paired_difference(
            metric,
            arms[0].label,
            arm.label,
            [run.metric(metric) for run in by_arm[arms[0].label]],
            [run.metric(metric) for run in by_arm[arm.label]],
            confidence=1 - 0.05 / pairs,
        )
        for arm in arms[1:]
        for metric in METRICS
    )
    not_controlled = [key for key in config_difference if key not in ACTIVATION_KEYS]
    not_controlled += [
        f"initial kernels at seed {seed}" for seed in seeds if len({table[arm.label, seed].initial_kernels for arm in arms}) > 1
    ]
    primary = [d for d in differences if d.metric == PRIMARY]
    headline = " ".join(_sentence(d, len(seeds)) for d in primary)
    if not_controlled:
        headline = f"NOT CONTROLLED ({', '.join(not_controlled)}). {headline}"
    epochs = max((len(run.epochs) for run in runs), default=0)
    return Report(
        headline=headline,
        verdict=primary[0].verdict,
        controlled=not not_controlled,
        not_controlled=tuple(not_controlled),
        scope=scope,
        seeds=seeds,
        arms=tuple(summaries),
        differences=differences,
        runs=runs,
        config_difference=config_difference,
        config=config,
        environment=environment,
        command=command,
        limits=_limits(config, scope, len(seeds), pairs, epochs),
    )


@dataclass(frozen=True, kw_only=True)
class _Table:
    title: str
    note: str
    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


def _memory(size: int) -> str:
    return f"{size / 2**20:,.0f} MiB" if size else "not measured"


def _tables(report: Report) -> tuple[_Table, ...]:
    def spread(arm: ArmSummary, metric: str) -> str:
        sd = arm.sd[metric]
        return f"{arm.mean[metric]:.4f}" + (f" ± {sd:.4f}" if sd is not None else "")

    first = report.arms[0].step_ms
    many = "mean ± standard deviation over seeds" if len(report.seeds) > 1 else "one seed, so no spread"
    results = _Table(
        title="Results",
        note=f"Validation, last epoch, averaged (EMA) weights, 0 to 1: {many}. Step time: median "
        "training step. Peak memory on a GPU is the arm's own; on a CPU it is the whole process's, so a later arm "
        "never shows less than an earlier one.",
        head=("arm", "backbone", "neck", *METRICS, "step", f"step vs {report.arms[0].label}", "peak memory"),
        rows=tuple(
            (
                f"{'AB'[i]} = {arm.label}" if len(report.arms) == 2 else arm.label,
                arm.activation,
                arm.neck_activation,
                *(spread(arm, m) for m in METRICS),
                f"{arm.step_ms:.1f} ms",
                f"{arm.step_ms / first:.2f}x" if first else "-",
                _memory(arm.peak_memory_bytes),
            )
            for i, arm in enumerate(report.arms)
        ),
    )
    differences = _Table(
        title="Paired differences",
        note="The first arm minus the other, each seed on its own. A positive number favours the first arm.",
        head=("pair", "metric", *(f"seed {s}" for s in report.seeds), "mean", "interval", "verdict"),
        rows=tuple(
            (f"{d.a} - {d.b}", d.metric, *(_signed(v) for v in d.per_seed), _signed(d.mean), _interval(d), d.verdict)
            for d in report.differences
        ),
    )
    runs = _Table(
        title="Runs",
        note="Equal kernel hashes at a seed: the arms began from the same convolution weights.",
        head=("arm", "seed", *METRICS, "step", "initial kernels", "folder"),
        rows=tuple(
            (
                run.arm,
                str(run.seed),
                *(f"{run.metric(m):.4f}" for m in METRICS),
                f"{run.step_ms:.1f} ms",
                run.initial_kernels[:12],
                run.folder,
            )
            for run in report.runs
        ),
    )
    changed = _Table(
        title="What differs between the arms",
        note="Every setting in which the arms' configurations differ."
        if report.config_difference
        else "Nothing: the arms' configurations are equal (an A/A comparison).",
        head=("setting", *(arm.label for arm in report.arms)),
        rows=tuple((key, *(str(v) for v in values)) for key, values in report.config_difference.items()),
    )
    environment = _Table(
        title="Environment",
        note="",
        head=("what", "value"),
        rows=tuple(report.environment.items()),
    )
    return results, differences, runs, changed, environment


def to_markdown(report: Report) -> str:
    """The report as Markdown, without pictures."""

    def cell(text: str) -> str:
        return text.replace("|", "\\|").replace("\n", " ")

    lines = ["# Activation comparison", "", f"**{report.headline}**", ""]
    for table in _tables(report):
        lines += [f"## {table.title}", ""] + ([table.note, ""] if table.note else [])
        if table.rows:
            lines += ["| " + " | ".join(map(cell, table.head)) + " |", "|" + " --- |" * len(table.head)]
            lines += ["| " + " | ".join(map(cell, row)) + " |" for row in table.rows] + [""]
    lines += ["## What this does not show", "", *(f"- {line}" for line in report.limits), ""]
    lines += ["## How to reproduce", "", "```", report.command, "```", ""]
    return "\n".join(lines)


def to_json(report: Report) -> str:
    """The report as JSON: the fields of ``Report``; tuples become lists."""
    return json.dumps(asdict(report), indent=2, allow_nan=False) + "\n"


_CSS = """
:root{color-scheme:light dark;--ink:#1c2330;--soft:#5b6575;--line:#dde2ea;--card:#fff;--page:#f5f7fa;--mark:#0072b2}
@media(prefers-color-scheme:dark){:root{--ink:#e8ecf2;--soft:#a3adbb;--line:#38414f;--card:#1d242e;--page:#141920;
--mark:#56b4e9}}
*{box-sizing:border-box}
body{margin:0;background:var(--page);color:var(--ink);font:16px/1.55 system-ui,-apple-system,"Segoe UI",sans-serif}
main{max-width:1080px;margin:0 auto;padding:24px 16px 64px}
h1{font-size:1.6rem;margin:.2em 0 .6em}h2{font-size:1.15rem;margin:0 0 .4em}
section{background:var(--card);border:1px solid var(--line);border-radius:10px;padding:18px 20px;margin:16px 0}
.headline{border-left:6px solid var(--mark);font-size:1.12rem}.headline p{margin:.3em 0;overflow-wrap:anywhere}
.badge{display:inline-block;padding:2px 12px;border-radius:99px;background:var(--mark);color:#fff;font-weight:600}
@media(prefers-color-scheme:dark){.badge{color:#10151b}}
.bad{border-left-color:#c62828}.bad .badge{background:#c62828;color:#fff}
.note{color:var(--soft);margin:0 0 .7em;font-size:.94rem}
.scroll{overflow-x:auto}table{border-collapse:collapse;width:100%;font-size:.93rem;font-variant-numeric:tabular-nums}
th,td{text-align:left;padding:7px 12px 7px 0;border-bottom:1px solid var(--line);white-space:nowrap}
th{color:var(--soft);font-weight:600}tr:last-child td{border-bottom:0}
.wrap td:last-child{white-space:normal;overflow-wrap:anywhere}
.limits{border-left:6px solid #e69f00}.limits ul{margin:.2em 0;padding-left:1.2em}
img{display:block;width:100%;height:auto;background:#fff;border-radius:6px}
.plots{display:grid;grid-template-columns:1fr 1fr;gap:16px}.plots figure{margin:0}.plots .wide{grid-column:1/-1}
figcaption{color:var(--soft);font-size:.9rem;margin-top:6px}
pre{overflow-x:auto;background:var(--page);border:1px solid var(--line);border-radius:6px;padding:12px;margin:0}
summary{cursor:pointer;font-weight:600}
@media(max-width:720px){main{padding:12px 10px 40px}section{padding:14px}.plots{grid-template-columns:1fr}
body{font-size:15px}h1{font-size:1.35rem}}
"""


def to_html(report: Report) -> str:
    """The report as one self-contained page: its pictures are inside it, and it fetches nothing."""
    text = html.escape

    def table(t: _Table) -> str:
        if not t.rows:
            return f'<section><h2>{text(t.title)}</h2><p class="note">{text(t.note)}</p></section>'
        head = "".join(f'<th scope="col">{text(c)}</th>' for c in t.head)
        rows = "".join("<tr>" + "".join(f"<td>{text(c)}</td>" for c in row) + "</tr>" for row in t.rows)
        note = f'<p class="note">{text(t.note)}</p>' if t.note else ""
        wrap = " wrap" if len(t.head) == 2 else ""
        return (
            f'<section><h2>{text(t.title)}</h2>{note}<div class="scroll{wrap}"><table><thead><tr>{head}</tr></thead>'
            f"<tbody>{rows}</tbody></table></div></section>"
        )

    def figure(png: bytes, caption: str, kind: str = "") -> str:
        data = base64.b64encode(png).decode("ascii")
        return (
            f'<figure class="{kind}"><img src="data:image/png;base64,{data}" alt="{text(caption)}">'
            f"<figcaption>{text(caption)}</figcaption></figure>"
        )

    results, differences, runs, changed, environment = _tables(report)
    lines = "thin lines are seeds, thick ones their mean" if len(report.seeds) > 1 else "one seed"
    labels = [arm.label for arm in report.arms]
    plots = figure(draw_curves(report.runs, labels, "loss"), f"Training loss by epoch; {lines}.")
    plots += figure(draw_curves(report.runs, labels, "ap50"), f"Validation AP50 by epoch; {lines}.")
    plots += figure(draw_differences(report.differences), "Paired differences: dots are seeds, bars means and intervals.", "wide")
    limits = "".join(f"<li>{text(line)}</li>" for line in report.limits)
    badge = report.verdict if report.controlled else f"NOT CONTROLLED: {report.verdict}"
    config = text(json.dumps(report.config, indent=2))
    title = text("Activation comparison: " + ", ".join(labels))
    return f"""<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width,initial-scale=1">
<title>{title}</title><style>{_CSS}</style></head><body><main>
<h1>{title}</h1>
<section class="headline{"" if report.controlled else " bad"}"><span class="badge">{text(badge)}</span>
<p>{text(report.headline)}</p></section>
{table(results)}
{table(differences)}
<section><h2>Curves</h2><div class="plots">{plots}</div></section>
<section class="limits"><h2>What this does not show</h2><ul>{limits}</ul></section>
{table(changed)}
{table(runs)}
{table(environment)}
<section><h2>How to reproduce</h2><pre>{text(report.command)}</pre></section>
<section><details><summary>Configuration of the first arm</summary><pre>{config}</pre></details></section>
</main></body></html>
"""


def write_report(report: Report, out_dir: Path) -> Path:
    """Write report.html, report.md and report.json into ``out_dir``; gives the path of report.html."""
    out_dir.mkdir(parents=True, exist_ok=True)
    (out_dir / "report.json").write_text(to_json(report), encoding="utf-8")
    (out_dir / "report.md").write_text(to_markdown(report), encoding="utf-8")
    page = out_dir / "report.html"
    page.write_text(to_html(report), encoding="utf-8")
    return page
