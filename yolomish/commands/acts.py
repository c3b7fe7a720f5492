"""``yolomish acts``: what can stand behind ``--act``."""

from __future__ import annotations

from typing import Annotated

import typer

from yolomish.commands.options import split_list, trust_named


def acts(
    act: Annotated[str, typer.Option("--act", help="Names separated by commas [all known]", callback=trust_named)] = "",
    plot: Annotated[bool, typer.Option("--plot", help="Also draw f, f' and f'' as a PNG.")] = False,
    output: Annotated[str, typer.Option("--output", help="The PNG's file.")] = "activations.png",
    bench: Annotated[bool, typer.Option("--bench", help="Time each on this CPU instead: what it adds to a convolution.")] = False,
    engines: Annotated[
        str, typer.Option("--engines", help="Of --bench, by commas: torch, onnxruntime, openvino, also as NAME:half; training.")
    ] = "torch,onnxruntime,openvino,training",
    rounds: Annotated[int, typer.Option("--rounds", min=1, max=10_000, help="Rounds of --bench.")] = 15,
    processor_time: Annotated[
        bool, typer.Option("--processor-time", help="Of --bench: this process's time, not the wall's, for busy machines.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of the table.")] = False,
) -> None:
    """List the activations; draw them with --plot, time them with --bench."""
    import dataclasses
    import json

    from yolomish.activations import activation_names, find_activation

    names = split_list(act) or activation_names()
    records = {name: find_activation(name) for name in names}
    if bench:
        from yolomish.inference.act_bench import as_table, measure_activations

        costs = measure_activations(
            names,
            split_list(engines),
            rounds=rounds,
            processor_time=processor_time,
            say=lambda text: typer.echo(text, err=True),
        )
        typer.echo(json.dumps([dataclasses.asdict(cost) for cost in costs]) if as_json else "\n".join(as_table(costs)))
    else:
        lines = {name: r.description + (f" ({r.source})" if r.source else "") for name, r in records.items()}
        typer.echo(json.dumps(lines) if as_json else "\n".join(f"{name:12} {line}" for name, line in lines.items()))
    if plot:
        from yolomish.activations.plot import plot_activations

        plot_activations(names, output)
        typer.echo(f"wrote {output}", err=as_json)
