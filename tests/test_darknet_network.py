"""Networks made of cfgs against OpenCV's reader, published sizes, Darknet's own detections and ports of its sections."""

import copy
import dataclasses
import math
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from conftest import randomise
from reference import darknet_sections as port
from reference.networks import narrower

from yolomish.config import ModelConfig, TrainConfig
from yolomish.darknet.cfg import parse_cfg
from yolomish.darknet.network import DarknetNetwork, build_darknet, config_of, read_cfg
from yolomish.darknet.order import file_order
from yolomish.darknet.summary import summarise
from yolomish.darknet.weights import read_weights, write_weights
from yolomish.darknet.write import write_cfg
from yolomish.errors import YolomishError
from yolomish.inference.detector import Detector
from yolomish.inference.engines import build_engine
from yolomish.inference.engines.packed import packed
from yolomish.inference.export.write import plain
from yolomish.networks import build_network, find_model
from yolomish.networks.registry import outline
from yolomish.nn.fold import folded
from yolomish.ops.decode import Decoded, decode
from yolomish.tasks.detection.assign import assign_shape_iou
from yolomish.tasks.detection.protocol import find_protocol
from yolomish.tasks.detection.task import DetectionTask
from yolomish.weights.checkpoint import save_checkpoint
from yolomish.weights.load import LoadedNetwork, load_network, start_from

REFUSED = {"yolov3-tiny_occlusion_track", "yolov3-tiny_xnor", "yolov4-tiny_contrastive"}
WITHOUT_OPENCV = {"resnet152_trident", "yolov4-sam-mish-csp-reorg-bfm"}  # it knows neither share_index nor reorg3d
WHOLE = ["yolov4-tiny", "yolov3-tiny-prn", "yolov4-csp-s-mish", "yolov7-tiny", "pacsp/yolov4-tiny", "enet-coco"]
NARROW = [  # with a quarter of their filters
    *(
        "cd53paspp-gamma",
        "csresnext50-panet-spp",
        "csresnext50-panet-spp-original-optimal",
        "yolov3",
        "yolov3-spp",
        "yolov3-tiny",
    ),
    *("yolov3-tiny_3l", "yolov3-openimages", "yolov3-voc", "yolov3_5l", "yolov4", "yolov4_new", "yolov4-csp", "yolov4-csp-swish"),
    *("yolov4-p5", "yolov4-p6", "yolov4-tiny-3l", "yolov4x-mish", "yolov7", "yolov7x", "yolov4-csp-x-swish", "cspx-p7-mish_hp"),
    *(f"pacsp/yolov4-{name}" for name in ("csp-leaky", "csp-mish", "csp-s-leaky", "csp-s-mish", "csp-x-leaky", "csp-x-mish")),
    *(f"pacsp/yolov4-pacsp{name}" for name in ("", "-mish", "-s", "-s-mish", "-x", "-x-mish")),
    *("pacsp/yolov4", "pacsp/yolov4-paspp"),
]


EVERY_KIND = """
[convolutional]
filters=12
size=3
stride=2
pad=1
batch_normalize=1
activation=mish
[convolutional]
filters=12
size=3
pad=1
dilation=2
groups=3
batch_normalize=1
activation=leaky
[shortcut]
from=-2
activation=mish
[maxpool]
size=2
stride=2
[convolutional]
filters=16
size=5
stride=2
pad=1
groups=4
activation=hard_mish
[maxpool]
size=2
stride=1
[convolutional]
filters=16
size=3
stride=2
pad=1
antialiasing=1
batch_normalize=1
activation=swish
[avgpool]
[convolutional]
filters=16
size=1
activation=logistic
[scale_channels]
from=-3
[dropout]
probability=.5
[convolutional]
filters=16
size=1
activation=logistic
[sam]
from=-2
[upsample]
stride=2
scale=0.5
[route]
layers=-1,5
groups=2
group_id=1
[batchnorm]
[shortcut]
from=4,5
weights_type=per_channel
weights_normalization=softmax
[convolutional]
filters=7
size=1
activation=linear
[yolo]
mask=0
anchors=10,14, 23,27
num=2
classes=2
[route]
layers=0
[reorg3d]
stride=2
[local_avgpool]
size=2
stride=2
[maxpool]
maxpool_depth=1
out_channels=20
[shortcut]
from=0,16
[maxpool]
size=3
stride=2
antialiasing=2
padding=3
[convolutional]
filters=7
size=3
pad=1
activation=linear
[yolo]
mask=1
anchors=10,14, 23,27
num=2
classes=2
"""


def network_of(text: str, channels: int = 3, side: int = 32) -> DarknetNetwork:
    """A randomised network of sections' text in evaluation mode; with a classifier's end where it has no head."""
    end = "" if "[yolo]" in text else "[avgpool]\n[softmax]\n"
    cfg = f"[net]\nwidth={side}\nheight={side}\nchannels={channels}\n{text}\n{end}"
    torch.manual_seed(0)
    network = build_darknet(config_of(parse_cfg(cfg, "x.cfg").sections, "x")).eval()
    randomise(network)
    return network


@torch.no_grad()
def result(network: DarknetNetwork, index: int, image: torch.Tensor) -> np.ndarray:
    """What section ``index`` makes of an image (C, H, W)."""
    network.results, network.spent = (index,), tuple(() for _ in network.sources)
    return network(image[None])[0][0].numpy()


@torch.no_grad()
def calibrate(network: torch.nn.Module, size: int) -> torch.Tensor:
    """Give batch norms the statistics of random images, so that maps depend on what is seen in networks of any depth.

    Returns the images (4, 3, size, size).
    """
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.momentum = 1.0
    images = torch.rand(4, 3, size, size)
    network.train()(images)
    network.eval()
    heads = [m for m in network.modules() if type(m) is torch.nn.Conv2d and m.bias is not None]
    for conv, raw in zip(heads[-len(network.heads) :], network(images), strict=True):
        conv.weight /= 2 * raw.std().clamp(min=1e-3)
        conv.bias.normal_(0, 1)
    return images


def detector_cfgs(folder: Path) -> list[Path]:
    return sorted(p for p in folder.rglob("*.cfg") if "[yolo]" in p.read_bytes().decode("latin-1"))


@pytest.mark.slow
@torch.no_grad()
def test_every_detector_cfg_builds_or_is_refused_by_name(shared_data: Path) -> None:
    files = detector_cfgs(shared_data / "darknet-cfg")
    assert len(files) == 56
    refused = set()
    for path in files:
        try:
            config = read_cfg(path)
        except YolomishError as error:
            assert str(error).startswith(f"{path}:")
            refused.add(path.stem)
            continue
        if path.stem not in ("yolov4-tiny", "yolov4-p6", "yolov3-tiny_3l", "yolov7-tiny", "enet-coco", "resnet152_trident"):
            continue
        network = outline(config)
        height, width = network.input.size_hw
        maps = network(torch.empty(1, 3, height, width, device="meta"))
        for raw, head in zip(maps, network.heads, strict=True):
            assert raw.shape[1:] == (len(head.mask) * (5 + head.num_classes), height // head.stride, width // head.stride)
    assert refused == REFUSED


@pytest.mark.parametrize(
    ("name", "size", "parameters", "bflops"),
    [
        ("yolov4", 608, 64_363_101, 128.46),  # Darknet's own prints, README.md and the published files' sizes
        ("yolov4-tiny", 416, 6_056_606, 6.91),
        ("yolov3", 416, 61_949_149, 65.88),
        ("yolov3-tiny", 416, 8_852_366, 5.57),
        ("yolov4-csp", 512, 52_921_437, 77.0),
        ("yolov4x-mish", 640, 99_751_053, 222.0),
        ("yolov7", 640, 36_928_413, 104.6),
    ],
)
def test_sizes_and_costs_are_the_published_ones(shared_data: Path, name: str, size: int, parameters: int, bflops: float) -> None:
    summary = summarise(read_cfg(shared_data / "darknet-cfg" / f"{name}.cfg"), (size, size))
    assert summary.parameters == parameters
    assert summary.bflops == pytest.approx(bflops, rel=3e-3)


@pytest.mark.parametrize(
    ("name", "sections", "bytes_"),
    [
        ("yolov4", 162, 257_717_640),
        ("yolov4", 137, 170_038_676),  # yolov4.conv.137
        ("yolov4-tiny", 38, 24_251_276),
        ("yolov4-tiny", 29, 19_789_716),  # yolov4-tiny.conv.29
        ("yolov3", 107, 248_007_048),
        ("yolov3", 74, 162_482_580),  # darknet53.conv.74
        ("yolov3-tiny", 24, 35_434_956),
    ],
)
def test_weights_files_have_the_published_lengths(shared_data: Path, name: str, sections: int, bytes_: int) -> None:
    network = outline(read_cfg(shared_data / "darknet-cfg" / f"{name}.cfg"))
    stored = [s for s in file_order(network) if int(s.name.split(".")[1]) < sections]
    assert 20 + 4 * sum(tensor.numel() for s in stored for tensor in s.tensors()) == bytes_


def test_the_backbone_ends_where_its_own_file_does(shared_data: Path) -> None:
    ends = {}
    for name in ("yolov4", "yolov3", "yolov4-tiny", "yolov4-csp", "csresnext50-panet-spp", "enet-coco", "yolov3-tiny-prn"):
        parts = outline(read_cfg(shared_data / "darknet-cfg" / f"{name}.cfg")).parts
        ends[name] = len(parts["backbone"])
    assert ends["yolov4"] == len(outline(read_cfg(shared_data / "darknet-cfg" / "csdarknet53-omega.cfg")).parts["backbone"]) - 1
    assert ends == {  # csdarknet53 before [avgpool], darknet53 before [avgpool], the 512 of yolov4-tiny, ...
        "yolov4": 105,
        "yolov3": 75,
        "yolov4-tiny": 27,
        "yolov4-csp": 99,
        "csresnext50-panet-spp": 81,
        "enet-coco": 131,
        "yolov3-tiny-prn": 14,
    }
    unknown = read_cfg(shared_data / "darknet-cfg" / "yolov3-tiny.cfg")
    assert dict(outline(unknown).parts) == {"all": ("layers",)}
    with pytest.raises(YolomishError, match="yolov3-tiny does not tell its backbone apart: name all"):
        build_network(dataclasses.replace(unknown, activation="mish"))
    assert outline(dataclasses.replace(unknown, activation="mish", neck_activation="mish")).activations() == ("mish",)


@torch.no_grad()
def agree_with_opencv(network: DarknetNetwork, folder: Path, size: int) -> None:
    """Boxes and scores of a random image, network and file against OpenCV, which reads the cfg that we write."""
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.eps = 1e-6  # OpenCV's, modules/dnn/src/darknet/darknet_io.cpp; it shows where a channel hardly varies
    images = calibrate(network, size)[:1]
    write_cfg(folder / "n.cfg", network, (size, size))
    write_weights(folder / "n.weights", network)
    net = cv2.dnn.readNetFromDarknet(str(folder / "n.cfg"), str(folder / "n.weights"))
    net.enableWinograd(False)
    net.setInput(images.numpy())
    names = net.getUnconnectedOutLayersNames()
    theirs = dict(zip(names, net.forward(names), strict=True))
    assert len(theirs) == len(network.heads)
    maps, truths = network(images), copy.deepcopy(network).double()(images.double())
    for index, raw, truth, head in zip(network.results, maps, truths, network.heads, strict=True):
        out = torch.from_numpy(theirs[f"yolo_{index}"]).reshape(-1, 5 + head.num_classes)
        ours, exact = (placed(decode([m], [head]), raw[0, 0].numel(), size) for m in (raw, truth))
        wide = torch.cat((out[:, :2] - out[:, 2:4] / 2, out[:, :2] + out[:, 2:4] / 2, out[:, 4:]), 1)
        apart, rounding = ((rows - exact).abs() / (1 + exact.abs()) for rows in (wide, ours))
        tolerance = 1e-5 + 10 * rounding.max()  # a hundred layers amplify float32's rounding
        seen = wide[:, 5:] > 0  # OpenCV zeroes class scores below its threshold
        assert tolerance < 0.1 and apart[:, :5].max() < tolerance
        assert seen.any() and apart[:, 5:][seen].max() < tolerance
        assert raw.std((2, 3)).mean() > 0.03  # what is seen reaches the maps


def placed(decoded: Decoded, cells: int, size: int) -> torch.Tensor:
    """Rows x1, y1, x2, y2 in fractions of the image, objectness and class scores, cell by cell as Darknet has them."""
    rows = torch.cat((decoded.boxes / size, decoded.objectness[..., None], decoded.objectness[..., None] * decoded.classes), 2)[0]
    return rows.view(-1, cells, rows.shape[1]).transpose(0, 1).reshape(rows.shape)


@pytest.mark.usefixtures("darknet_reader")
@pytest.mark.parametrize("name", [*WHOLE, *NARROW])
def test_boxes_and_scores_are_opencvs(tmp_path: Path, shared_data: Path, name: str) -> None:
    text = (shared_data / "darknet-cfg" / f"{name}.cfg").read_text()
    (tmp_path / "read.cfg").write_text(narrower(text, 1 if name in WHOLE else 4))
    network = build_network(read_cfg(tmp_path / "read.cfg")).eval()
    randomise(network)
    agree_with_opencv(network, tmp_path, max(64, 2 * network.input.stride))


def test_every_cfg_is_compared_with_opencv_or_has_its_reason(shared_data: Path) -> None:
    compared = {*WHOLE, *NARROW}
    twins = {  # the same network in other words: classes, training, or [yolo] values that the next in the list has too
        *("yolov3-tiny_obj", "yolov4-custom", "yolov4-p5-frozen", "yolov4-csp-x-swish-frozen", "yolov4-tiny-custom"),
        *("yolov3.coco-giou-12", "yolov3-voc.yolov3-giou-40", "yolov4-csp-x-mish", "cspx-p7-mish"),
    }
    folder = shared_data / "darknet-cfg"
    names = {str(p.relative_to(folder).with_suffix("")) for p in detector_cfgs(folder)}
    assert names == compared | twins | WITHOUT_OPENCV | REFUSED


@torch.no_grad()
def test_shared_weights_are_those_of_the_section_that_they_name(tmp_path: Path) -> None:
    conv = "[convolutional]\nfilters=4\nsize=3\npad=1\nbatch_normalize=1\nactivation=leaky\n"
    network = network_of(
        f"{conv}[convolutional]\nfilters=4\nsize=3\npad=1\nactivation=leaky\nbatch_normalize=1\n"
        f"[convolutional]\nshare_index=1\nfilters=4\nsize=3\npad=1\ndilation=2\nactivation=leaky\nbatch_normalize=1\n",
        side=9,
    )
    assert [s.name for s in file_order(network)] == ["layers.0.conv", "layers.1.conv"]
    image = torch.rand(3, 9, 9)
    before, block = result(network, 1, image), network.layers[2]
    weight, bias = (t.numpy() for t in folded(network).layers[1].conv.parameters())
    wanted = port.convolution(before, weight, bias, 1, 1, 1, 2, 1)
    np.testing.assert_allclose(result(network, 2, image), np.where(wanted > 0, wanted, 0.1 * wanted), rtol=1e-4, atol=1e-5)
    assert block.conv.weight is network.layers[1].conv.weight
    write_weights(tmp_path / "a.weights", network)
    again = network_of(
        "\n".join(f"[{s.kind}]\n" + "\n".join(f"{k}={o.value}" for k, o in s.options.items()) for s in network.sections[1:4]),
        side=9,
    )
    read_weights(tmp_path / "a.weights", again)
    np.testing.assert_array_equal(result(again, 2, image), result(network, 2, image))


@pytest.mark.parametrize(
    "options",
    [
        {"size": 3, "stride": 2, "pad": 1, "groups": 2},
        {"size": 3, "stride_x": 2, "stride_y": 1, "padding": 0},
        {"size": 5, "stride": 1, "pad": 1, "dilation": 2},
        {"size": 2, "stride": 2, "pad": 1, "groups": 4},
        {"size": 1, "stride": 3, "padding": 1},
        {"size": 3, "stride": 2, "pad": 1, "antialiasing": 1},
        {"size": 3, "stride": 2, "pad": 1, "antialiasing": 2},
    ],
)
@torch.no_grad()
def test_a_convolution_is_darknets(options: dict[str, int]) -> None:
    text = "\n".join(f"{key}={value}" for key, value in options.items())
    network = network_of(f"[convolutional]\nfilters=8\nactivation=linear\n{text}\n", channels=4, side=11)
    image = torch.rand(4, 11, 11)
    block = network.layers[0][0] if "antialiasing" in options else network.layers[0]
    block.conv.bias.normal_()
    stride = options.get("stride", 1)
    y, x = options.get("stride_y", stride), options.get("stride_x", stride)
    pad = options["size"] // 2 if options.get("pad") else options.get("padding", 0)
    weight, bias = block.conv.weight.numpy(), block.conv.bias.numpy()
    if kind := options.get("antialiasing", 0):
        wanted = port.blur(port.convolution(image.numpy(), weight, bias, 1, 1, pad, 1, 1), 2 if kind == 2 else 3, stride)
    else:
        wanted = port.convolution(image.numpy(), weight, bias, y, x, pad, options.get("dilation", 1), options.get("groups", 1))
    np.testing.assert_allclose(result(network, 0, image), wanted, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("size", [1, 2, 3, 4, 5])
@pytest.mark.parametrize("stride", [(1, 1), (2, 2), (3, 3), (1, 2)])
@pytest.mark.parametrize("padding", [None, 0, 1, 3])
def test_max_pooling_is_darknets(size: int, stride: tuple[int, int], padding: int | None) -> None:
    text = f"[maxpool]\nsize={size}\nstride_y={stride[0]}\nstride_x={stride[1]}\n" + (
        "" if padding is None else f"padding={padding}\n"
    )
    pad = size - 1 if padding is None else padding
    if pad // 2 >= size or pad - pad // 2 >= size:
        pytest.skip("windows that see nothing: Darknet returns -FLT_MAX")
    image = torch.randn(2, 9, 10)
    network = network_of(text, channels=2, side=16)
    np.testing.assert_array_equal(result(network, 0, image), port.maxpool(image.numpy(), size, *stride, pad))


@pytest.mark.parametrize("options", ["stride=4\nsize=4", "stride=2\nsize=3", "stride=2\nsize=2\npadding=0", "size=5"])
def test_local_averages_are_darknets(options: str) -> None:
    values = dict(pair.split("=") for pair in options.split("\n"))
    size, stride = int(values["size"]), int(values.get("stride", 1))
    image = torch.randn(2, 12, 12)
    wanted = port.local_average(image.numpy(), size, stride, int(values.get("padding", size - 1)))
    np.testing.assert_allclose(
        result(network_of(f"[local_avgpool]\n{options}\n", channels=2, side=12), 0, image), wanted, rtol=1e-5, atol=1e-6
    )


def test_depth_pooling_reorg_upsample_and_route_are_darknets() -> None:
    image = torch.randn(8, 6, 4)
    x = image.numpy()

    def ours(text: str, index: int = 0) -> np.ndarray:
        return result(network_of(text, channels=8, side=12), index, image)

    np.testing.assert_array_equal(ours("[maxpool]\nmaxpool_depth=1\nout_channels=3\n"), port.maxpool_depth(x, 3))
    np.testing.assert_array_equal(ours("[reorg3d]\nstride=2\n"), port.reorg3d(x, 2))
    np.testing.assert_array_equal(ours("[reorg]\nstride=2\n"), port.reorg(x, 2))
    for stride, scale in ((2, 1.0), (3, 0.5), (-2, 1.0), (-2, 0.25)):
        wanted = port.upsample(x, stride, scale)
        np.testing.assert_allclose(ours(f"[upsample]\nstride={stride}\nscale={scale}\n"), wanted, rtol=1e-5, atol=1e-6)
    route = (
        "[empty]\n[maxpool]\nsize=3\n[route]\nlayers=-1,-2\ngroups=4\ngroup_id=2\n"  # src/route_layer.c: a share of each input
    )
    np.testing.assert_array_equal(ours(route, 2), np.concatenate((port.maxpool(x, 3, 1, 1, 2)[4:6], x[4:6])))


@pytest.mark.parametrize("weighted", ["", "per_feature", "per_channel"])
@pytest.mark.parametrize("normalisation", ["none", "relu", "softmax"])
@pytest.mark.parametrize("other", [4, 2, 6])
@torch.no_grad()
def test_shortcuts_of_several_maps_are_darknets(weighted: str, normalisation: str, other: int) -> None:
    conv = "[convolutional]\nfilters={}\nsize=1\nactivation=linear\n"
    weights = f"weights_type={weighted}\nweights_normalization={normalisation}\n" if weighted else ""
    sums = f"[shortcut]\nfrom=-2,-4\nactivation=leaky\n{weights}"
    text = f"{conv.format(other)}[route]\nlayers=-1\n{conv.format(4)}{conv.format(4)}{sums}"
    network = network_of(text, side=5)
    block = network.layers[4]
    flat = None
    if weighted:
        block.weights.normal_()
        flat = block.weights.numpy().ravel()
    image = torch.randn(3, 5, 5)
    wanted = port.shortcut([result(network, i, image) for i in (3, 2, 0)], flat, normalisation)
    np.testing.assert_allclose(result(network, 4, image), np.where(wanted > 0, wanted, 0.1 * wanted), rtol=1e-4, atol=1e-5)
    assert [s.name for s in file_order(network)][3:] == (["layers.4"] if weighted else [])


def test_a_shortcut_from_a_larger_map_takes_every_second_value() -> None:
    conv = "[convolutional]\nfilters={}\nsize=1\nstride={}\nactivation=linear\n"
    text = f"{conv.format(4, 1)}{conv.format(6, 2)}[shortcut]\nfrom=-2\n"
    network, image = network_of(text, side=8), torch.randn(3, 8, 8)
    wanted = port.sampled_shortcut(result(network, 1, image), result(network, 0, image))
    np.testing.assert_allclose(result(network, 2, image), wanted, rtol=1e-5, atol=1e-6)


def test_gates_multiply_the_map_that_they_name() -> None:
    conv = "[convolutional]\nfilters={}\nsize=1\nactivation=logistic\n"
    image = torch.randn(3, 5, 5)
    excite = network_of(f"{conv.format(4)}[avgpool]\n{conv.format(4)}[scale_channels]\nfrom=-3\n", side=5)
    gate, x = result(excite, 2, image), result(excite, 0, image)
    np.testing.assert_allclose(result(excite, 3, image), np.stack([x[c] * gate[c, 0, 0] for c in range(4)]), rtol=1e-6)
    places = network_of(f"{conv.format(4)}{conv.format(1)}[scale_channels]\nfrom=-2\nscale_wh=1\n", side=5)
    gate, x = result(places, 1, image), result(places, 0, image)
    np.testing.assert_allclose(result(places, 2, image), np.stack([x[c] * gate[0] for c in range(4)]), rtol=1e-6)
    sam = network_of(f"{conv.format(4)}{conv.format(4)}[sam]\nfrom=-2\n", side=5)
    np.testing.assert_allclose(result(sam, 2, image), result(sam, 0, image) * result(sam, 1, image), rtol=1e-6)
    assert not any(name.startswith("layers") for name in sam.slots())  # gates are not activations to swap


@torch.no_grad()
def test_connected_and_batchnorm_sections_store_darknets_order(tmp_path: Path) -> None:
    text = "[batchnorm]\n[connected]\noutput=5\nbatch_normalize=1\nactivation=relu\n[connected]\noutput=2\nactivation=linear\n"
    network = network_of(text, side=2)
    torch.nn.init.normal_(network.layers[2].linear.bias)
    write_weights(tmp_path / "a.weights", network)
    floats = np.fromfile(tmp_path / "a.weights", "<f4", offset=20)
    norm, one, two = network.layers[:3]
    wanted = [norm.bias, norm.weight, norm.running_mean, norm.running_var]  # src/parser.c load_batchnorm_weights
    wanted += [one.bn.bias, one.linear.weight, one.bn.weight, one.bn.running_mean, one.bn.running_var]  # load_connected_weights
    wanted += [two.linear.bias, two.linear.weight]
    np.testing.assert_array_equal(floats, torch.cat([t.flatten() for t in wanted]).numpy())
    x = torch.randn(3, 2, 2)
    flat = norm(x[None]).flatten()
    hidden = (
        (one.linear.weight @ flat - one.bn.running_mean) / (one.bn.running_var + 1e-5).sqrt() * one.bn.weight + one.bn.bias
    ).relu()
    torch.testing.assert_close(network(x[None])[0][0], two.linear.weight @ hidden + two.linear.bias)


def test_yolov4_tiny_answers_with_anchors_3_4_5_and_1_2_3(shared_data: Path) -> None:
    config = read_cfg(shared_data / "darknet-cfg" / "yolov4-tiny.cfg")
    coarse, fine = outline(config).heads
    assert (coarse.mask, coarse.stride, fine.mask, fine.stride) == ((3, 4, 5), 32, (1, 2, 3), 16)
    assert coarse.anchors == ((81, 82), (135, 169), (344, 319)) and fine.anchors == ((23, 27), (37, 58), (81, 82))
    assert coarse.scale_xy == fine.scale_xy == 1.05
    assert 1e38 < coarse.loss.max_delta < math.inf  # src/parser.c: FLT_MAX; files of networks hold finite numbers
    boxes = torch.tensor([[0, 7, 100.0, 100.0, 181.0, 182.0], [0, 7, 200.0, 40.0, 210.0, 54.0]])  # anchor 3; anchor 0, in no mask
    both = assign_shape_iou(boxes, (coarse, fine), ((13, 13), (26, 26)))
    assert [(a.anchors.tolist(), a.columns.tolist(), a.rows.tolist()) for a in both] == [([0], [4], [4]), ([2], [8], [8])]


@torch.no_grad()
def test_other_classes_anchors_forms_and_activations_are_taken(tmp_path: Path, shared_data: Path) -> None:
    config = read_cfg(shared_data / "darknet-cfg" / "yolov4-tiny.cfg")
    changed = dataclasses.replace(
        config,
        num_classes=3,
        activation="mish",
        neck_activation="silu",
        box_form="squared",
        scale_xy=(2.0, 2.0),
        anchors=tuple((8.0 * i, 9.0 * i) for i in range(1, 7)),
        image_size=(96, 128),
    )
    network = build_network(changed).eval()
    randomise(network)
    assert [(h.num_classes, h.box_form, h.scale_xy, h.anchors[0]) for h in network.heads] == [
        (3, "squared", 2.0, (32, 36)),
        (3, "squared", 2.0, (16, 18)),
    ]
    assert network.activations("backbone") == ("mish",) and network.activations("neck") == ("silu",)
    images = torch.rand(2, 3, 96, 128)
    maps = network(images)
    assert [m.shape for m in maps] == [(2, 24, 3, 4), (2, 24, 6, 8)]
    write_cfg(tmp_path / "n.cfg", network)
    write_weights(tmp_path / "n.weights", network)
    (tmp_path / "n.names").write_text("a\nb\nc\n")
    again = load_network(str(tmp_path / "n.weights"), cfg=str(tmp_path / "n.cfg"))
    assert again.names == ("a", "b", "c") and again.network.heads == network.heads and again.network.input == network.input
    assert all(torch.equal(a, b) for a, b in zip(again.network(images), maps, strict=True))
    with pytest.raises(YolomishError, match="has 2 heads: scale_xy needs as many"):
        build_network(dataclasses.replace(config, scale_xy=(1.0, 1.1, 1.2)))
    one = build_network(dataclasses.replace(config, scale_xy=(2.0, 2.0, 2.0)))  # as recipes for three heads say
    assert [head.scale_xy for head in one.heads] == [2.0, 2.0]


@torch.no_grad()
def test_a_checkpoint_holds_its_cfg(tmp_path: Path, shared_data: Path) -> None:
    config = dataclasses.replace(read_cfg(shared_data / "darknet-cfg" / "yolov4-tiny-3l.cfg"), num_classes=2, activation="mish")
    network = build_network(config).eval()
    randomise(network)
    save_checkpoint(tmp_path / "x.pt", config=TrainConfig(model=config, image_size=(64, 96)), model=network, names=("a", "b"))
    loaded = load_network(str(tmp_path / "x.pt"))
    assert loaded.network.config == config and loaded.network.input.size_hw == (64, 96)
    images = torch.rand(1, 3, 64, 96)
    assert all(torch.equal(a, b) for a, b in zip(loaded.network(images), network(images), strict=True))


@pytest.mark.parametrize(
    "config",
    [
        ModelConfig(width=0.25, depth=0.25, num_classes=3),
        ModelConfig(width=0.125, depth=0.5, num_classes=1, activation="silu", neck_activation="mish"),
        ModelConfig(width=0.25, depth=1.0, num_classes=2, box_form="squared", scale_xy=(2.0, 2.0, 2.0)),
    ],
    ids=["exp", "deeper", "squared"],
)
@torch.no_grad()
def test_the_python_yolov4_is_its_written_cfg(tmp_path: Path, config: ModelConfig) -> None:
    network = build_network(config).eval()
    randomise(network)
    write_cfg(tmp_path / "n.cfg", network)
    write_weights(tmp_path / "n.weights", network)
    other = build_network(read_cfg(tmp_path / "n.cfg")).eval()
    assert isinstance(other, DarknetNetwork) and other.heads == network.heads
    read_weights(tmp_path / "n.weights", other)
    images = torch.rand(1, 3, 64, 96)
    assert all(torch.equal(a, b) for a, b in zip(network(images), other(images), strict=True))


@torch.no_grad()
def every_kind() -> tuple[DarknetNetwork, torch.Tensor, tuple[torch.Tensor, ...]]:
    network = network_of(EVERY_KIND, side=64)
    calibrate(network, 64)
    network.layers[16].weights.normal_()
    images = torch.rand(2, 3, 64, 96)
    return network, images, network(images)


@pytest.mark.parametrize("engine", ["torch", "onnxruntime", "openvino"])
@torch.no_grad()
def test_engines_compute_every_kind_of_section(engine: str) -> None:
    pytest.importorskip(engine, reason=f"{engine} is an optional engine, not installed here")
    network, images, maps = every_kind()
    for ours, truth in zip(build_engine(engine, network, device=torch.device("cpu"))(images), maps, strict=True):
        torch.testing.assert_close(ours, truth, rtol=0, atol=1e-4)


@torch.no_grad()
def test_programs_of_torch_compute_every_kind_of_section() -> None:
    network, images, maps = every_kind()
    traced = torch.jit.trace(plain(network), images)
    batch, rows = torch.export.Dim("batch", min=1, max=64), torch.export.Dim("rows", min=1, max=64)
    exported = torch.export.export(plain(network), (images,), dynamic_shapes=({0: batch, 2: 16 * rows},)).module()
    for program in (traced, exported, folded(network), packed(network, torch.float32)):
        for ours, truth in zip(program(images), maps, strict=True):
            torch.testing.assert_close(ours, truth, rtol=0, atol=1e-4)
    assert [m.shape[2] for m in exported(torch.rand(3, 3, 48, 96))] == [6, 3]


@pytest.mark.parametrize("name", ["yolov4-tiny", "enet-coco", "yolov4-csp-s-mish"])
@torch.no_grad()
def test_folding_keeps_the_graphs_maps(shared_data: Path, name: str) -> None:
    network = build_network(read_cfg(shared_data / "darknet-cfg" / f"{name}.cfg")).eval()
    randomise(network)
    images = torch.rand(1, 3, 64, 96)
    fused = folded(network)
    assert not any(isinstance(m, torch.nn.BatchNorm2d) for m in fused.modules())
    for ours, truth in zip(fused(images), network(images), strict=True):
        torch.testing.assert_close(ours, truth, rtol=1e-3, atol=1e-4 * truth.abs().max().item())


@torch.no_grad()
def test_a_classifier_returns_one_logit_per_class(shared_data: Path) -> None:
    config = read_cfg(shared_data / "darknet-cfg" / "classifiers" / "csdarknet53-omega.cfg")
    assert config.num_classes == 1000
    network = outline(dataclasses.replace(config, num_classes=12))
    (logits,) = network(torch.empty(2, 3, 64, 64, device="meta"))
    assert logits.shape == (2, 12) and network.heads == () and set(network.parts) == {"backbone", "head"}


def test_training_reaches_every_parameter_of_a_graph(shared_data: Path) -> None:
    config = dataclasses.replace(read_cfg(shared_data / "darknet-cfg" / "enet-coco.cfg"), num_classes=2)
    network = build_network(config).train()
    sum(raw.square().mean() for raw in network(torch.rand(2, 3, 64, 64))).backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in network.parameters())


TWO_HEADS = """[net]
height=32
width=32
channels=3
[convolutional]
filters=4
size=3
stride=32
pad=1
activation=leaky
[convolutional]
filters=7
size=1
activation=linear
[yolo]
mask=0
anchors=8,8, 16,16
num=2
classes=2
[route]
layers=0
[convolutional]
filters=7
size=1
activation=linear
[yolo]
mask=1
anchors=8,8, 16,16
num=2
classes=2
"""


def test_heads_of_two_forms_of_boxes_are_refused(tmp_path: Path) -> None:
    mixed = TWO_HEADS.replace("linear", "logistic", 1).replace("mask=0\n", "mask=0\nnew_coords=1\n")
    (tmp_path / "n.cfg").write_text(mixed)
    with pytest.raises(YolomishError, match=r"n\.cfg:27: \[yolo\] has another new_coords than the first"):
        find_model(str(tmp_path / "n.cfg"))


def test_a_cfg_that_counts_its_classes_starts_from_weights_of_others(tmp_path: Path) -> None:
    (tmp_path / "five.cfg").write_text(TWO_HEADS.replace("classes=2", "classes=5").replace("filters=7", "filters=10"))
    write_weights(tmp_path / "five.weights", build_network(find_model(str(tmp_path / "five.cfg"))))
    (tmp_path / "two.cfg").write_text(TWO_HEADS.replace("num=2\n", "num=2\ncounters_per_class=5,6\n"))
    network, said = build_network(find_model(str(tmp_path / "two.cfg"))), []
    start_from(network, tmp_path / "five.weights", said.append)
    assert "2 of 6 tensors loaded" in said[-1]


def test_names_are_those_beside_the_cfg_however_it_is_given_and_encoded(tmp_path: Path) -> None:
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
    cfg, weights = tmp_path / "b" / "n.cfg", str(tmp_path / "a" / "n.weights")
    cfg.write_text(TWO_HEADS)
    (tmp_path / "b" / "n.names").write_text("h\u00fcnd\ncat\n", encoding="utf-16")
    write_weights(weights, build_network(find_model(str(cfg))))
    assert load_network(weights, cfg=str(cfg)).names == load_network(weights, model=str(cfg)).names == ("h\u00fcnd", "cat")


def test_every_norm_of_a_graph_has_the_configured_momentum() -> None:
    text = "[net]\nheight=8\nwidth=8\nchannels=3\n[connected]\noutput=4\nbatch_normalize=1\nactivation=leaky\n"
    text += "[connected]\noutput=2\nactivation=linear\n[softmax]\n"
    config = config_of(parse_cfg(text, "n.cfg").sections, "n")
    built = build_network(dataclasses.replace(config, bn_momentum=0.25))
    assert {m.momentum for m in built.modules() if isinstance(m, torch.nn.modules.batchnorm._BatchNorm)} == {0.25}


def test_dropblock_needs_a_backbone_that_is_told_apart() -> None:
    from yolomish.training.build import _drop_blocks

    with pytest.raises(YolomishError, match="does not tell its backbone apart"):
        _drop_blocks(build_network(find_model("yolov3-tiny")), 0.1)


def test_a_classifier_is_no_detector(tmp_path: Path) -> None:
    network = network_of("[convolutional]\nfilters=2\nsize=1\nactivation=linear\n")
    loaded = LoadedNetwork(network=network, names=("a", "b"), from_darknet=True)
    for refuses in (
        lambda: Detector(loaded, device="cpu"),
        lambda: find_protocol("darknet").of(network.heads),
        lambda: DetectionTask().check(TrainConfig(image_size=32), network),
    ):
        with pytest.raises(YolomishError, match="a classifier finds no boxes"):
            refuses()
