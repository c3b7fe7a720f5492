"""Published data sets: fetched from a server that cuts and cannot say much, unpacked safely, and opened as they are."""

import dataclasses
import hashlib
import io
import json
import stat
import threading
import zipfile
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest
from conftest import Server
from typer.testing import CliRunner

from yolomish import download
from yolomish.commands import app
from yolomish.config import load_data_config
from yolomish.data import get, unpack
from yolomish.data.datasets import open_data
from yolomish.errors import YolomishError


def zipped(files: dict[str, bytes], kind: int = zipfile.ZIP_DEFLATED) -> bytes:
    raw = io.BytesIO()
    with zipfile.ZipFile(raw, "w", kind) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return raw.getvalue()


def tiny_coco8() -> bytes:
    """What ultralytics' coco8.zip looks like: pictures and labels of two splits, and what macOS adds."""
    files = {"coco8/README.md": b"read me", "__MACOSX/coco8/._README.md": b"noise", "coco8/images/.DS_Store": b"noise"}
    for i, split in enumerate(("train", "train", "val")):
        pixels = np.random.default_rng(i).integers(0, 255, (48, 64, 3), np.uint8)
        files[f"coco8/images/{split}/{i}.jpg"] = cv2.imencode(".jpg", pixels)[1].tobytes()
        files[f"coco8/labels/{split}/{i}.txt"] = f"{40 + i} 0.5 0.5 0.25 0.5\n".encode()
    return zipped(files)


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setattr(download, "PAUSE_S", 0.0)
    monkeypatch.setenv("no_proxy", "*")
    with Server() as one:
        thread = threading.Thread(target=one.serve_forever)
        thread.start()
        one.content = tiny_coco8()
        publish(monkeypatch, one)
        yield one
        one.shutdown()
        thread.join()


def publish(monkeypatch: pytest.MonkeyPatch, server: Server, **changes: object) -> None:
    data = get.PUBLISHED["coco8"]
    archive = dataclasses.replace(data.archives[0], url=f"{server.url}/file", **changes)  # type: ignore[arg-type]
    monkeypatch.setitem(get.PUBLISHED, "coco8", dataclasses.replace(data, archives=(archive,)))


def test_a_set_is_fetched_over_a_cut_connection_and_opens(server: Server, tmp_path: Path) -> None:
    server.cuts = [len(server.content), 3000]  # the first answer tells the length
    result = CliRunner().invoke(app, ["data", "get", "coco8", "--output", str(tmp_path / "sets")], catch_exceptions=False)
    yaml = tmp_path / "sets" / "coco8.yaml"
    assert result.stdout.strip() == str(yaml) and server.ranges == ["", "", "bytes=3000-"]
    config = load_data_config(str(yaml))
    train, val = open_data(config, "train"), open_data(config, "val")
    assert (len(train), len(val), len(train.names)) == (2, 1, 80) and train.load(1).labels.tolist() == [41]
    np.testing.assert_allclose(val.load(0).boxes, [[24, 12, 40, 36]])
    files = {str(path.relative_to(tmp_path / "sets")) for path in (tmp_path / "sets").rglob("*") if path.is_file()}
    assert len(files) == 8 and {"coco8.yaml", "coco8/README.md"} < files  # no archive, no part, no noise
    get.get_data("coco8", tmp_path / "sets")
    assert len(server.ranges) == 3  # nothing fetched twice


def test_an_archive_can_be_kept_and_is_taken_from_disk(server: Server, tmp_path: Path) -> None:
    get.get_data("coco8", tmp_path, keep=True)
    assert (tmp_path / "coco8.zip").read_bytes() == server.content
    asked = len(server.ranges)
    (tmp_path / "coco8").rename(tmp_path / "elsewhere")
    get.get_data("coco8", tmp_path)
    assert len(server.ranges) == asked and (tmp_path / "coco8" / "README.md").read_text() == "read me"


def test_a_wrong_checksum_and_a_web_page_leave_nothing(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    publish(monkeypatch, server, size=len(server.content), sha1=hashlib.sha1(b"other").hexdigest())
    with pytest.raises(YolomishError, match=r"SHA-1 .* expected: it was thrown away"):
        get.get_data("coco8", tmp_path)
    publish(monkeypatch, server, size=len(server.content))
    server.kind = "text/html"
    with pytest.raises(YolomishError, match="gave a web page"):
        get.get_data("coco8", tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_without_a_connection_it_says_what_to_put_where(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("no_proxy", "*")
    publish(monkeypatch, type("Gone", (), {"url": "http://127.0.0.1:9"})())  # type: ignore[arg-type]
    with pytest.raises(YolomishError, match=r"put http://127.0.0.1:9/file at .*coco8.zip; the data set 'shapes' needs no"):
        get.get_data("coco8", tmp_path)
    with pytest.raises(YolomishError, match="unknown published data set 'coc08'; did you mean 'coco8'"):
        get.get_data("coc08", tmp_path)


def test_archives_say_where_their_files_go() -> None:
    for name, data in get.PUBLISHED.items():
        assert data.config.root and all(a.file.endswith(".zip") and a.url.endswith(a.file) for a in data.archives), name
        assert all((len(a.sha1) == 40) == bool(a.size) for a in data.archives)


def link(name: str) -> bytes:
    raw = io.BytesIO()
    with zipfile.ZipFile(raw, "w") as archive:
        archive.writestr("set/a.txt", "a")
        info = zipfile.ZipInfo(name)
        info.external_attr = (stat.S_IFLNK | 0o777) << 16
        archive.writestr(info, "/etc/passwd")
    return raw.getvalue()


def damaged() -> bytes:
    raw = bytearray(zipped({"set/a.bin": bytes(range(256)) * 40}, zipfile.ZIP_STORED))
    raw[2000] ^= 1  # a byte of the content: the CRC tells
    return bytes(raw)


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        (zipped({"set/a.txt": b"a", "../evil.txt": b"x"}), "outside its folder set"),
        (zipped({"set/a.txt": b"a", "set/../../evil.txt": b"x"}), "outside its folder set"),
        (zipped({"set/a.txt": b"a", "/tmp/yolomish-evil.txt": b"x"}), "outside its folder set"),
        (zipped({"set/a.txt": b"a", "set\\..\\..\\evil.txt": b"x"}), "outside its folder set"),
        (zipped({"other/a.txt": b"a"}), "outside its folder set"),
        (link("set/link"), "holds the link 'set/link'"),
        (zipped({"set/bomb": bytes(50_000_000)}), "a zip bomb"),
        (zipped({"set/a.txt": b"a" * 100}, zipfile.ZIP_LZMA), "not compressed by DEFLATE"),
        (zipped({"set": b"a file"}), "outside its folder set"),
        (zipped({}), "holds 0 files"),
        (damaged(), r"is damaged.*Bad CRC-32.*fetch it again"),
        (zipped({"set/a.txt": b"a" * 9000})[:-40], "is damaged"),
        (b"<html>sign in</html>", "is damaged or no zip archive"),
    ],
)
def test_unsafe_archives_are_refused_whole(content: bytes, fault: str, tmp_path: Path) -> None:
    archive = tmp_path / "in" / "set.zip"
    archive.parent.mkdir()
    archive.write_bytes(content)
    with pytest.raises(YolomishError, match=fault):
        unpack.unpack(archive, tmp_path / "in" / "set")
    assert [p.name for p in tmp_path.rglob("*")] == ["in", "set.zip"]


def test_more_than_the_disk_holds_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "set.zip").write_bytes(zipped({"set/a.txt": b"a" * 5000}))
    monkeypatch.setattr(unpack.shutil, "disk_usage", lambda _: type("Usage", (), {"free": 4000})())
    with pytest.raises(YolomishError, match=r"0.0 GB are free: make room"):
        unpack.unpack(tmp_path / "set.zip", tmp_path / "set")


def test_the_list_is_json_too() -> None:
    result = CliRunner().invoke(app, ["data", "get", "--json"], catch_exceptions=False)
    rows = {row["name"]: row for row in json.loads(result.output)}
    assert rows["coco"]["bytes"] == 252_907_541 + 815_585_330 + 19_336_861_798 and set(rows) == set(get.PUBLISHED)
