"""Weights by name: fetched over HTTP from a server that cuts, redirects, lies and fails; kept only when they are right."""

import dataclasses
import fcntl
import hashlib
import resource
import struct
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from conftest import CONTENT, Server

from yolomish import download, files
from yolomish.darknet.weights import is_darknet_file, write_weights
from yolomish.errors import YolomishError
from yolomish.inference.engines.exported import open_exported
from yolomish.networks import build_network, find_model
from yolomish.weights import catalogue, describe, store
from yolomish.weights.catalogue import PublishedFile
from yolomish.weights.load import load_network


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Server]:
    monkeypatch.setattr(download, "PAUSE_S", 0.0)
    monkeypatch.setenv("YOLOMISH_WEIGHTS", str(tmp_path / "store"))
    monkeypatch.setenv("no_proxy", "*")
    with Server() as one:
        thread = threading.Thread(target=one.serve_forever)
        thread.start()
        publish(monkeypatch, one)
        yield one
        one.shutdown()
        thread.join()


def publish(monkeypatch: pytest.MonkeyPatch, server: Server, **changes: object) -> None:
    wanted = PublishedFile(
        file="net.weights",
        url=f"{server.url}/file",
        size=len(CONTENT),
        model="yolov4",
        sha1=hashlib.sha1(CONTENT).hexdigest(),
        about="a test",
    )
    monkeypatch.setattr(catalogue, "PUBLISHED", (dataclasses.replace(wanted, **changes),))  # type: ignore[arg-type]


def test_a_cut_connection_is_gone_on_with_where_it_stopped(server: Server, tmp_path: Path) -> None:
    server.cuts = [1_000_000, 700_000]
    path = store.locate_weights("net")
    assert path == tmp_path / "store" / "net.weights" and path.read_bytes() == CONTENT
    assert server.ranges == ["", "bytes=1000000-", "bytes=1700000-"]
    assert [p.name for p in sorted(path.parent.iterdir())] == ["net.weights", "net.weights.sha256"]
    assert store.locate_weights("net.weights") == path and len(server.ranges) == 3  # no second fetch


def test_a_stopped_download_is_gone_on_with_by_the_next_run(server: Server, tmp_path: Path) -> None:
    server.cuts = [1_000_000, *[0] * download.ATTEMPTS]
    with pytest.raises(YolomishError, match=r"1000000 of 3000000 bytes are kept, run it again .* at .*store/net\.weights"):
        store.locate_weights("net")
    assert not (tmp_path / "store" / "net.weights").exists()
    assert store.locate_weights("net").read_bytes() == CONTENT and server.ranges[-1] == "bytes=1000000-"


def test_a_server_that_cannot_resume_starts_over(server: Server) -> None:
    server.cuts, server.resumes = [1_000_000], False
    assert store.locate_weights("net").read_bytes() == CONTENT


def test_a_part_longer_than_the_file_is_thrown_away(server: Server, tmp_path: Path) -> None:
    (tmp_path / "store").mkdir()
    (tmp_path / "store" / "net.weights.part").write_bytes(CONTENT + b"more")
    assert store.locate_weights("net").read_bytes() == CONTENT


def test_a_redirect_is_followed(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    publish(monkeypatch, server, url=f"{server.url}/moved")
    assert store.locate_weights("net").read_bytes() == CONTENT


def test_a_wrong_checksum_is_refused_and_nothing_kept(server: Server, tmp_path: Path) -> None:
    server.content = bytes([CONTENT[0] ^ 1]) + CONTENT[1:]
    with pytest.raises(YolomishError, match=r"SHA-1 .* expected: it was thrown away"):
        store.locate_weights("net")
    assert list((tmp_path / "store").iterdir()) == []
    server.content = CONTENT
    assert store.locate_weights("net").read_bytes() == CONTENT


def test_without_a_published_checksum_the_first_is_pinned(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    publish(monkeypatch, server, sha1="")
    path = store.locate_weights("net")
    assert (path.parent / "net.weights.sha256").read_text() == f"{hashlib.sha256(CONTENT).hexdigest()}  net.weights\n"
    path.unlink()
    server.content = bytes([CONTENT[0] ^ 1]) + CONTENT[1:]
    with pytest.raises(YolomishError, match="SHA-256"):
        store.locate_weights("net")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"status": 404}, r"answers 404 Not Found: put http://.*/file \(3,000,000 bytes\) at .*net\.weights"),
        ({"status": 503}, "the server answers 503"),
        ({"kind": "text/html; charset=utf-8", "content": b"<html>log in</html>"}, "a web page instead of"),
        ({"content": CONTENT[:-5]}, "offers 2999995 bytes, .* has 3000000: it is another file"),
    ],
)
def test_what_is_not_the_file_is_named_and_not_kept(server: Server, tmp_path: Path, changes: dict, message: str) -> None:
    for key, value in changes.items():
        setattr(server, key, value)
    with pytest.raises(YolomishError, match=message):
        store.locate_weights("net")
    assert list((tmp_path / "store").iterdir()) == []


def test_offline_says_which_file_to_put_where_and_takes_it_when_it_is_there(
    server: Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    publish(monkeypatch, server, url="http://127.0.0.1:9/net.weights")  # nobody listens at the discard port
    with pytest.raises(
        YolomishError, match=r"put http://127\.0\.0\.1:9/net\.weights \(3,000,000 bytes\) at .*/store/net\.weights"
    ):
        store.locate_weights("net")
    placed = tmp_path / "store" / "net.weights"
    placed.write_bytes(CONTENT[:-1] + b"?")
    with pytest.raises(YolomishError, match="SHA-1"):
        store.locate_weights("net")
    assert placed.exists()  # the user's own file is not touched
    placed.write_bytes(CONTENT)
    assert store.locate_weights("net") == placed and (tmp_path / "store" / "net.weights.sha256").is_file()


def test_a_full_disk_keeps_what_came_and_says_so(server: Server, tmp_path: Path) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1_500_000, hard))
    try:
        with pytest.raises(YolomishError, match=r"needs 3\.0 MB, which do not fit in .*YOLOMISH_WEIGHTS"):
            store.locate_weights("net")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert (tmp_path / "store" / "net.weights.part").stat().st_size <= 1_500_000
    assert store.locate_weights("net").read_bytes() == CONTENT
    assert server.ranges[-1].startswith("bytes=1")


def test_two_that_fetch_at_once_fetch_once(server: Server) -> None:
    paths: list[Path] = []
    threads = [threading.Thread(target=lambda: paths.append(store.locate_weights("net"))) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(paths) == 3 and paths[0].read_bytes() == CONTENT and len(server.ranges) == 1


def test_one_that_waits_for_another_that_gives_up_begins_anew(server: Server, tmp_path: Path) -> None:
    part = tmp_path / "store" / "net.weights.part"
    part.parent.mkdir()
    with open(part, "ab") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        thread = threading.Thread(target=store.locate_weights, args=("net",))
        thread.start()
        time.sleep(0.3)
        part.unlink()  # as one does that fails without a byte
    thread.join()
    assert [p.name for p in sorted(part.parent.iterdir())] == ["net.weights", "net.weights.sha256"]
    assert (part.parent / "net.weights").read_bytes() == CONTENT


def test_names_and_paths_that_are_nothing_say_what_is_known(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("YOLOMISH_WEIGHTS", str(tmp_path))
    with pytest.raises(YolomishError, match=r"unknown weights 'dmeo'; did you mean 'demo'\? known: demo, .*yolov4"):
        store.locate_weights("dmeo")
    with pytest.raises(YolomishError, match=r"no such weights file: mine\.pt"):
        store.locate_weights("mine.pt")
    (tmp_path / "mine.pt").write_bytes(b"x")
    assert store.locate_weights("mine.pt") == tmp_path / "mine.pt"


@pytest.mark.parametrize("name", ["model.weights", "model.pt", "model.onnx"])
@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:", "git lfs pull"),
        (b"\n<!DOCTYPE html><html>sign in</html>", "a web page"),
        (b"\x89HDF\r\n\x1a\n" + bytes(40), "HDF5"),
        (b"\x1f\x8b\x08" + bytes(41), "gzip"),
        (b"\x20\x00\x00\x00TFL3" + bytes(40), "TensorFlow Lite"),
        (b"\x40\x00\x00\x00\x00\x00\x00\x00" + b'{"conv.weight":{"dtype":"F32"}}', "safetensors"),
        (b"ptrt" + bytes(40), "TensorRT"),
        (b"", "empty"),
    ],
)
def test_files_of_other_programs_are_named_by_their_content(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(YolomishError, match=message):
        if path.suffix == ".onnx":
            open_exported(path, device=torch.device("cpu"))
        else:
            load_network(str(path))


def test_darknet_files_are_known_under_any_name(tmp_path: Path) -> None:
    header = struct.pack("<3iQ", 0, 2, 5, 32000)
    for name in ("yolov4.weights", "yolov4_last.backup", "yolov4.conv.137", "yolov4.weights.1", "no-suffix"):
        (tmp_path / name).write_bytes(header + bytes(400))
        assert is_darknet_file(tmp_path / name)
    (tmp_path / "cut.weights").write_bytes(header + bytes(401))
    with pytest.raises(YolomishError, match="not whole floats"):
        load_network(str(tmp_path / "cut.weights"))
    torch.save({"model": {}}, tmp_path / "torch.weights")
    assert not is_darknet_file(tmp_path / "torch.weights")


def test_weights_that_hold_another_programs_objects_are_named_and_not_run(tmp_path: Path) -> None:
    torch.save({"model": torch.nn.Conv2d(1, 1, 1)}, tmp_path / "yolov8n.pt")  # as ultralytics writes its networks
    with pytest.raises(YolomishError, match=r"objects of another program \('torch.nn.modules.conv.Conv2d'\)"):
        load_network(str(tmp_path / "yolov8n.pt"))


def test_weights_of_a_published_size_are_described_by_one_reading(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file, read = tmp_path / "x.weights", []
    write_weights(file, build_network(find_model("yolov4-n")), 6400)
    content = file.read_bytes()
    official = dataclasses.replace(catalogue.PUBLISHED[0], size=len(content), sha1=hashlib.sha1(content).hexdigest())
    monkeypatch.setattr(catalogue, "PUBLISHED", (official,))
    for module in (catalogue, describe):
        monkeypatch.setattr(module, "digest", lambda path: read.append(path) or files.digest(path))
    report = describe.describe_weights(file, model="yolov4-n")
    assert read == [file] and official.about in report.provenance
    assert (report.bytes, report.sha256) == (len(content), hashlib.sha256(content).hexdigest())
