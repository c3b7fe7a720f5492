"""A plan in words."""

from __future__ import annotations

from yolomish.comparison.budget import Budget
from yolomish.comparison.render.numbers import count, number, percent, points
from yolomish.comparison.render.tables import Table
from yolomish.comparison.render.text import markdown
from yolomish.comparison.render.wording import range_text


def plan_text(plan: Budget) -> str:
    """The plan as Markdown: what a number of seeds finds and costs, and what the difference in question takes."""
    spreads, target = plan.spreads, points(plan.target, 2)
    known = spreads.seed_degrees is None
    lines = [
        "# Plan of a comparison",
        "",
        f"From {plan.basis}: one seed's difference has a deviation of {points(spreads.seed_sd, 2)} (AP x 100), the images' part "
        f"of the mean one of {points(spreads.image_error, 2)}{f' ({plan.images:,} images)' if plan.images else ''}. "
        f"{count(plan.arms, 'arm')}, {percent(plan.confidence)} intervals; to find means in four of five comparisons.",
        "",
    ]
    rows = tuple(
        (str(row.seeds), points(row.finds, 2), *(() if known else (points(row.finds_surely, 2),)), number(row.hours, ",.1f"))
        for row in plan.rows
    )
    sure = () if known else ("finds, 80 % sure",)
    hours = f"hours, all arms ({number(plan.hours_each, '.2g')} each)"
    lines += markdown(Table(title="What seeds find", note="", head=("seeds per arm", "finds", *sure, hours), rows=rows))
    lines.append(f"A true difference of {target} takes {range_text(plan.seeds, 'seeds per arm')}.")
    if plan.hours_each and plan.seeds.guess:
        lines.append(
            f"That is {plan.seeds.guess * plan.arms * plan.hours_each:,.1f} hours of training on the machine that took these."
        )
    if not spreads.image_error:
        lines.append("The chance of the images is not counted: --image-error, or plan from finished runs.")
    elif plan.seeds.guess is None:
        lines.append(f"Or {range_text(plan.more_images, 'times the images')} at {plan.most} seeds per arm.")
    if spreads.seed_degrees is not None and spreads.seed_degrees < 2:
        lines.append("Two seeds hardly show their own spread: a third narrows this range most.")
    return "\n".join(lines)
