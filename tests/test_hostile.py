"""At the door: one line whatever happens, a log file for a bug, and values that are bounded wherever they come from."""

import io
import os
import struct
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from PIL import Image
from reference.hostile_graphs import exported

from yolomish.commands import door
from yolomish.commands.demo import demo_config
from yolomish.config import ModelConfig, TrainConfig, check_train, load_data_config, parse_yaml
from yolomish.data.images import decode_image, read_image
from yolomish.data.loader import WorkerLost, lost_workers
from yolomish.errors import YolomishError, shown, unknown_name
from yolomish.files import replace_file
from yolomish.inference.engines.exported import open_exported
from yolomish.inference.engines.onnxruntime_engine import OnnxRuntimeEngine
from yolomish.networks import build_network
from yolomish.training.trackers import Trackers
from yolomish.weights.load import load_network
from yolomish.weights.store import DEMO_FILE

PAIRS = zip("abcdefg", "bcdefgh", strict=True)
BOMB = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(f"{c}: &{c} [{','.join(['*' + p] * 9)}]\n" for p, c in PAIRS)


def leave(app: object, capsys: pytest.CaptureFixture) -> tuple[int, str]:
    with pytest.raises(SystemExit) as ended:
        door.run(app)  # type: ignore[arg-type]
    return int(str(ended.value.code)), capsys.readouterr().err


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (YolomishError("a\nb \x1b[31m"), 2, "yolomish: a b \\x1b[31m\n"),
        (OSError(28, "No space left on device", "x.png"), 2, "yolomish: No space left on device: x.png\n"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried"), 2, "not enough memory"),
        (ValueError("embedded null byte"), 2, "yolomish: a name holds the character NUL, which no file can be called\n"),
        (KeyboardInterrupt(), 130, ""),
        (BrokenPipeError(), 1, ""),
        (SystemExit(3), 3, ""),
    ],
)
def test_what_is_no_bug_is_one_line(error: BaseException, code: int, line: str, capsys: pytest.CaptureFixture) -> None:
    def app() -> None:
        raise error

    found, text = leave(app, capsys)
    assert found == code and line in text and text.count("\n") <= 1


def test_a_bug_is_one_line_with_a_log_and_its_traceback_on_demand(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setenv("YOLOMISH_CACHE", str(tmp_path))
    code, text = leave(lambda: {}["no such key"], capsys)
    (log,) = (tmp_path / "logs").iterdir()
    assert code == 1 and text.count("\n") == 1 and f"this is a bug, please report it with {log}" in text
    assert "Traceback" in log.read_text() and "Traceback" not in text
    monkeypatch.setenv(door.DEBUG, "1")
    assert "Traceback" in leave(lambda: 1 / 0, capsys)[1]
    (tmp_path / "file").touch()
    monkeypatch.setenv("YOLOMISH_CACHE", str(tmp_path / "file"))
    assert "this is a bug" in leave(lambda: 1 / 0, capsys)[1]


def test_what_python_itself_ignores_shows_no_traceback(capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "unraisablehook", sys.unraisablehook)  # put back at the end

    class Broken:
        def __del__(self) -> None:
            raise KeyError("thread")

    def app() -> None:
        Broken()

    assert leave(app, capsys) == (0, "")
    monkeypatch.setenv(door.DEBUG, "1")
    assert "KeyError: 'thread'" in leave(app, capsys)[1]


def test_what_ends_a_thread_is_one_line(capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threading, "excepthook", threading.excepthook)  # put back at the end

    def write() -> None:
        raise OSError(28, "No space left on device")

    def app() -> None:
        thread = threading.Thread(target=write)
        thread.start()
        thread.join()

    assert leave(app, capsys) == (0, "yolomish: a thread in the background ended: No space left on device\n")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
def test_a_full_stdout_and_one_that_is_ascii() -> None:
    command = [sys.executable, "-m", "yolomish", "weights", "list"]
    with open("/dev/full", "w") as full:
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True)
    assert done.returncode in (1, 2) and done.stderr == "yolomish: No space left on device\n"
    code = "from yolomish.commands.door import run; run(lambda: print('größe'))"
    environment = {**os.environ, "PYTHONIOENCODING": "ascii"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment)
    assert (done.returncode, done.stdout, done.stderr) == (0, "gr\\xf6\\xdfe\n", "")


@pytest.mark.parametrize(
    "text",
    [
        BOMB,
        "a: &a [*a]",
        "[" * 5000,
        "{a: " * 5000,
        "!!int ''",
        "!!float x",
        "!!bool maybe",
        "2020-99-99",
        "9" * 4500,
        "!!python/object/apply:os.system [touch ran]",
        "x: \0",
        "- " * 3000,
    ],
)  # fmt: skip
def test_a_yaml_bomb_is_refused_at_once_in_one_short_line(text: str) -> None:
    began = time.monotonic()
    with pytest.raises(YolomishError, match=r"d.yaml cannot be read as YAML") as error:
        parse_yaml(text, "d.yaml")
    assert time.monotonic() - began < 5 and len(str(error.value)) < 300 and "\n" not in str(error.value)


def test_an_alias_that_is_no_bomb_is_fine() -> None:
    assert parse_yaml("a: &a [1, 2]\nb: *a\nc: {<<: {d: 1}}", "d.yaml") == {"a": [1, 2], "b": [1, 2], "c": {"d": 1}}


@pytest.mark.parametrize("value", ["0x" + "f" * 4000, '"a\\0b"', '"\\ud800"', "[[[[1]]]]"])
def test_a_path_that_cannot_be_is_named(tmp_path: Path, value: str) -> None:
    (tmp_path / "d.yaml").write_text(f"format: yolo\nroot: {value}\n")
    with pytest.raises(YolomishError, match=r"d.yaml.root") as error:
        load_data_config(str(tmp_path / "d.yaml"))
    assert len(str(error.value)) < 500


def test_values_are_shown_short_and_on_one_line() -> None:
    bomb: list = ["x"] * 9
    for _ in range(30):
        bomb = [bomb] * 9
    for value in (bomb, "a" * 10**6, 10**5000, {"a": bomb}, torch.zeros(9, 9), "a\nb"):
        assert len(shown(value)) <= 300 and "\n" not in shown(value)
    assert shown("mish") == "'mish'" and len(str(unknown_name("class", "x", ["y" * 10**5] * 10**4))) < 10_000


@pytest.mark.parametrize(
    ("key", "value"),
    [("seed", -1), ("seed", 10**30), ("batch", 10**9), ("epochs", 10**12), ("workers", 10**6), ("peak_lr", float("inf"))],
)
def test_training_values_have_upper_bounds(key: str, value: float) -> None:
    with pytest.raises(YolomishError, match=f"{key} must be"):
        check_train(TrainConfig(**{key: value}))


@pytest.mark.parametrize(
    "values", [{"width": 1e9}, {"depth": 1e5}, {"num_classes": 10**9}, {"width": float("nan")}, {"bn_momentum": float("nan")}]
)
def test_a_network_out_of_bounds_is_refused_before_it_is_built(values: dict[str, float]) -> None:
    with pytest.raises(YolomishError):
        build_network(ModelConfig(**values))  # type: ignore[arg-type]


def test_a_networks_parameters_are_counted_before_there_is_memory_for_them() -> None:
    with pytest.raises(YolomishError, match=r"width 8, depth 1 and 80 classes has [4-5],\d+ million parameters, over the 1,000"):
        build_network(ModelConfig(width=8))


def test_weights_that_are_nan_are_named(tmp_path: Path) -> None:
    content = torch.load(DEMO_FILE, weights_only=True)
    name = list(content["model"])[4]
    content["model"][name] = content["model"][name] * float("nan")
    content["ema"] = None
    torch.save(content, tmp_path / "w.pt")
    with pytest.raises(YolomishError, match=rf"w.pt: \d+ of \d+ values of {name} are not finite"):
        load_network(str(tmp_path / "w.pt"))


def test_a_picture_over_the_bound_is_not_decoded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Image.new("1", (20_000, 20_000)).save(tmp_path / "big.png")
    monkeypatch.setattr(cv2, "imdecode", lambda *_: pytest.fail("decoded"))
    with pytest.raises(YolomishError, match=r"big.png has 400 megapixels, more than the 179 that are decoded: .*--max-pixels"):
        read_image(tmp_path / "big.png")
    monkeypatch.undo()
    monkeypatch.setenv("YOLOMISH_MAX_PIXELS", "100")
    cv2.imwrite(str(tmp_path / "small.png"), np.zeros((11, 10, 3), np.uint8))
    with pytest.raises(YolomishError, match=r"small.png has 0 megapixels"):
        read_image(tmp_path / "small.png")


def _tiff(samples: int, width: int, height: int) -> bytes:
    fields = [(256, 4, width), (257, 4, height), (258, 3, 8), (259, 3, 1), (262, 3, 2), (273, 4, 8), (277, 3, samples)]
    entries = b"".join(struct.pack("<HHII", tag, kind, 1, value) for tag, kind, value in fields)
    return struct.pack("<2sHIH", b"II", 42, 8, len(fields)) + entries + bytes(4)


@pytest.mark.parametrize(
    "content",
    [
        b"\x89PNG\r\n\x1a\n" + struct.pack(">I4sIIBBBBBI", 13, b"IHDR", 30_000, 30_000, 8, 2, 0, 0, 0, 12345),  # a wrong checksum
        b"BM" + struct.pack("<IIIIiiHHIIIIII", 54, 0, 54, 40, 30_000, -30_000, 1, 24, 9, 0, 0, 0, 0, 0),  # an unknown compression
        _tiff(300, 30_000, 30_000),
        b"\xff\xd8\xff\xc0" + struct.pack(">HBHHB", 23, 8, 30_000, 30_000, 5) + bytes(15) + b"\xff\xda",  # five components
    ],
    ids=["png", "bmp", "tiff", "jpeg"],
)
def test_a_damaged_picture_over_the_bound_is_not_decoded(content: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(Exception, match=r"."), Image.open(io.BytesIO(content)):
        pass  # Pillow tells no size
    monkeypatch.setattr(cv2, "imdecode", lambda *_: pytest.fail("decoded"))
    with pytest.raises(YolomishError, match=r"x has 900 megapixels"):
        decode_image(np.frombuffer(content, np.uint8), "x")


@pytest.mark.parametrize(
    "content",
    [
        b"#?RADIANCE\nFORMAT=32-bit_rle_rgbe\n\n-Y 30000 +X 30000\n",  # OpenCV would take 10 GB
        b"\x89PNG\r\n\x1a\n" + struct.pack(">I4sIIBBBBBI", 13, b"IHDR", 40_000, 0, 8, 2, 0, 0, 0, 12345),  # and 4 GB
        cv2.imencode(".png", np.zeros((24, 31, 3), np.uint8))[1].tobytes().replace(b"IDAT", b"\xcdIDAT"),  # a chunk of 4 GB
    ],
    ids=["hdr", "png", "png-chunk"],
)
def test_a_picture_whose_header_says_no_size_is_not_decoded(content: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cv2, "imdecode", lambda *_: pytest.fail("decoded"))
    with pytest.raises(YolomishError, match=r"x is not an image that OpenCV can read"):
        decode_image(np.frombuffer(content, np.uint8), "x")


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no getrusage")
@pytest.mark.parametrize(("depth", "suffix"), [(np.uint8, ".png"), (np.uint16, ".png"), (np.uint8, ".webp"), (np.uint16, ".tif")])
def test_decoding_takes_at_most_sixteen_bytes_a_pixel(depth: type, suffix: str, tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / f"p{suffix}"), np.zeros((4000, 5000, 3 if suffix != ".png" else 4), depth))
    code = (
        "import resource, sys; from yolomish.data.images import decode_image, read_image\n"
        "most = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024\n"
        "before = most(); read_image(sys.argv[1]); print(most() - before)"
    )
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path / f"p{suffix}")], capture_output=True, text=True, check=True)
    size = (tmp_path / f"p{suffix}").stat().st_size
    assert int(done.stdout) <= 16 * 20e6 + 3 * size + 16e6  # the file's bytes, and what libraries load at the first picture


def test_a_lost_loader_process_is_a_line() -> None:
    with pytest.raises(WorkerLost, match=r"a process that loads images was killed .*Fewer --workers"), lost_workers():
        raise RuntimeError("DataLoader worker (pid 7) is killed by signal: Killed. ")
    with pytest.raises(WorkerLost, match=r"a process that loads images was killed \(DataLoader worker"), lost_workers():
        try:  # torch's handler interrupts a thread's start: threading.py cleans up after a thread that has begun
            raise RuntimeError("DataLoader worker (pid 7) is killed by signal: Killed. ")
        except Exception:
            del {}["thread"]
    with pytest.raises(RuntimeError, match="other"), lost_workers():
        raise RuntimeError("other")


def test_openvino_sees_no_damaged_ir(tmp_path: Path, capfd: pytest.CaptureFixture) -> None:
    pytest.importorskip("openvino", reason="OpenVINO reads these files")
    layer = '<layer id="0" name="w" type="Const"><data element_type="f32" shape="4" offset="{}" size="{}"/></layer>'
    file, weights = tmp_path / "m.xml", tmp_path / "m.bin"
    weights.write_bytes(bytes(16))
    for text, wrong in (
        ("<net", "is no XML"),
        ('<?xml version="1.0" encoding="x"?><net/>', "is no XML"),
        ("<graph/>", "is no OpenVINO network: it is a <graph>"),
        (f"<net><layers>{layer.format(4, 16)}</layers></net>", r"\('4', '16'\) \(offset, size\) of m.bin, which holds 16"),
        (f"<net><layers>{layer.format(-1, 16)}</layers></net>", "takes bytes"),
        (f"<net><layers>{layer.format(0, '9' * 30)}</layers></net>", "takes bytes"),
    ):
        file.write_text(text)
        with pytest.raises(YolomishError, match=wrong):
            open_exported(file, device=torch.device("cpu"))
    assert capfd.readouterr() == ("", "")  # its reader writes to stderr itself


def _longer(model: Any) -> None:
    model.opset_import[0].version = 2**31 - 1


def _bomb(model: Any) -> None:
    import onnx

    model.graph.initializer.append(onnx.numpy_helper.from_array(np.array([2**20, 2**20]), "size"))
    model.graph.node.insert(0, onnx.helper.make_node("ConstantOfShape", ["size"], ["big"]))


def _wide(model: Any) -> None:
    import onnx

    model.graph.initializer.append(onnx.numpy_helper.from_array(np.array([1, 1, 10**4, 10**4], np.float32), "factors"))
    model.graph.node.append(onnx.helper.make_node("Resize", ["images", "", "factors"], ["big"]))


def _unknown(model: Any) -> None:
    import onnx

    model.graph.node.append(onnx.helper.make_node("NonZero", ["images"], ["some"]))


def _hidden(model: Any) -> None:
    import onnx

    _bomb(model)
    model.functions.append(
        onnx.helper.make_function("own", "Big", ["size"], ["big"], [model.graph.node[0]], list(model.opset_import))
    )
    model.graph.node[0].op_type, model.graph.node[0].domain = "Big", "own"
    model.opset_import.append(onnx.helper.make_opsetid("own", 1))


def _endless(model: Any) -> None:
    import onnx

    inner = onnx.helper.make_graph([], "inner", [], [])
    model.graph.node.append(onnx.helper.make_node("Loop", ["", ""], ["x"], body=inner))


def _circle(model: Any) -> None:
    model.graph.node[0].input[0] = model.graph.node[0].output[0]


def _elsewhere(model: Any) -> None:
    weight = model.graph.initializer[0]
    weight.ClearField("raw_data")
    weight.data_location = 1
    entry = weight.external_data.add()
    entry.key, entry.value = "location", "../../../../../../../../etc/passwd"


@pytest.mark.parametrize("engine", ["onnxruntime", "openvino"])
@pytest.mark.parametrize(
    ("change", "wrong"),
    [
        (_longer, r"needs opset 2147483647 of 'ai.onnx', which there is not"),
        (_bomb, r"makes a map 'big' of size \[1048576, 1048576\], more than"),
        (_wide, r"makes a map 'big' of size \[1, 3, 320000, 320000\], more than"),
        (_hidden, r"makes a map '\w*big\w*' of size \[1048576, 1048576\], more than"),
        (_unknown, r"makes a map 'some' whose size onnx cannot tell"),
        (_endless, r"has control flow \(Loop\)"),
        (_circle, r"must be topologically sorted"),
        (_elsewhere, r"should be file inside"),
    ],
)
def test_no_engine_sees_a_damaged_onnx_file(
    engine: str, change: Any, wrong: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    onnx = pytest.importorskip("onnx", reason="it is looked at by onnx")
    pytest.importorskip(engine, reason="it would read these files")
    for name in ("OnnxRuntimeEngine", "OpenVinoEngine"):
        monkeypatch.setattr(f"yolomish.inference.engines.exported.{name}", lambda *_, **__: pytest.fail("opened"))
    model = onnx.load_model_from_string(exported("onnx")[".onnx"])
    change(model)
    (tmp_path / "m.onnx").write_bytes(model.SerializeToString())
    with pytest.raises(YolomishError, match=wrong):
        open_exported(tmp_path / "m.onnx", engine=engine, device=torch.device("cpu"))


def test_a_session_that_fails_is_not_tried_again_aloud(capfd: pytest.CaptureFixture) -> None:
    pytest.importorskip("onnx", reason="it writes the file")
    pytest.importorskip("onnxruntime", reason="it prints to stdout where it falls back")
    content = exported("onnx")[".onnx"].replace(b"Mish", b"\xff\xfesh")  # pybind raises a UnicodeDecodeError, a ValueError
    with pytest.raises(UnicodeDecodeError):
        OnnxRuntimeEngine(content, device=torch.device("cpu"))
    assert capfd.readouterr().out == ""


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no limit on a file's size")
def test_a_tracker_that_cannot_be_written_is_said_once(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    pytest.importorskip("tensorboard", reason="it writes the log")
    import resource

    said: list[str] = []
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)

    def app() -> None:
        with Trackers(["tensorboard"], tmp_path, demo_config(), said.append) as trackers:
            for epoch in range(60):
                trackers.add({"epoch": epoch, "a": 0.5, "b": None}, epoch)

    resource.setrlimit(resource.RLIMIT_FSIZE, (100, hard))  # as a full disk
    try:
        assert leave(app, capsys) == (0, "")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert said == ["no tensorboard logs from here on: File too large"]
    app()
    assert len(said) == 1 and any(file.stat().st_size > 1000 for file in tmp_path.iterdir())


@pytest.mark.parametrize("text", ["basic_ios::clear: iostream error", "inline_container.cc:662: unexpected pos"])
def test_torch_words_for_a_full_disk_are_known(text: str, tmp_path: Path) -> None:
    def write(_: Path) -> None:
        raise RuntimeError(text)

    with pytest.raises(YolomishError, match=r"last.pt cannot be written: is the disk full"):
        replace_file(tmp_path / "last.pt", write)
    assert not list(tmp_path.iterdir())
