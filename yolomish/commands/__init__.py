"""The command line: one file a command; a command parses, calls one library function, prints what it returned."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from yolomish import __version__
from yolomish.commands.acts import acts
from yolomish.commands.bench import bench
from yolomish.commands.check import anchors, check
from yolomish.commands.compare import compare
from yolomish.commands.demo import demo
from yolomish.commands.detect import detect
from yolomish.commands.eval import eval_
from yolomish.commands.export import export
from yolomish.commands.info import info
from yolomish.commands.landscape import landscape
from yolomish.commands.swap import swap
from yolomish.commands.train import train
from yolomish.commands.weights import weights_app
from yolomish.errors import YolomishError

app = typer.Typer(
    name="yolomish",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Which activation makes my detector better, and what does it cost? YOLOv4 with a pluggable activation.",
)


def _version(value: bool) -> None:
    if value:
        typer.echo(f"yolomish {__version__}")
        raise typer.Exit()


@app.callback()
def _root(
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")] = False,
) -> None:
    pass


app.command("train")(train)
app.command("eval")(eval_)
app.command("detect")(detect)
app.command("predict", hidden=True)(detect)
app.command("compare")(compare)
app.command("demo")(demo)
app.add_typer(weights_app, name="weights")
app.command("export")(export)
app.command("bench")(bench)
app.command("info")(info)
app.command("acts")(acts)
app.command("swap")(swap)
app.command("check")(check)
app.command("anchors")(anchors)
app.add_typer(landscape, name="landscape")


def main() -> None:
    """Run the command line; what the user can fix is one line on stderr and exit code 2."""
    try:
        app()
    except YolomishError as error:
        print(f"yolomish: {error}", file=sys.stderr)
        sys.exit(2)
