"""A cfg's text: every key accounted for, every fault with its file and line."""

import random
import re
from pathlib import Path

import pytest

from yolomish.darknet.cfg import KEYS, cfg_text, load_cfg, parse_cfg
from yolomish.darknet.network import read_cfg
from yolomish.errors import YolomishError

TEXT = """[net]
width=64
height=64
channels=3
batch=64
learning_rate=.001

[convolutional]
batch_normalize=1
filters=8
size=3
stride=2
pad=1
activation=leaky

[maxpool]
size=2
stride=2

[convolutional]
filters=14
size=1
activation=linear

[yolo]
mask=0,1
anchors=10,13, 16,30, 33,23
num=3
classes=2
scale_x_y=1.05
"""


def write(folder: Path, text: str | bytes) -> Path:
    path = folder / "x.cfg"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("size=3\n", "sise=3\n", r"x\.cfg:11: unknown key of \[convolutional\] 'sise'; did you mean 'size'"),
        ("batch_normalize=1", "stride=1\nstride=2", r"x\.cfg:10: \[convolutional\] stride stands twice: 1 in line 9, 2 here"),
        ("scale_x_y=1.05", "scale_x_y=1.05y", r"x\.cfg:30: \[yolo\] scale_x_y=1\.05y must be finite numbers"),
        ("10,13, ", "nan,13, ", r"x\.cfg:27: \[yolo\] anchors=nan,13, .* must be finite numbers"),
        ("10,13, ", "10,inf, ", r"x\.cfg:27: .* must be finite numbers"),
        ("10,13, ", "10,1e400, ", r"x\.cfg:27: .* must be finite numbers"),
        ("10,13, ", "10,-13, ", r"x\.cfg:27: .* must be pairs of positive width,height"),
        ("10,13, ", "10, ", r"x\.cfg:27: .* must be pairs of positive width,height"),
        ("mask=0,1", "mask=0,3", r"x\.cfg:26: \[yolo\] mask=0,3 must name some of the anchors 0 to 2"),
        ("mask=0,1\n", "", r"x\.cfg:25: \[yolo\] lacks mask="),
        ("anchors=10,13, 16,30, 33,23\n", "", r"x\.cfg:25: \[yolo\] lacks anchors="),
        ("width=64\n", "", r"x\.cfg:1: \[net\] lacks width="),
        ("classes=2", "classes=abc", r"x\.cfg:29: \[yolo\] classes=abc must be"),
        ("classes=2", "classes=100000000", r"x\.cfg:29: \[yolo\] classes=100000000 must be a whole number from 1"),
        ("classes=2", "classes=3", r"x\.cfg:21: \[convolutional\] filters=14 does not fit the \[yolo\] of line 25"),
        ("activation=leaky", "activation=leeky", r"x\.cfg:14: .* unknown activation 'leeky'; did you mean 'leaky'"),
        ("activation=linear", "activation=logistic", r"x\.cfg:23: .* new_coords=0 needs linear"),
        ("[maxpool]", "[maxpol]", r"x\.cfg:16: unknown section 'maxpol'; did you mean 'maxpool'"),
        ("[maxpool]", "[route]\nlayers=9\n[maxpool]", r"x\.cfg:17: \[route\] layers=9 names section 9: this is section 1"),
        ("[maxpool]", "[shortcut]\nfrom=-2\n[maxpool]", r"x\.cfg:17: \[shortcut\] from=-2 names section -1"),
        ("filters=8", "filters=8\nxnor=1", r"x\.cfg:11: \[convolutional\] xnor=1 is not supported"),
        ("filters=8", "filters=8\ngroups=2", r"x\.cfg:11: \[convolutional\] groups=2 does not divide the input's 3 channels"),
        ("size=2\n", "size=2\npadding=0\nnonsense\n", r"x\.cfg:19: 'nonsense' is neither"),
        ("[yolo]", "[region]", r"x\.cfg:25: \[region\] is YOLOv2's head"),
        ("[net]", "[yolo]", r"does not begin with \[net\]"),
    ],
)
def test_a_fault_is_named_with_file_line_and_section(tmp_path: Path, old: str, new: str, message: str) -> None:
    assert TEXT.count(old) == 1
    with pytest.raises(YolomishError, match=message) as error:
        read_cfg(write(tmp_path, TEXT.replace(old, new)))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "kind", ["rnn", "gru", "lstm", "crnn", "conv_lstm", "detection", "Gaussian_yolo", "contrastive", "local"]
)
def test_a_network_of_another_kind_is_refused_in_one_line(tmp_path: Path, kind: str) -> None:
    with pytest.raises(YolomishError, match=rf"x\.cfg:16: \[{kind}\] ") as error:
        read_cfg(write(tmp_path, TEXT.replace("[maxpool]", f"[{kind}]")))
    assert "\n" not in str(error.value)


def test_a_network_without_a_head_is_refused(tmp_path: Path) -> None:
    with pytest.raises(YolomishError, match=r"x\.cfg:26: \[cost\] is the last section and there is no \[yolo\] or \[softmax\]"):
        read_cfg(write(tmp_path, TEXT[: TEXT.index("[yolo]")] + "\n[cost]\ntype=sse\n"))


@pytest.mark.parametrize(
    "raw",
    [
        b"\xef\xbb\xbf" + TEXT.encode(),
        TEXT.replace("\n", "\r\n").encode(),
        TEXT.replace("\n", "\r").encode(),
        TEXT.encode("utf-16"),
        ("# 训练\n" + TEXT.replace("batch=64", "batch=64 # 批量")).encode("gbk"),
        ("; Größe\n" + TEXT).encode("latin-1"),
        TEXT.replace("=", " = ").encode(),
        TEXT.replace("[convolutional]", "[conv]").replace("[net]", "[network]").replace("[maxpool]", "[max]").encode(),
    ],
    ids=["bom", "crlf", "cr", "utf-16", "gbk", "latin-1", "spaces", "aliases"],
)
def test_text_as_it_comes_from_other_systems_is_the_same_network(tmp_path: Path, raw: bytes) -> None:
    assert read_cfg(write(tmp_path, raw)) == read_cfg(write(tmp_path, TEXT))


def test_what_is_no_text_is_refused(tmp_path: Path) -> None:
    with pytest.raises(YolomishError, match="holds zero bytes"):
        load_cfg(write(tmp_path, b"\x00\x01" * 40))
    with pytest.raises(YolomishError, match="cannot be read: No such file"):
        load_cfg(tmp_path / "none.cfg")


def test_what_darknet_reads_otherwise_is_noted() -> None:
    text = TEXT.replace("batch=64", "batch=1\nbatch=64\ntrack=1").replace("10,13, 16", "10,13 16").replace("num=3", "num=2")
    cfg = parse_cfg(text, "x.cfg")
    assert cfg.sections[0].text("batch") == "1"  # src/option_list.c option_find returns the first
    assert cfg.sections[-1].numbers("anchors") == (10, 13, 16, 30, 33, 23)
    assert [re.sub(r":.*", "", note.removeprefix("x.cfg:")) for note in cfg.notes] == ["6", "29", "27", " without effect here"]
    assert cfg.notes[-1] == "x.cfg: without effect here: [net] track (line 7)"


def test_a_text_written_is_the_same_sections_again(shared_data: Path) -> None:
    for name in ("yolov4-tiny", "yolov4-csp", "yolov7"):
        sections = load_cfg(shared_data / "darknet-cfg" / f"{name}.cfg").sections
        again = parse_cfg(cfg_text(sections), "again").sections
        assert [(s.kind, {k: o.value for k, o in s.options.items()}) for s in again] == [
            (s.kind, {k: o.value for k, o in s.options.items()}) for s in sections
        ]


def test_no_key_has_two_effects() -> None:
    for kind, keys in KEYS.items():
        known = keys.known()
        assert len(known) == len(set(known)), kind
        assert set(keys.missing.split()) <= set(known), kind


def test_any_value_builds_a_network_or_is_one_line(tmp_path: Path) -> None:
    draw = random.Random(0)
    junk = [
        "",
        "0",
        "-1",
        "2",
        "3",
        "7",
        "1e9",
        "99999999999999999999",
        "nan",
        "x",
        "1,2",
        "1 2",
        "1_0",
        "é",
        "-0",
        "0x10",
        ",",
        ".",
    ]
    options = [line for line in TEXT.splitlines() if "=" in line]
    built = 0
    for _ in range(400):
        text = TEXT
        for line in draw.sample(options, draw.choice((1, 1, 2))):
            text = text.replace(line, f"{line.partition('=')[0]}={draw.choice(junk)}")
        try:
            read_cfg(write(tmp_path, text))
            built += 1
        except YolomishError as error:
            assert "\n" not in str(error) and len(str(error)) < 600
    assert 20 < built < 380
