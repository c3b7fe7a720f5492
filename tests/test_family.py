"""The Python members of the YOLOv4 family against their cfgs: one weight stream, equal raw maps, published sizes and costs."""

import dataclasses
import importlib.util
import re
import struct
from pathlib import Path

import pytest
import torch
from conftest import randomise
from reference.networks import narrower
from typer.testing import CliRunner

from yolomish.commands import app
from yolomish.config import ModelConfig, load_recipe, shipped
from yolomish.darknet.network import DarknetNetwork, read_cfg
from yolomish.darknet.order import file_order, size
from yolomish.darknet.summary import summarise
from yolomish.darknet.weights import read_weights, write_weights
from yolomish.darknet.write import write_cfg
from yolomish.data.images import read_image
from yolomish.errors import YolomishError
from yolomish.inference.engines import build_engine
from yolomish.inference.engines.packed import packed
from yolomish.networks import Network, build_network, find_model
from yolomish.networks.registry import ARCHITECTURES, outline
from yolomish.nn.fold import folded
from yolomish.tasks.detection.pipeline import Pipeline
from yolomish.tasks.detection.protocol import PROTOCOLS
from yolomish.training.build import _freeze
from yolomish.weights.catalogue import PUBLISHED, PublishedFile
from yolomish.weights.load import load_network
from yolomish.weights.structure import structure_of

CPU = torch.device("cpu")
CFGS = {  # shipped model -> the cfg that it is
    "yolov4": "yolov4",
    "yolov4-tiny": "yolov4-tiny",
    "yolov4-tiny-3l": "yolov4-tiny-3l",
    "yolov4-csp": "yolov4-csp",
    "yolov4x-mish": "yolov4x-mish",
    "yolov4-p5": "yolov4-p5",
    "yolov4-p6": "yolov4-p6",
    "pacsp-s": "pacsp/yolov4-pacsp-s-mish",
    "pacsp": "pacsp/yolov4-pacsp-mish",
    "pacsp-x": "pacsp/yolov4-pacsp-x-mish",
}
LEAKY = {"pacsp-s": "pacsp/yolov4-pacsp-s", "pacsp": "pacsp/yolov4-pacsp", "pacsp-x": "pacsp/yolov4-pacsp-x"}
WHOLE = ["yolov4-tiny", "yolov4-tiny-3l", "pacsp-s", "pacsp-x", "yolov4x-mish"]


def cfg_of(folder: Path, name: str) -> ModelConfig:
    return read_cfg(folder / "darknet-cfg" / f"{CFGS[name]}.cfg")


def shapes(network: Network) -> list[list[tuple[int, ...]]]:
    """Of all that a file of the network stores, in its order."""
    return [[tuple(tensor.shape) for tensor in stored.tensors()] for stored in file_order(network)]


@torch.no_grad()
def assert_equal_maps(network: Network, other: Network, folder: Path, size_px: int) -> None:
    """``other`` loads the file that ``network`` writes and returns its maps."""
    randomise(network)
    write_weights(folder / "n.weights", network)
    read_weights(folder / "n.weights", other)
    images = torch.rand(1, 3, size_px, size_px)
    maps = network.eval()(images)
    for ours, theirs, head in zip(maps, other.eval()(images), network.heads, strict=True):
        assert ours.shape[2] == size_px // head.stride
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-5 * max(1.0, ours.abs().max().item()))


@pytest.mark.parametrize("name", CFGS)
def test_a_member_reads_the_file_of_its_cfg_and_returns_equal_maps(tmp_path: Path, shared_data: Path, name: str) -> None:
    by = 1 if name in WHOLE else 4  # of the others' filters a quarter
    (tmp_path / "n.cfg").write_text(narrower((shared_data / "darknet-cfg" / f"{CFGS[name]}.cfg").read_text(), by))
    theirs = build_network(read_cfg(tmp_path / "n.cfg"))
    assert isinstance(theirs, DarknetNetwork)
    ours = build_network(dataclasses.replace(find_model(name), width=1 / by))
    assert not isinstance(ours, DarknetNetwork)
    assert_equal_maps(theirs, ours, tmp_path, max(64, theirs.input.stride))


@pytest.mark.parametrize("name", CFGS)
def test_a_members_written_cfg_is_that_network(tmp_path: Path, name: str) -> None:
    ours = build_network(dataclasses.replace(find_model(name), num_classes=2, width=0.25))
    write_cfg(tmp_path / "n.cfg", ours)
    again = build_network(read_cfg(tmp_path / "n.cfg"))
    assert isinstance(again, DarknetNetwork)
    assert again.heads == ours.heads and again.input.size_hw == ours.input.size_hw and again.input.resize == ours.input.resize
    assert_equal_maps(ours, again, tmp_path, max(64, ours.input.stride))


@pytest.mark.parametrize("name", CFGS)
def test_heads_parts_order_and_counts_are_the_cfgs(shared_data: Path, name: str) -> None:
    ours, theirs = outline(find_model(name)), outline(cfg_of(shared_data, name))
    assert ours.heads == theirs.heads  # masks, anchors, strides, box forms, loss constants
    assert shapes(ours) == shapes(theirs)
    for part in ("backbone", "neck", "head"):
        slots, others = ours.slots(part), theirs.slots(part)
        assert len(slots) == len(others) and ours.activations(part) == theirs.activations(part), part
    if ours.input.resize == "letterbox":
        assert ours.input == theirs.input
    size_hw = (4 * ours.input.stride,) * 2
    one, two = summarise(ours.config, size_hw), summarise(theirs.config, size_hw)
    assert (one.parameters, one.activations, len(one.layers)) == (two.parameters, two.activations, len(two.layers))
    assert one.bflops == pytest.approx(two.bflops, rel=1e-9)
    assert [(a.output_chw, a.activation) for a in one.layers] == [(b.output_chw, b.activation) for b in two.layers]


@pytest.mark.parametrize("name", LEAKY)
def test_the_published_pairs_differ_in_activations_alone(shared_data: Path, name: str) -> None:
    theirs = outline(read_cfg(shared_data / "darknet-cfg" / f"{LEAKY[name]}.cfg"))
    ours = outline(dataclasses.replace(find_model(name), activation="leaky_relu", neck_activation="leaky_relu"))
    assert shapes(ours) == shapes(theirs) and ours.heads == theirs.heads
    assert ours.activations() == theirs.activations() == ("leaky_relu",)


@pytest.mark.parametrize(
    ("name", "size_px", "parameters", "bflops"),
    [
        ("yolov4-tiny", 416, 6_056_606, 6.91),  # Darknet README, pre-trained models, and the published files' lengths
        ("yolov4-csp", 640, 52_921_437, 120),
        ("yolov4-csp", 512, 52_921_437, 77),
        ("yolov4x-mish", 640, 99_751_053, 222),
    ],
)
def test_sizes_and_costs_are_the_published_ones(name: str, size_px: int, parameters: int, bflops: float) -> None:
    summary = summarise(find_model(name), (size_px, size_px))
    assert summary.parameters == parameters and summary.bflops == pytest.approx(bflops, rel=3e-3)


@pytest.mark.parametrize("recipe", ["scaled", "small", "darknet"])
def test_recipes_fit_members_with_any_number_of_heads(recipe: str) -> None:
    for name in ("yolov4-tiny", "pacsp-s", "yolov4-p6"):
        config = load_recipe(recipe, find_model(name)).model
        heads = outline(config).heads
        assert {head.box_form for head in heads} == {config.box_form}
        assert {head.scale_xy for head in heads} == set(config.scale_xy)


def test_every_architecture_is_a_shipped_model() -> None:
    assert {find_model(name).architecture for name in shipped("models")} == set(ARCHITECTURES)
    detectors = {name for name in shipped("models") if outline(find_model(name)).heads and not find_model(name).cfg}
    assert detectors == {*CFGS, "yolov4-n", "yolov4-s"}


def test_info_tells_every_member() -> None:
    for name in ("yolov4-tiny", "pacsp-s"):
        done = CliRunner().invoke(app, ["info", name])
        assert done.exit_code == 0 and f"{name}: " in done.stdout, done.output


@torch.no_grad()
def test_the_official_weights_answer_alike_on_a_photograph(shared_data: Path) -> None:
    file = shared_data / "weights" / "yolov4-tiny.weights"
    ours, theirs = build_network(find_model("yolov4-tiny")).eval(), build_network(cfg_of(shared_data, "yolov4-tiny")).eval()
    for network in (ours, theirs):
        header = read_weights(file, network)
        assert header.convolutions == header.total
    pipeline = Pipeline(runner=ours, protocol=PROTOCOLS["darknet"], size_hw=(416, 416))
    images, _ = pipeline.prepare([read_image(shared_data / "photos" / "dog.jpg")])
    images = ours.input.normalise(images)
    for a, b in zip(ours(images), theirs(images), strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-5 * b.abs().max().item())


@pytest.mark.parametrize("name", ["yolov4-tiny-3l", pytest.param("pacsp-s", marks=pytest.mark.slow)])
@torch.no_grad()
def test_members_fold_and_run_in_every_engine(name: str) -> None:
    network = build_network(dataclasses.replace(find_model(name), num_classes=2, width=0.25)).eval()
    randomise(network)
    images = torch.rand(2, 3, 64, 96)
    maps = network(images)
    engines = [e for e in ("onnxruntime", "openvino") if importlib.util.find_spec(e)]
    for program in (folded(network), packed(network, torch.float32), *(build_engine(e, network, device=CPU) for e in engines)):
        for ours, truth in zip(program(images), maps, strict=True):
            torch.testing.assert_close(ours, truth, rtol=1e-3, atol=1e-4 * truth.abs().max().item())


@pytest.mark.parametrize("name", ["yolov4-tiny-3l", "yolov4-p6"])
def test_width_classes_and_activations_scale_a_member(name: str) -> None:
    config = dataclasses.replace(find_model(name), num_classes=3, width=0.25, activation="silu", neck_activation="mish")
    network = outline(config)
    assert network.activations("backbone") == ("silu",)
    assert network.activations("neck") == network.activations("head") == ("mish",)
    side = 2 * network.input.stride
    maps = network(torch.empty(1, 3, side, side, device="meta"))
    assert [tuple(m.shape[1:]) for m in maps] == [
        (len(head.mask) * 8, side // head.stride, side // head.stride) for head in network.heads
    ]
    assert size(network) < size(outline(find_model(name))) / 8


def test_training_reaches_every_parameter_but_a_frozen_backbones() -> None:
    network = build_network(dataclasses.replace(find_model("yolov4-tiny-3l"), num_classes=2, width=0.25)).train()
    frozen = _freeze(network, ("backbone",), lambda _: None)
    sum(raw.square().mean() for raw in network(torch.rand(2, 3, 64, 64))).backward()
    for name, parameter in network.named_parameters():
        assert (parameter.grad is None) == (name in frozen) == name.startswith("backbone.")


def test_what_a_member_cannot_have_is_refused() -> None:
    tiny = find_model("yolov4-tiny")
    with pytest.raises(YolomishError, match="yolov4-tiny has no residual units to repeat: leave out depth"):
        outline(dataclasses.replace(tiny, depth=0.5))
    with pytest.raises(YolomishError, match="2 heads of 3 anchors: it needs 6 anchors and 2 scale_xy, not 9 and 2"):
        outline(dataclasses.replace(tiny, anchors=ModelConfig().anchors))
    with pytest.raises(YolomishError, match="4 heads of 4 anchors: it needs 16 anchors and 4 scale_xy, not 16 and 3"):
        outline(dataclasses.replace(find_model("yolov4-p6"), scale_xy=(2.0, 2.0, 1.0)))
    with pytest.raises(YolomishError, match="multiple of 64"):
        outline(dataclasses.replace(find_model("yolov4-p6"), image_size=(96, 96)))


@pytest.mark.parametrize("published", PUBLISHED, ids=lambda published: published.file)
def test_a_published_file_has_the_length_of_its_shipped_model(shared_data: Path, published: PublishedFile) -> None:
    network = outline(find_model(published.model))
    floats = [sum(tensor.numel() for tensor in stored.tensors()) for stored in file_order(network)]
    lengths = [20 + 4 * sum(floats[: i + 1]) for i in range(len(floats))]  # a header and so many convolutions
    if published.file.endswith(".weights"):
        assert published.size == lengths[-1] and published.accuracy and published.bflops
        return
    cut = int(published.file.rpartition(".")[2])
    theirs = outline(cfg_of(shared_data, published.model))
    before = [stored for stored in file_order(theirs) if int(stored.name.split(".")[1]) < cut]
    assert published.size == lengths[len(before) - 1]


def test_published_costs_are_the_shipped_models() -> None:
    for published in PUBLISHED:
        if published.bflops:
            at = int(re.search(r"\((\d+) px", published.accuracy)[1])  # type: ignore[index]
            assert summarise(find_model(published.model), (at, at)).bflops == pytest.approx(published.bflops, rel=6e-3)


def test_weights_say_by_name_and_length_which_network_they_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("YOLOMISH_WEIGHTS", str(tmp_path))
    three = outline(dataclasses.replace(find_model("pacsp-s"), num_classes=3))

    def file(name: str, floats: int) -> Path:
        path = tmp_path / name
        with path.open("wb") as stream:  # sparse
            stream.write(struct.pack("<3iQ", 0, 2, 5, 0))
            stream.truncate(20 + 4 * floats)
        return path

    assert structure_of(file("mine.weights", size(three))) == three.config
    csp = size(outline(find_model("yolov4-csp")))
    assert structure_of(file("yolov4-csp_last.weights", csp)) == find_model("yolov4-csp")
    assert structure_of(file("yolov4-csp.weights", csp)) == find_model("yolov4-csp")
    assert structure_of(file("yolov3-tiny.weights", size(outline(find_model("yolov3-tiny"))))).cfg
    with pytest.raises(YolomishError, match="has the length of pacsp and of yolov4-csp: name its --model"):
        structure_of(file("best.weights", csp))
    with pytest.raises(YolomishError, match="are no shipped model with any number of classes"):
        structure_of(file("best.weights", 12345))


def test_official_weights_need_no_model(shared_data: Path) -> None:
    loaded = load_network(str(shared_data / "weights" / "yolov4-tiny.weights"))
    assert loaded.network.config == find_model("yolov4-tiny") and len(loaded.names) == 80
    listed = CliRunner().invoke(app, ["weights", "list"])
    assert listed.exit_code == 0, listed.output
    line = next(line for line in listed.stdout.splitlines() if line.startswith("yolov4-tiny "))
    assert " 24.3 " in line and " 6.9 " in line and "AP50 40.2 (416 px, test-dev)" in line
