"""Darknet's own program beside our engines, by a stand-in that prints what src/detector.c prints, buffered as it buffers."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from reference.networks import calibrated
from typer.testing import CliRunner

from yolomish.commands import app
from yolomish.errors import YolomishError
from yolomish.inference.darknet_program import DarknetProgram, find_program
from yolomish.weights.load import LoadedNetwork, load_network

HEAD = f"""#!{sys.executable}
import os, pathlib, shutil, signal, sys, time
print(" CUDA-version: 0, OPENMP", file=sys.stderr)
assert sys.argv[1:3] == ["detector", "test"] and sys.argv[6:] == ["-dont_show", "-ext_output"]
here = pathlib.Path(__file__).parent
for name in sys.argv[3:6]:
    shutil.copy(name, here)
names = dict(line.split("=") for line in pathlib.Path(sys.argv[3]).read_text().split())["names"]
shutil.copy(names, here)
"""
TEST = """
n = 0
while True:
    sys.stdout.write("Enter Image Path: ")
    sys.stdout.flush()
    line = sys.stdin.readline()
    if not line:
        break
    n += 1
    assert pathlib.Path(line.rstrip()).is_file() and os.environ["OMP_NUM_THREADS"] == "1"
    print(" Detection layer: 139 - type = 28 \\n Detection layer: 150 - type = 28 ")
    print(f"{line.rstrip()}: Predicted in {1000 * n + 0.5:f} milli-seconds.")
    print("dog: 98%\\t(left_x:  128   top_y:  222   width:  185   height:  320)")
"""


@pytest.fixture
def loaded() -> LoadedNetwork:
    network = calibrated()
    return LoadedNetwork(network=network, names=tuple(map(str, range(network.heads[0].num_classes))))


def program(folder: Path, body: str, head: str = HEAD) -> Path:
    file = folder / "darknet"
    file.write_text(head + body)
    file.chmod(0o755)
    return file


def asked(file: Path, loaded: LoadedNetwork, calls: int = 1, timeout: float = 60.0) -> list[float]:
    """The seconds that a program says of each call."""
    theirs = DarknetProgram(file, loaded, np.zeros((40, 50, 3), np.uint8), (64, 96), threads=1, timeout=timeout)
    try:
        for _ in range(calls):
            theirs(None)  # type: ignore[arg-type]
        return theirs.seconds
    finally:
        theirs.close()


def test_it_is_asked_once_a_call_about_the_same_network(loaded: LoadedNetwork, tmp_path: Path) -> None:
    assert asked(program(tmp_path, TEST), loaded, calls=3) == [1.0005, 2.0005, 3.0005]
    given = load_network(str(tmp_path / "net.weights"), cfg=str(tmp_path / "net.cfg"))
    assert given.names == loaded.names and given.network.input.size_hw == (64, 96)
    images = torch.rand(1, 3, 64, 96)
    with torch.no_grad():
        torch.testing.assert_close(given.network.eval()(images), loaded.network.eval()(images))


def test_bench_shows_its_own_times_beside_ours(tmp_path: Path) -> None:
    options = "--model yolov4-n --imgsz 64 --engines torch --rounds 2 --threads 1 --json --darknet"
    done = CliRunner().invoke(app, ["bench", *options.split(), str(program(tmp_path, TEST))])
    assert done.exit_code == 0, done.output
    ours, theirs = json.loads(done.stdout.splitlines()[-1])["timings"]
    assert (ours["engine"], theirs["engine"]) == ("torch", "darknet") and len(ours["seconds"]) == 2
    assert theirs["seconds"] == [2.0005, 3.0005]  # the first, before the rounds, warms up


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ("print('Segmentation fault'); sys.exit(3)", "ended with exit code 3: Segmentation fault"),
        ("sys.stderr.close(); os.kill(os.getpid(), signal.SIGSEGV)", "was ended by SIGSEGV"),
        (TEST.replace("Predicted in", "Done in"), "does not say 'Predicted in ... milli-seconds.'"),
        ("sys.stdout.write('Enter Image Path: '); sys.stdout.flush(); sys.exit(1)", "ended with exit code 1"),
    ],
)
def test_what_goes_wrong_is_one_line(loaded: LoadedNetwork, tmp_path: Path, body: str, words: str) -> None:
    with pytest.raises(YolomishError, match=words):
        asked(program(tmp_path, body), loaded)


def test_silence_is_waited_for_so_long_and_an_empty_end_is_named(loaded: LoadedNetwork, tmp_path: Path) -> None:
    with pytest.raises(YolomishError, match=r"said nothing for 0\.3 s"):
        asked(program(tmp_path, "sleep 60\n", head="#!/bin/sh\nexec "), loaded, timeout=0.3)
    with pytest.raises(YolomishError, match="ended with exit code 0 and printed nothing"):
        asked(program(tmp_path, "", head="#!/bin/sh\n"), loaded)
    with pytest.raises(YolomishError, match="cannot be started: "):
        asked(program(tmp_path, "", head="no program\n"), loaded)


def test_a_program_that_is_not_there_or_does_not_fit_is_refused_first(tmp_path: Path) -> None:
    with pytest.raises(YolomishError, match="--darknet nowhere/darknet is no program here"):
        find_program("nowhere/darknet")
    options = "--model yolov4-n --imgsz 64 --engines torch --rounds 1 --batch 2 --darknet"
    done = CliRunner().invoke(app, ["bench", *options.split(), str(program(tmp_path, TEST))])
    assert done.exit_code != 0 and "one picture at a time" in str(done.exception or done.output)
