"""The report as one self-contained page: its pictures are inside it, and it fetches nothing."""

from __future__ import annotations

import base64
import html
import json
from collections.abc import Sequence

from yolomish.comparison import tables
from yolomish.comparison.findings import Report
from yolomish.comparison.gallery import Disagreement
from yolomish.comparison.plots import PANELS, draw_curves, draw_differences, draw_layers, draw_sizes, draw_tradeoff
from yolomish.comparison.style import CSS
from yolomish.comparison.tables import MOST_CLASSES, Table
from yolomish.comparison.text import to_latex

_text = html.escape


def _table(t: Table, *, folded: bool = False) -> str:
    note = f'<p class="note">{_text(t.note)}</p>' if t.note else ""
    if not t.rows:
        return f"<section><h2>{_text(t.title)}</h2>{note}</section>" if note else ""
    head = "".join(f'<th scope="col">{_text(c)}</th>' for c in t.head)
    rows = "".join("<tr>" + "".join(f"<td>{_text(c)}</td>" for c in row) + "</tr>" for row in t.rows)
    wrap = " wrap" if len(t.head) == 2 else ""
    body = (
        f'{note}<div class="scroll{wrap}" tabindex="0"><table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table></div>'
    )
    if folded:
        return f"<section><details><summary>{_text(t.title)}</summary>{body}</details></section>"
    return f"<section><h2>{_text(t.title)}</h2>{body}</section>"


def _image(data: bytes, kind: str, text: str) -> str:
    return f'<img src="data:image/{kind};base64,{base64.b64encode(data).decode("ascii")}" alt="{_text(text)}">'


def _figure(png: bytes, caption: str, kind: str = "") -> str:
    return f'<figure class="{kind}">{_image(png, "png", caption)}<figcaption>{_text(caption)}</figcaption></figure>'


def _plots(title: str, figures: Sequence[str], note: str = "") -> str:
    shown = "".join(figures)
    text = f'<p class="note">{_text(note)}</p>' if note else ""
    return f'<section><h2>{_text(title)}</h2>{text}<div class="plots">{shown}</div></section>' if shown else ""


def _curves(report: Report) -> str:
    if not any(run.epochs for run in report.runs):
        return ""
    lines = "thin lines are seeds, thick ones their mean, bands their range" if len(report.seeds) > 1 else "one seed"
    return _plots(
        "Curves",
        [
            _figure(draw_curves(report, "loss"), f"Training loss by epoch; {lines}."),
            _figure(draw_curves(report, "ap"), f"Validation AP by epoch; {lines}."),
        ],
    )


def _breakdown(report: Report) -> str:
    figures = []
    if all("AP" in arm.levels for arm in report.arms):
        figures.append(_figure(draw_sizes(report), "AP by size of object, with 95 % intervals."))
    if report.class_differences:
        chosen = sorted(report.class_differences, key=lambda d: -abs(d.mean))[:MOST_CLASSES]
        figures.append(_figure(draw_differences(chosen), "Differences in AP by class, largest first; dots are seeds."))
    return _plots("By size and by class", figures)


def _gallery(found: Sequence[Disagreement]) -> str:
    if not found:
        return ""
    rows = []
    for item in found:
        cells = [f"<figure>{_image(item.truth, 'jpeg', f'truth of {item.name}')}<figcaption>truth</figcaption></figure>"]
        for arm, picture, (right, wrong, missed) in zip(item.arms, item.pictures, item.counts, strict=True):
            words = f"{arm}: {right} right, {wrong} wrong, {missed} missed"
            alt = _image(picture, "jpeg", f"{arm} on {item.name}")
            cells.append(f"<figure>{alt}<figcaption>{_text(words)}</figcaption></figure>")
        rows.append(f'<h3>{_text(item.name)}</h3><div class="row">{"".join(cells)}</div>')
    note = (
        "The images on which the first two arms (first seed, score over 0.25, IoU 0.5) differ most, in both directions; "
        "an x marks a wrong box. Chosen for their difference: they do not show the average image."
    )
    return f'<section><h2>Where the arms disagree most</h2><p class="note">{note}</p>{"".join(rows)}</section>'


def _layers(report: Report) -> str:
    if not report.layers:
        return ""
    captions = {key: f"{title.capitalize()}, layer by layer in the order of the network." for key, (title, _) in PANELS.items()}
    return _plots("Activations by layer", [_figure(draw_layers(report.layers, key), text) for key, text in captions.items()])


def _tradeoff(report: Report) -> str:
    if not report.speed:
        return ""
    caption = "Up and left is better; a disc's area grows with the peak memory of training."
    return _plots("Speed, accuracy, memory", [_figure(draw_tradeoff(report), caption)])


def to_html(report: Report, gallery: Sequence[Disagreement] = ()) -> str:
    """The page; ``gallery`` are the pictures of the images on which arms disagree."""
    labels = [arm.label for arm in report.arms]
    shown = [d for d in report.differences if d.low is not None or len(d.per_seed) > 1]
    forest = (
        _plots(
            "Differences at a glance",
            [
                _figure(
                    draw_differences(shown), "Dots are seeds, diamonds means, bars intervals; right of 0 the first arm is better."
                )
            ],
        )
        if shown
        else ""
    )
    limits = "".join(f"<li>{_text(line)}</li>" for line in report.limits)
    declared = "".join(f'<p class="declared">{_text(line)}</p>' for line in report.declared)
    badge = report.verdict if report.controlled else f"NOT CONTROLLED: {report.verdict}"
    title = _text("Activation comparison: " + ", ".join(labels))
    config = _text(json.dumps(report.config, indent=2))
    folded = (
        f"<section><details><summary>Configuration of the first arm</summary><pre>{config}</pre></details></section>"
        if report.config
        else ""
    )
    return f"""<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width,initial-scale=1">
<title>{title}</title><style>{CSS}</style></head><body><main>
<h1>{title}</h1>
<section class="headline{"" if report.controlled else " bad"}"><span class="badge">{_text(badge)}</span>
<p>{_text(report.headline)}</p>{declared}</section>
{_table(tables.results(report))}
{forest}
{_table(tables.differences(report))}
{_table(tables.tests(report))}
{_curves(report)}
{_breakdown(report)}
{_table(tables.classes(report), folded=True)}
{_tradeoff(report)}
{_table(tables.cost(report)) if report.speed or any(arm.step_ms for arm in report.arms) else ""}
{_gallery(gallery)}
{_layers(report)}
{_table(tables.layers(report)) if report.layers else ""}
{_table(tables.tuned(report))}
<section class="limits"><h2>What this does not show</h2><ul>{limits}</ul></section>
{_table(tables.changed(report))}
{_table(tables.runs(report), folded=True)}
{_table(tables.surroundings(report))}
<section><h2>How to reproduce</h2><pre>{_text(report.command)}</pre></section>
<section><details><summary>LaTeX tables</summary><pre>{_text(to_latex(report))}</pre></details></section>
{folded}
</main></body></html>
"""
