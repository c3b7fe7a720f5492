"""The command line: one file a command; a command parses, calls one library function, prints what it returned."""

from __future__ import annotations

import os
from typing import Annotated

import typer

from yolomish import __version__
from yolomish.commands.acts import acts
from yolomish.commands.bench import bench
from yolomish.commands.compare import compare
from yolomish.commands.data import data_app
from yolomish.commands.demo import demo
from yolomish.commands.detect import detect
from yolomish.commands.door import DEBUG, run
from yolomish.commands.env import env
from yolomish.commands.eval import eval_
from yolomish.commands.export import export
from yolomish.commands.info import info
from yolomish.commands.landscape import landscape
from yolomish.commands.swap import swap
from yolomish.commands.train import train
from yolomish.commands.weights import weights_app
from yolomish.threads import settle_threads

app = typer.Typer(
    name="yolomish",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Which activation makes my detector better, and what does it cost? YOLOv4 with a pluggable activation.",
)


def _version(value: bool) -> None:
    if value:
        typer.echo(f"yolomish {__version__}")
        raise typer.Exit()


def _debug(value: bool) -> None:
    if value:
        os.environ[DEBUG] = "1"


@app.callback()
def _root(
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")] = False,
    debug: Annotated[bool, typer.Option("--debug", callback=_debug, help="Show the traceback of what is our fault.")] = False,
) -> None:
    pass


app.command("train")(train)
app.command("eval")(eval_)
app.command("detect")(detect)
app.command("predict", hidden=True)(detect)
app.command("compare")(compare)
app.command("demo")(demo)
app.add_typer(data_app, name="data")
app.add_typer(weights_app, name="weights")
app.command("export")(export)
app.command("bench")(bench)
app.command("info")(info)
app.command("acts")(acts)
app.command("swap")(swap)
app.command("env")(env)
app.add_typer(landscape, name="landscape")


def main() -> None:
    """Run the command line; see ``door.run`` for what becomes of errors."""
    settle_threads()
    run(app)
