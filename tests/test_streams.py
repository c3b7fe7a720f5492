"""Results go to stdout, progress and notes to stderr, and ``--log-file`` keeps both."""

import errno
import io
import json
import re
import sys
from pathlib import Path

import numpy as np
import pytest
from tqdm import tqdm
from typer.testing import CliRunner, Result

from yolomish.commands import app, door
from yolomish.commands.log_file import Copied, keep_log
from yolomish.data.images import write_image

SHAPES = ["--data", "shapes", "--fraction", "0.03"]


def said(*words: object) -> Result:
    return CliRunner().invoke(app, [*map(str, words)], catch_exceptions=False)


def test_info_prints_its_table_alone() -> None:
    done = said("info", "yolov4-n", "--json")
    assert json.loads(done.stdout)["parameters"] > 0 and done.stderr == ""


def test_detect_prints_pictures_and_says_how_on_stderr(tmp_path: Path) -> None:
    write_image(tmp_path / "a.png", np.zeros((64, 64, 3), np.uint8))
    words = ["detect", tmp_path / "a.png", tmp_path / "b.png", "--weights", "demo", "--engine", "torch", "--no-save"]
    (tmp_path / "b.png").write_bytes(b"no picture")
    done = said(*words)
    assert re.fullmatch(r"\S+a\.png 64x64: .*\n", done.stdout)
    assert "protocol" in done.stderr and "failed: " in done.stderr
    records = [json.loads(line) for line in said(*words, "--json").stdout.splitlines()]
    assert ["detections" in record for record in records] == [True, False]


def test_train_prints_results_and_says_epochs_on_stderr(tmp_path: Path) -> None:
    words = ["--model", "yolov4-n", "--epochs", 1, "--batch", 4, "--imgsz", 64, "--workers", 0, "--track", ""]
    done = said("train", *SHAPES, *words, "--output", tmp_path)
    results, wrote = done.stdout.splitlines()
    assert re.match(r"AP \d\.\d{4}  .* ms/step$", results) and wrote.startswith("wrote ")
    assert "epoch 1/1: " in done.stderr and "tensorboard" not in done.stderr


def test_eval_compare_and_export_print_results_and_say_the_rest_on_stderr(tmp_path: Path) -> None:
    for name, size in (("a", 64), ("b", 96)):
        done = said("eval", "--weights", "demo", *SHAPES, "--imgsz", size, "--no-plots", "--json", "--output", tmp_path / name)
        assert 0 <= json.loads(done.stdout)["AP"] <= 1 and f"wrote {tmp_path / name}" in done.stderr
    runs = [f"{name}={tmp_path / name / 'results.json'}" for name in "ab"]
    done = said("compare", *runs, *SHAPES, "--output", tmp_path, "--name", "c")
    *summary, last = done.stdout.splitlines()
    assert any("AP" in line for line in summary) and last.startswith(f"wrote {tmp_path / 'c' / 'report.html'}")
    assert not set(done.stdout.splitlines()) & set(done.stderr.splitlines())
    done = said("export", "--weights", "demo", "--format", "darknet", "--output", tmp_path / "d.weights")
    assert [line.split()[0] for line in done.stdout.splitlines()] == ["verified", "wrote"]


def run_with_log(log: Path, monkeypatch: pytest.MonkeyPatch, *words: str) -> object:
    before = sys.stdout, sys.stderr
    monkeypatch.setattr(sys, "argv", ["yolomish", "--log-file", str(log), *words])
    with pytest.raises(SystemExit) as ended:
        door.run(app)
    assert (sys.stdout, sys.stderr) == before
    return ended.value.code


def test_a_log_file_keeps_what_was_said_on_both_and_adds_to_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    log = tmp_path / "run.log"
    assert run_with_log(log, monkeypatch, "info", "yolov4-n", "--no-layers") == 0
    table = capsys.readouterr().out
    assert run_with_log(log, monkeypatch, "info", "yolov4-m") == 2
    error = capsys.readouterr().err
    head, *rest = re.split(r"^# [-\d]+ [:\d]+ yolomish --log-file .*\n", log.read_text(), flags=re.M)
    assert head == "" and rest == [table, error] and "yolov4-m" in error
    assert run_with_log(tmp_path / "no" / "run.log", monkeypatch, "info") == 2
    assert "--log-file" in capsys.readouterr().err


def test_a_log_file_leaves_progress_bars_out(tmp_path: Path) -> None:
    def bar_and_result() -> None:
        keep_log(str(tmp_path / "run.log"))
        for _ in tqdm(range(3), file=sys.stderr, leave=False, disable=False):
            pass
        print("a result")

    with pytest.raises(SystemExit):
        door.run(bar_and_result)
    assert (tmp_path / "run.log").read_text().splitlines()[1:] == ["a result"]


def test_a_log_file_on_a_full_disk_is_said_once_and_the_run_goes_on(capfd: pytest.CaptureFixture) -> None:
    class Full(io.StringIO):
        def write(self, text: str) -> int:
            raise OSError(errno.ENOSPC, "No space left on device")

    screen = io.StringIO()
    stream = Copied(screen, Full())
    stream.write("one\n")
    stream.write("two\n")
    assert screen.getvalue() == "one\ntwo\n"
    assert capfd.readouterr().err == "no log file from here on: it cannot be written: No space left on device\n"
