"""The command line: one file a command; a command parses, calls one library function, prints what it returned."""

from __future__ import annotations

import os
import sys
from typing import Annotated

import typer

from yolomish.commands.acts import acts
from yolomish.commands.bench import bench
from yolomish.commands.compare import compare
from yolomish.commands.data import data_app
from yolomish.commands.demo import demo
from yolomish.commands.detect import detect
from yolomish.commands.door import DEBUG, run
from yolomish.commands.env import brief, env
from yolomish.commands.eval import eval_
from yolomish.commands.export import export
from yolomish.commands.help import command
from yolomish.commands.info import info
from yolomish.commands.landscape import landscape
from yolomish.commands.log_file import keep_log
from yolomish.commands.swap import swap
from yolomish.commands.train import train
from yolomish.commands.weights import weights_app
from yolomish.threads import settle_threads

app = typer.Typer(
    name="yolomish",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    help="Which activation makes my detector better, and what does it cost? YOLOv4 with a pluggable activation.",
)


def _version(value: bool) -> None:
    if value:
        typer.echo(brief())
        raise typer.Exit()


def _debug(value: bool) -> None:
    if value:
        os.environ[DEBUG] = "1"


def _log_file(value: str) -> None:
    if value:
        keep_log(value)


@app.callback()
def _root(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_version, is_eager=True, help="Print the versions of yolomish, torch and engines."),
    ] = False,
    debug: Annotated[bool, typer.Option("--debug", callback=_debug, help="Show the traceback of what is our fault.")] = False,
    log_file: Annotated[
        str, typer.Option("--log-file", metavar="FILE", callback=_log_file, help="Add all that is printed to this file, too.")
    ] = "",
) -> None:
    pass


command(
    app,
    "train",
    "yolomish train --act mish --data my.yaml",
    "yolomish train --model yolov4-tiny --weights yolov4-tiny.conv.29 \\",
    "    --data my.yaml --recipe finetune --imgsz 416",
    "yolomish train --act my_file.py:my_activation --data my.yaml --dry-run",
    "yolomish train --resume runs/train/yolov4-mish",
)(train)
command(
    app,
    "eval",
    "yolomish eval --weights best.pt --data my.yaml",
    "yolomish eval --weights yolov4-tiny --data coco.yaml --protocol darknet",
    "yolomish eval --weights best.pt --data my.yaml --json > metrics.json",
)(eval_)
DETECT = (
    "yolomish detect photo.jpg",
    "yolomish detect pictures/ clip.mp4 --weights best.pt --conf 0.4",
    "yolomish detect 0 --show --weights yolov4-tiny",
    "yolomish detect photo.jpg --no-save --json | jq .detections",
)
command(app, "detect", *DETECT)(detect)
command(app, "predict", *DETECT, hidden=True)(detect)
command(
    app,
    "compare",
    "yolomish compare --acts mish,leaky_relu --seeds 5 --data my.yaml",
    "yolomish compare runs/train/a runs/train/b",
    "yolomish compare ours=a.json theirs=b.json --data my.yaml",
    "yolomish compare --plan --acts mish,relu --resolve 0.005 --hours 3",
)(compare)
command(app, "demo", "yolomish demo", "yolomish demo --acts mish,silu,relu --epochs 5")(demo)
app.add_typer(data_app, name="data")
app.add_typer(weights_app, name="weights")
command(
    app,
    "export",
    "yolomish export --weights best.pt --format onnx",
    "yolomish export --weights best.pt --format openvino --imgsz 416",
    "yolomish export --weights best.pt --int8 --data my.yaml",
)(export)
command(
    app,
    "bench",
    "yolomish bench --weights yolov4-tiny --imgsz 416",
    "yolomish bench --engines torch,openvino --acts mish,leaky_relu --threads 1",
)(bench)
command(
    app,
    "info",
    "yolomish info yolov4",
    "yolomish info yolov4-tiny --act mish --imgsz 320x416 --no-layers",
    "yolomish info my.cfg --json",
)(info)
command(app, "acts", "yolomish acts", "yolomish acts --act mish,silu --plot", "yolomish acts --bench --rounds 5")(acts)
command(
    app,
    "swap",
    "yolomish swap yolov4-tiny --to mish --data my.yaml",
    "yolomish swap best.pt --to relu --scope backbone --data my.yaml --epochs 3",
)(swap)
command(app, "env", "yolomish env")(env)
app.add_typer(landscape, name="landscape")


def main() -> None:
    """Run the command line; see ``door.run`` for what becomes of errors."""
    settle_threads(training=sys.argv[1:2] == ["train"])
    run(app)
