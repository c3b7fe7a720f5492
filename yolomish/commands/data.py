"""``yolomish data``: what is done with data sets before and beside training."""

from __future__ import annotations

import typer

from yolomish.commands.convert import convert

data_app = typer.Typer(no_args_is_help=True, help="Convert data sets.")
data_app.command("convert")(convert)
