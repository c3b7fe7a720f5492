"""Shared fixtures: small models, and real data where it lies beside the checkout."""

import gc
import os
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import BinaryIO

import cv2
import numpy as np
import pytest
import torch

from yolomish.config import DataConfig
from yolomish.trust import trusting

torch.set_num_threads(1)  # networks this small lose more in waiting for a second thread than they win; files run side by side
os.environ.setdefault("OMP_NUM_THREADS", "1")  # of processes that tests start
os.environ.setdefault("TORCHINDUCTOR_VEC_ISA_OK", "1")  # spares torch.compile's trial of every kind of vector, 7 s
if not torch.cuda.is_available():
    os.environ["TRITON_INTERPRET"] = "1"  # read when Triton is first imported

CONTENT = np.random.default_rng(0).integers(0, 256, 3_000_000, dtype=np.uint8).tobytes()
SHARED = Path(__file__).resolve().parents[2] / "shared" / "data"


def pytest_collection_finish() -> None:
    """What is imported by now stays: looking through it again and again took a tenth of all tests' time."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 20)


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)
    torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def _own_trust(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each test starts with nothing trusted, and leaves the user's own store alone."""
    monkeypatch.setenv("YOLOMISH_CONFIG", str(tmp_path_factory.mktemp("config")))
    monkeypatch.setenv("YOLOMISH_TRUSTED", "")


@pytest.fixture
def trusted() -> Iterator[None]:
    with trusting():
        yield


@pytest.fixture
def undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Plots are made but not drawn, for tests of what else is in a report: each takes a fifth of a second."""
    from matplotlib.figure import Figure

    png = cv2.imencode(".png", np.zeros((1, 1, 3), np.uint8))[1].tobytes()

    def save(self: Figure, to: str | os.PathLike[str] | BinaryIO, **_: object) -> None:
        Path(to).write_bytes(png) if isinstance(to, str | os.PathLike) else to.write(png)

    monkeypatch.setattr(Figure, "savefig", save)


@pytest.fixture
def shared_data() -> Path:
    if not SHARED.is_dir():
        pytest.skip(f"real data is not at {SHARED}")
    return SHARED


@pytest.fixture
def darknet_reader() -> None:
    """For tests whose reference is OpenCV's reader of Darknet's files."""
    if not hasattr(cv2.dnn, "readNetFromDarknet"):
        pytest.skip(f"OpenCV {cv2.__version__} has no Darknet reader (removed in 5.x)")


def noise_data(root: Path, *, train: int, val: int) -> DataConfig:
    """YOLO data of two classes: pictures of 64 x 64 px noise with one box each."""
    rng = np.random.default_rng(0)
    for split, count in (("train", train), ("val", val)):
        for kind in ("images", "labels"):
            (root / kind / split).mkdir(parents=True)
        for i in range(count):
            cv2.imwrite(str(root / "images" / split / f"{i}.png"), rng.integers(0, 255, (64, 64, 3), np.uint8))
            (root / "labels" / split / f"{i}.txt").write_text(f"{i % 2} 0.5 0.5 0.4 0.3\n")
    return DataConfig(format="yolo", root=str(root), train="images/train", val="images/val", names=("a", "b"))


def four_pictures(root: Path) -> DataConfig:
    """YOLO data of four 64 px pictures with five red and blue rectangles on noise; val is train."""
    objects = [[(0, 8, 8, 30, 32)], [(1, 20, 16, 52, 40)], [(0, 30, 30, 60, 56), (1, 4, 6, 28, 24)], [(1, 6, 30, 30, 60)]]
    rng = np.random.default_rng(0)
    for kind in ("images", "labels"):
        (root / kind).mkdir(parents=True)
    for i, boxes in enumerate(objects):
        image = rng.integers(90, 130, (64, 64, 3)).astype(np.uint8)
        for label, x0, y0, x1, y1 in boxes:
            image[y0:y1, x0:x1] = ((230, 40, 30), (30, 60, 230))[label]
        cv2.imwrite(str(root / "images" / f"{i}.png"), image[..., ::-1])
        rows = [(k, (x0 + x1) / 128, (y0 + y1) / 128, (x1 - x0) / 64, (y1 - y0) / 64) for k, x0, y0, x1, y1 in boxes]
        (root / "labels" / f"{i}.txt").write_text("".join(" ".join(map(str, row)) + "\n" for row in rows))
    return DataConfig(format="yolo", root=str(root), train="images", val="images", names=("red", "blue"))


def randomise(model: torch.nn.Module) -> None:
    """Random BN statistics and biases, so that a swapped or forgotten tensor shows."""
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.weight.data.uniform_(0.6, 1.2)
            module.bias.data.normal_(0, 0.1)
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 1.5)


class Server(ThreadingHTTPServer):
    """Serves CONTENT; ``cuts`` are the bytes after which the next answers break off, ``ranges`` what was asked for."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.cuts: list[int] = []
        self.ranges: list[str] = []
        self.content, self.status, self.resumes, self.kind = CONTENT, 200, True, "application/octet-stream"

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        server = self.server
        if self.path == "/moved":
            self.send_response(302)
            self.send_header("Location", f"{server.url}/file")
            self.end_headers()
            return
        asked = self.headers.get("Range", "")
        server.ranges.append(asked)
        cut = server.cuts.pop(0) if server.cuts else None  # before the client knows of an answer, and asks again
        start = int(asked.removeprefix("bytes=").removesuffix("-")) if asked and server.resumes else 0
        status = 206 if start else server.status
        if start > len(server.content):
            status = 416
        self.send_response(status)
        body = b"" if status >= 400 else server.content[start:]
        self.send_header("Content-Type", server.kind)
        self.send_header("Content-Length", str(len(body)))
        if status == 206:
            self.send_header("Content-Range", f"bytes {start}-{len(server.content) - 1}/{len(server.content)}")
        self.end_headers()
        self.wfile.write(body[:cut])

    def log_message(self, *_: object) -> None:
        pass
