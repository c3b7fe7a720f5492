"""Nothing of the user's is overwritten or lost: names are claimed, files come whole, and each output has its own name."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from yolomish.commands import app
from yolomish.comparison.render import FILES, SUMS, check_report
from yolomish.data.shapes import shapes_root
from yolomish.errors import YolomishError
from yolomish.files import clean_name, free_folder, holding, read_text, refuse_existing, replace_file, write_text
from yolomish.inference.outputs import OutputChoice, Outputs
from yolomish.inference.sources import Frame
from yolomish.inference.stop import Stop
from yolomish.inference.video import VideoFile
from yolomish.trust import sha256_of
from yolomish.types import Detections
from yolomish.weights.store import DEMO_FILE

GREY = np.full((32, 48, 3), 90, np.uint8)


def found(*labels: int) -> Detections:
    boxes = torch.tensor([[2.0, 3.0, 20.0, 30.0]]).repeat(len(labels), 1)
    return Detections(boxes=boxes, scores=torch.full((len(labels),), 0.5), labels=torch.tensor(labels, dtype=torch.long))


def written(folder: Path) -> list[str]:
    return sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file())


def test_folders_claimed_at_once_are_different(tmp_path: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        folders = list(pool.map(lambda _: free_folder(tmp_path / "runs" / "r"), range(40)))
    assert len(set(folders)) == 40 and all(folder.is_dir() for folder in folders)


@pytest.mark.parametrize("name", ["", ".", "..", "/", "x" * 300, "a\0b"])
def test_a_folder_that_cannot_be_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(YolomishError) as error:
        free_folder(name)
    assert len(str(error.value)) < 350 and str(error.value).isprintable()


def test_a_held_folder_is_refused_and_free_again_when_its_holder_dies(tmp_path: Path) -> None:
    code = "import sys, time\nfrom pathlib import Path\nfrom yolomish.files import holding\n"
    code += "with holding(Path(sys.argv[1]), 'the run in'):\n    print('held', flush=True)\n    time.sleep(60)\n"
    holder = subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert holder.stdout and holder.stdout.readline() == "held\n"
    with pytest.raises(YolomishError, match="another process is at work on the run in"), holding(tmp_path, "the run in"):
        pass
    holder.kill()
    holder.wait()
    with holding(tmp_path, "the run in"):
        pass


@pytest.mark.parametrize("command", ["export --format onnx --imgsz 64", "export --format darknet --imgsz 64", "weights export"])
def test_an_export_overwrites_nothing_unasked(tmp_path: Path, command: str) -> None:
    weights = shutil.copy(DEMO_FILE, tmp_path / "w.pt")
    there = tmp_path / ("w.onnx" if "onnx" in command else "w.names")
    there.write_text("mine")
    asked = [*command.split(), *(["--weights", str(weights)] if "format" in command else [str(weights)])]
    done = CliRunner().invoke(app, asked)
    assert isinstance(done.exception, YolomishError) and "exists already" in str(done.exception)
    assert there.read_text() == "mine" and written(tmp_path) == sorted(["w.pt", there.name])
    if "onnx" not in command:
        assert CliRunner().invoke(app, [*asked, "--force"], catch_exceptions=False).exit_code == 0
        assert there.read_text() != "mine"


def test_a_dangling_link_counts_as_there(tmp_path: Path) -> None:
    (tmp_path / "x").symlink_to(tmp_path / "nowhere")
    with pytest.raises(YolomishError, match="--force"):
        refuse_existing([tmp_path / "x"], force=False)


def test_a_report_of_ones_own_is_kept_and_a_comparisons_is_renewed(tmp_path: Path) -> None:
    (tmp_path / "report.md").write_text("mine")
    with pytest.raises(YolomishError, match=r"report.md is not as a comparison left it: .*--name, or --force"):
        check_report(tmp_path)
    check_report(tmp_path, force=True)
    (tmp_path / SUMS).write_text(f"{sha256_of(b'mine')}  report.md\n")
    check_report(tmp_path)
    (tmp_path / "report.md").write_text("mine, and a note on it")
    with pytest.raises(YolomishError):
        check_report(tmp_path)
    assert FILES[-1] == "report.html"


def test_classes_called_up_and_long_have_crops_of_their_own(tmp_path: Path) -> None:
    names = ["..", ".", "", "a/b", "c" * 300, "ä" * 200, "nul\0", "-"]
    with Outputs(tmp_path, names, OutputChoice(crops=True)) as outputs:
        outputs.add(Frame(name="z-1.jpg", image=GREY), found())
        outputs.add(Frame(name="z.jpg", image=GREY), found(*range(8)))
        outputs.add(Frame(name="x" * 251 + ".jpg", image=GREY), found(0))
    files = written(tmp_path)
    assert [f for f in files if "/" not in f] == sorted(["z-1.jpg", "z.jpg", "x" * 120 + ".jpg"])
    assert len(files) == 3 + 9 and all(f.startswith("crops/") for f in files if "/" in f)
    assert cv2.imread(str(tmp_path / "z-1.jpg")).shape == GREY.shape


@pytest.mark.parametrize("video_first", [True, False])
def test_a_videos_frames_and_pictures_never_share_a_name(tmp_path: Path, video_first: bool) -> None:
    frames = [Frame(name="clip.mp4", image=GREY, number=i, fps=25.0) for i in range(3)]
    pictures = [Frame(name=f"clip-00000{i}.jpg", image=GREY) for i in range(3)] + [Frame(name="Clip.png", image=GREY)]
    with Outputs(tmp_path, ["a"], OutputChoice(txt=True, crops=True)) as outputs:
        for frame in frames + pictures if video_first else pictures + frames:
            outputs.add(frame, found(0))
    files = written(tmp_path)
    assert sum(f.startswith("labels/") for f in files) == 7 and sum(f.startswith("crops/") for f in files) == 7
    assert sum("/" not in f for f in files) == 5


def test_files_that_grow_have_their_name_only_when_whole(tmp_path: Path) -> None:
    with Outputs(tmp_path, ["a"], OutputChoice(pictures=True, json=True, csv=True)) as outputs:
        outputs.add(Frame(name="clip.mp4", image=GREY, number=0, fps=25.0), found(0))
        assert written(tmp_path) == ["clip.part.mp4", "detections.part.csv", "detections.part.json"]
    assert written(tmp_path) == ["clip.mp4", "detections.csv", "detections.json"]
    assert len(json.loads((tmp_path / "detections.json").read_text())["annotations"]) == 1


def test_a_video_that_lost_frames_is_not_called_whole(tmp_path: Path) -> None:
    video = VideoFile(tmp_path / "v.mp4", 25.0, (32, 48))
    for _ in range(10):
        video.write(GREY)
    video.frames += 1  # one that the disk did not take
    with pytest.raises(YolomishError, match=r"v.mp4 cannot be written, 11 frames are lost: is the disk full"):
        video.close()
    assert not written(tmp_path)


def test_a_video_that_cannot_begin_says_what_the_disk_says(tmp_path: Path) -> None:
    with pytest.raises(YolomishError, match=r"v.mp4 cannot be written: No such file or directory"):
        VideoFile(tmp_path / "gone" / "v.mp4", 25.0, (32, 48))
    with pytest.raises(YolomishError, match=r"v.mp4 cannot be written: OpenCV cannot make an MP4 of 0x0 px here"):
        VideoFile(tmp_path / "v.mp4", 25.0, (0, 0))
    assert not written(tmp_path)


def test_what_cannot_be_written_leaves_what_was_there(tmp_path: Path) -> None:
    write_text(tmp_path / "x.txt", "first \udcff")
    assert read_text(tmp_path / "x.txt") == "first \\udcff"

    def full(part: Path) -> None:
        part.write_text("half")
        raise OSError(28, "No space left on device")

    with pytest.raises(YolomishError, match=r"x.txt cannot be written: No space left on device; what was there is intact"):
        replace_file(tmp_path / "x.txt", full)
    assert written(tmp_path) == ["x.txt"]
    for name in ("y" * 300, "a\0b", "\ud800"):
        with pytest.raises(YolomishError, match="cannot be written"):
            write_text(tmp_path / name, "")
    write_text(tmp_path / ("z" * 251 + ".txt"), "the longest name")


@pytest.mark.parametrize(
    "text", ["..", ".", "", " ", "a/b\\c", ".hidden", "x" * 400, "ö" * 200, "a\0b", "\ud800", "e\u0301", "CON."]
)
def test_a_clean_name_is_a_name_everywhere(tmp_path: Path, text: str) -> None:
    name = clean_name(text)
    assert name not in ("", ".", "..") and not name.startswith(".") and len(name.encode()) <= 120
    (tmp_path / name).touch()
    assert [p.name for p in tmp_path.iterdir()] == [name] and clean_name(name) == name


def test_an_interrupt_waits_for_what_is_being_written_and_a_second_is_passed_over() -> None:
    stop, whole = Stop(), []
    with stop.listening(), pytest.raises(KeyboardInterrupt):
        with stop.shield():
            os.kill(os.getpid(), signal.SIGTERM)
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(0.01)
            whole.append(1)
    assert whole == [1] and stop.number == signal.SIGTERM


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no limit on a file's size")
def test_generated_pictures_that_do_not_fit_leave_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import resource

    monkeypatch.setenv("YOLOMISH_CACHE", str(tmp_path / "cache"))
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2000, hard))  # as a full disk: a picture is larger
    try:
        with pytest.raises(YolomishError, match=r"the generated pictures cannot be written: .*; \$YOLOMISH_CACHE names another"):
            shapes_root()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert not list((tmp_path / "cache").iterdir())
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("YOLOMISH_CACHE", str(tmp_path / "file"))
    with pytest.raises(YolomishError, match=r"cannot be written: Not a directory"):
        shapes_root()
