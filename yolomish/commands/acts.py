"""``yolomish acts``: what can stand behind ``--act``."""

from __future__ import annotations

from typing import Annotated

import typer

from yolomish.commands.options import split_list, trust_named


def acts(
    act: Annotated[str, typer.Option("--act", help="Names separated by commas; empty = all known.", callback=trust_named)] = "",
    plot: Annotated[bool, typer.Option("--plot", help="Also draw f, f' and f'' as a PNG.")] = False,
    output: Annotated[str, typer.Option("--output", help="The PNG's file.")] = "activations.png",
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of the table.")] = False,
) -> None:
    """List the activations; draw them with --plot."""
    import json

    from yolomish.activations import activation_names, find_activation

    names = split_list(act) or activation_names()
    records = {name: find_activation(name) for name in names}
    lines = {name: r.description + (f" ({r.source})" if r.source else "") for name, r in records.items()}
    if as_json:
        typer.echo(json.dumps(lines))
    else:
        for name, line in lines.items():
            typer.echo(f"{name:12} {line}")
    if plot:
        from yolomish.activations.plot import plot_activations

        plot_activations(names, output)
        typer.echo(f"wrote {output}", err=as_json)
