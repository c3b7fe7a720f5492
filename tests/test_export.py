"""Exports hold torch's own numbers, say what they are, and are nothing at all where they would not."""

import json
import sys
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from reference.builders import loaded_from
from reference.networks import calibrated
from torchvision.ops import box_iou
from typer.testing import CliRunner

from yolomish.commands import app
from yolomish.config import TrainConfig, load_data_config
from yolomish.data.datasets import open_data
from yolomish.data.images import read_image
from yolomish.errors import YolomishError
from yolomish.inference.detector import Detector
from yolomish.inference.engines.exported import open_exported
from yolomish.inference.export import int8
from yolomish.inference.export.metadata import describe
from yolomish.inference.export.onnx_graph import write_graph
from yolomish.inference.export.verify import compare, generated_image
from yolomish.inference.export.write import SUFFIXES, WRITERS, ExportOptions, export_network
from yolomish.networks.scope import swap
from yolomish.types import Detections, Metrics
from yolomish.weights.checkpoint import save_checkpoint
from yolomish.weights.load import LoadedNetwork, load_network

CPU = torch.device("cpu")
NMS = ExportOptions(nms=True, conf=0.15)
NEEDS = {"onnx": ("onnx", "onnxruntime"), "openvino": ("onnx", "openvino")}


def need(*packages: str) -> None:
    for package in packages:
        pytest.importorskip(package, reason=f"{package} is optional, not installed here")


def network() -> LoadedNetwork:
    return loaded_from(calibrated(), ("ä", "b", "c"), size=128, resize="letterbox")


def same_detections(ours: Detections, theirs: Detections) -> None:
    assert len(theirs) > 1 and ours.labels.tolist() == theirs.labels.tolist()
    torch.testing.assert_close(ours.boxes, theirs.boxes, rtol=1e-3, atol=0.05)


def photo(shared_data: Path) -> np.ndarray:
    return read_image(shared_data / "photos" / "dog.jpg")


@pytest.mark.parametrize("format", [f for f in SUFFIXES if f != "darknet"])
def test_a_file_detects_as_its_network_does_and_knows_classes_and_resize(tmp_path: Path, shared_data: Path, format: str) -> None:
    need(*NEEDS.get(format, ()))
    dynamic = format != "torch_export"  # symbolic shapes take torch.export half a minute
    file = tmp_path / f"m{SUFFIXES[format][0]}"
    options = ExportOptions(dynamic=dynamic)
    done = export_network(network(), file, format, image=photo(shared_data), size_hw=(128, 128), options=options)
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted(p.name for p in done.files)
    assert done.agreement.logits is not None and 0 < done.agreement.logits < 1e-3
    for size in (0, 96, (96, 160)) if dynamic else (0, (128, 128)):
        ours, theirs = (Detector(of, engine=e, conf=0.2, image_size=size) for of, e in ((file, "auto"), (network(), "torch")))
        assert ours.names == ("ä", "b", "c") and ours.pipeline.size_hw == ({0: (128, 128), 96: (96, 96)}.get(size, size))
        assert (ours.engine.input, ours.engine.heads) == (theirs.engine.input, theirs.engine.heads)
        assert ours.pipeline.protocol == theirs.pipeline.protocol and ours.pipeline.protocol.resize == "letterbox"
        same_detections(ours.detect(photo(shared_data)), theirs.detect(photo(shared_data)))


def test_a_file_of_darknets_weights_detects_as_darknet_does(tmp_path: Path) -> None:
    need("onnx", "onnxruntime")
    for darknet, wanted in ((True, "darknet-test-letterbox"), (False, "detect")):
        loaded = replace(network(), from_darknet=darknet)
        description = describe(loaded, size_hw=(128, 128), dynamic=True)
        WRITERS["onnx"](loaded, tmp_path / "m.onnx", description, ExportOptions())
        assert Detector(tmp_path / "m.onnx", engine="onnxruntime").pipeline.protocol.name == wanted


@pytest.mark.parametrize("engine", ["onnxruntime", "openvino"])
@pytest.mark.parametrize("shape", ["--dynamic", "--fixed"])
def test_a_wide_onnx_file_detects_as_its_network_does_at_that_size(
    tmp_path: Path, shared_data: Path, engine: str, shape: str
) -> None:
    need("onnx", engine)
    config = TrainConfig(image_size=128, model=calibrated().config)
    save_checkpoint(tmp_path / "w.pt", config=config, model=calibrated(), names=("a", "b", "c"))
    done = CliRunner().invoke(app, ["export", "--weights", str(tmp_path / "w.pt"), "--imgsz", "96x160", shape])
    assert done.exit_code == 0 and "1x3x96x160" in done.output, done.output
    ours = Detector(tmp_path / "w.onnx", engine=engine, conf=0.2)
    assert ours.engine.input.size_hw == ours.pipeline.size_hw == (96, 160)
    theirs = Detector(tmp_path / "w.pt", engine="torch", conf=0.2, image_size=(96, 160))
    same_detections(ours.detect(photo(shared_data)), theirs.detect(photo(shared_data)))
    if shape == "--fixed":
        with pytest.raises(YolomishError, match="96x160 px alone, not 160x96"):
            Detector(tmp_path / "w.onnx", engine=engine, image_size=(160, 96))


@pytest.mark.slow
def test_a_dynamic_torch_export_of_the_smallest_size_takes_any_other(tmp_path: Path, shared_data: Path) -> None:
    config = TrainConfig(image_size=64, model=calibrated().config)
    save_checkpoint(tmp_path / "w.pt", config=config, model=calibrated(), names=("a", "b", "c"))
    command = ["export", "--weights", str(tmp_path / "w.pt"), "--format", "torch_export", "--imgsz", "32"]
    done = CliRunner().invoke(app, command)
    assert done.exit_code == 0 and "1x3x32x32" in done.output, done.output
    for size in (0, (96, 160)):
        ours = Detector(tmp_path / "w.pt2", conf=0.05, image_size=size)
        theirs = Detector(tmp_path / "w.pt", engine="torch", conf=0.05, image_size=size or 32)
        same_detections(ours.detect(photo(shared_data)), theirs.detect(photo(shared_data)))


def test_a_file_written_before_inputs_were_described_still_detects(tmp_path: Path, shared_data: Path) -> None:
    need("onnx", "onnxruntime")
    import onnx

    file, loaded = tmp_path / "old.onnx", network()
    export_network(loaded, file, "onnx", image=photo(shared_data), size_hw=(96, 96), options=ExportOptions())
    heads = [
        {"anchors": h.anchors, "stride": h.stride, "num_classes": 3, "scale_xy": h.scale_xy, "box_form": h.box_form}
        for h in loaded.network.heads
    ]
    old = {"name": "yolov4", "names": ["ä", "b", "c"], "resize": "letterbox", "image_size": 96, "heads": heads}
    model = onnx.load(file)
    model.metadata_props[0].value = json.dumps(old | {"dynamic": True, "nms": False}, ensure_ascii=False)
    onnx.save(model, file)
    ours = Detector(file, engine="onnxruntime", conf=0.2)
    assert (ours.names, ours.pipeline.size_hw, ours.engine.input.resize) == (("ä", "b", "c"), (96, 96), "letterbox")
    assert [h.anchors for h in ours.engine.heads] == [h.anchors for h in loaded.network.heads]
    theirs = Detector(loaded, engine="torch", conf=0.2, image_size=96)
    same_detections(ours.detect(photo(shared_data)), theirs.detect(photo(shared_data)))
    for broken in (old | {"heads": 3}, {"name": "yolov4"}, old | {"heads": [{"stride": 8}]}):
        model.metadata_props[0].value = json.dumps(broken)
        onnx.save(model, file)
        with pytest.raises(YolomishError, match="cannot read"):
            Detector(file, engine="onnxruntime")


def test_mish_is_an_operator_from_opset_18_on_and_elementary_where_asked(tmp_path: Path) -> None:
    need("onnx", "onnxruntime")
    kinds = {}
    for elementary in (False, True):
        kinds[elementary] = [n.op_type for n in write_graph(calibrated(), elementary=elementary).graph.node]
    mishes = kinds[False].count("Mish")
    assert mishes > 20 and kinds[True].count("Mish") == 0 and kinds[True].count("Sigmoid") == mishes
    with pytest.raises(YolomishError, match="--elementary"):
        write_graph(calibrated(), opset=13)
    file = tmp_path / "old.onnx"
    export_network(
        network(),
        file,
        "onnx",
        image=np.zeros((40, 60, 3), np.uint8),
        size_hw=(64, 64),
        options=ExportOptions(opset=13, elementary=True, dynamic=False),
    )
    with pytest.raises(YolomishError, match="64 px alone, not 96"):
        Detector(file, image_size=96)


def test_the_elementary_mish_is_exact_from_minus_to_plus_a_thousand() -> None:
    need("onnx")
    from onnx import TensorProto, helper
    from onnx.reference import ReferenceEvaluator

    from yolomish.inference.export.onnx_graph import _Graph

    graph = _Graph(18, True)
    result = graph.mish_of_negative("z")
    value = helper.make_tensor_value_info
    ends = [value("z", TensorProto.FLOAT, ["n"])], [value(result, TensorProto.FLOAT, ["n"])]
    model = helper.make_model(helper.make_graph(graph.nodes, "mish", *ends, graph.initializers))
    x = torch.cat((torch.linspace(-1000, 1000, 4001), torch.linspace(-20, 20, 4001)))
    with np.errstate(over="ignore"):
        (ours,) = ReferenceEvaluator(model).run(None, {"z": -x.numpy()})
    truth = torch.nn.functional.mish(x.double())
    torch.testing.assert_close(torch.from_numpy(ours).double(), truth, rtol=1e-6, atol=2e-6)


def test_openvino_runs_mish_inside_the_convolutions(tmp_path: Path) -> None:
    need("onnx", "openvino")
    image = np.zeros((40, 60, 3), np.uint8)
    export_network(network(), tmp_path / "m.xml", "openvino", image=image, size_hw=(64, 64), options=ExportOptions())
    engine, _ = open_exported(tmp_path / "m.xml", device=CPU)
    engine(torch.rand(1, 3, 64, 64))
    (compiled,) = engine.engine.compiled.values()  # type: ignore[attr-defined]
    kinds = [op.get_rt_info()["layerType"].astype(str) for op in compiled.get_runtime_model().get_ops()]
    assert "Mish" not in kinds and kinds.count("Eltwise") == 0 and kinds.count("Convolution") > 50


def test_nms_inside_gives_the_boxes_of_ours(tmp_path: Path, shared_data: Path) -> None:
    need("onnx", "onnxruntime")
    done = export_network(
        network(),
        tmp_path / "n.onnx",
        "onnx",
        image=photo(shared_data),
        size_hw=(128, 96),
        options=ExportOptions(nms=True, conf=0.15),
    )
    assert done.agreement.scores < 1e-3
    import onnxruntime

    (rows,) = onnxruntime.InferenceSession(str(tmp_path / "n.onnx")).run(None, {"images": np.full((2, 3, 96, 64), 0.4, "f4")})
    assert rows.shape[1] == 7 and len(rows) > 5 and set(rows[:, 0]) == {0, 1}
    with pytest.raises(YolomishError, match="export without it"):
        open_exported(tmp_path / "n.onnx", engine="onnxruntime", device=CPU)


def test_opencv_reads_the_darknet_export(tmp_path: Path, shared_data: Path) -> None:
    done = export_network(
        network(), tmp_path / "d.cfg", "darknet", image=photo(shared_data), size_hw=(96, 160), options=ExportOptions()
    )
    assert sorted(p.suffix for p in tmp_path.iterdir()) == [".cfg", ".names", ".weights"]
    assert "width=160\nheight=96\n" in (tmp_path / "d.cfg").read_text()
    if hasattr(cv2.dnn, "readNetFromDarknet"):
        assert done.agreement.by.startswith("OpenCV 4")
        assert 0 < done.agreement.scores < 1e-3


@pytest.mark.parametrize(
    ("activation", "lacking"), [("gelu_tanh", "gelu"), ("hard_mish", "hard_mish"), ("relu6", "relu6"), ("tanh", "")]
)
def test_a_darknet_export_says_where_opencv_lacks_the_activation(activation: str, lacking: str, tmp_path: Path) -> None:
    loaded = network()
    swap(loaded.network, (f"backbone={activation}",))
    image = np.full((40, 60, 3), 90, np.uint8)
    done = export_network(loaded, tmp_path / "d.weights", "darknet", image=image, size_hw=(64, 64), options=ExportOptions())
    assert [file.name for file in done.files] == ["d.cfg", "d.weights", "d.names"]  # whichever of them was named
    assert ("for Darknet alone" in done.agreement.by) == bool(lacking) and f"{lacking}" in done.agreement.by
    if hasattr(cv2.dnn, "readNetFromDarknet"):
        with pytest.raises(cv2.error) if lacking else nullcontext():
            cv2.dnn.readNetFromDarknet(str(tmp_path / "d.cfg"))


@pytest.mark.parametrize("format", ["onnx", "darknet", "torchscript"])
def test_what_differs_is_refused_and_leaves_nothing(tmp_path: Path, format: str, monkeypatch: pytest.MonkeyPatch) -> None:
    need(*NEEDS.get(format, ()))
    from yolomish.inference.export import write

    right = write.WRITERS[format]

    def wrong(loaded: LoadedNetwork, *rest: object) -> None:
        right(replace(loaded, network=calibrated(seed=1)), *rest)  # type: ignore[arg-type]

    monkeypatch.setitem(write.WRITERS, format, wrong)
    file = tmp_path / f"m{SUFFIXES[format][0]}"
    file.write_text("older")
    with pytest.raises(YolomishError, match=r"differs (from the torch network )?by"):
        image = np.full((40, 60, 3), 90, np.uint8)
        export_network(network(), file, format, image=image, size_hw=(64, 64), options=ExportOptions(), force=True)
    assert [p.name for p in tmp_path.iterdir()] == [file.name] and file.read_text() == "older"
    with pytest.raises(YolomishError, match="not finite"):
        compare(calibrated(), lambda x: [m * float("nan") for m in calibrated()(x)], [torch.rand(1, 3, 64, 64)], "this")


def test_the_command_verifies_says_the_difference_and_detect_takes_the_file(tmp_path: Path) -> None:
    need("onnx", "onnxruntime")
    config = TrainConfig(image_size=64, resize="letterbox", model=calibrated().config)
    save_checkpoint(tmp_path / "w.pt", config=config, model=calibrated(), names=("a", "b", "c"))
    command = ["export", "--weights", str(tmp_path / "w.pt")]
    done = CliRunner().invoke(app, [*command, "--elementary"])
    assert done.exit_code == 0, done.output
    assert "largest difference to torch" in done.output and (tmp_path / "w.onnx").is_file()
    cv2.imwrite(str(tmp_path / "p.png"), np.random.default_rng(0).integers(0, 255, (50, 80, 3), dtype=np.uint8))
    detect = ["detect", str(tmp_path / "p.png"), "--weights", str(tmp_path / "w.onnx"), "--engine", "onnxruntime"]
    found = CliRunner().invoke(app, [*detect, "--no-save", "--json", "--conf", "0.2"])
    assert found.exit_code == 0, found.output
    assert json.loads(found.stdout.splitlines()[0])
    with pytest.raises(YolomishError, match="did you mean 'onnx'"):
        CliRunner().invoke(app, [*command, "--format", "onx"], catch_exceptions=False)
    with pytest.raises(YolomishError, match="must end in"):
        CliRunner().invoke(app, [*command, "--output", str(tmp_path / "w.engine")], catch_exceptions=False)


@pytest.mark.parametrize("option", ["compile", "swap", "cfg", "model"])
def test_a_program_that_was_exported_takes_no_other_structure(option: str) -> None:
    values = {"compile": True, "swap": ("backbone=relu",), "cfg": "n.cfg", "model": "yolov4"}
    with pytest.raises(YolomishError, match=f"m.onnx is a finished program: leave --{option} out"):
        Detector("m.onnx", **{option: values[option]})


def test_an_int8_file_holds_8_bit_weights_detects_and_says_its_ap(tmp_path: Path) -> None:
    onnx = pytest.importorskip("onnx", reason="onnx is optional, not installed here")
    pytest.importorskip("onnxruntime", reason="onnxruntime is optional, not installed here")
    target = tmp_path / "demo.onnx"
    words = ["export", "--weights", "demo", "--format", "onnx", "--int8", "--output", str(target)]
    done = CliRunner().invoke(app, [*words, "--data", "shapes", "--images", "12"])
    assert done.exit_code == 0, done.output
    before, after = (
        float(line.partition("AP ")[2].split()[0]) for line in done.stdout.splitlines() if line.startswith(("fp32", "int8"))
    )
    assert after > 0.7 * before > 0.3 and after != before
    model = onnx.load(target)
    kinds = {initializer.name: initializer.data_type for initializer in model.graph.initializer}
    dequantised = {node.output[0]: node.input[0] for node in model.graph.node if node.op_type == "DequantizeLinear"}
    convolutions = [node for node in model.graph.node if node.op_type == "Conv"]
    in_8_bits = [c for c in convolutions if kinds.get(dequantised.get(c.input[1], "")) == onnx.TensorProto.INT8]
    assert len(convolutions) - len(in_8_bits) == len(load_network("demo").network.heads)
    engine, description = open_exported(target, engine="onnxruntime", device=torch.device("cpu"))
    assert description.names == load_network("demo").names and engine.heads == load_network("demo").network.heads
    assert [path.name for path in tmp_path.iterdir()] == ["demo.onnx"]
    assert description.eight_bits.fp32[0] == pytest.approx(before, abs=5e-5) and description.eight_bits.images == 12
    assert description.eight_bits.int8[0] == pytest.approx(after, abs=5e-5)


@pytest.mark.parametrize(
    ("words", "said"),
    [(["--format", "openvino"], "give --data"), (["--format", "torchscript", "--data", "shapes"], "onnx and openvino")],
)
def test_eight_bits_need_images_and_a_format_that_has_them(tmp_path: Path, words: list[str], said: str) -> None:
    wrong = CliRunner().invoke(app, ["export", "--weights", "demo", "--int8", *words, "--output", str(tmp_path / "x.xml")])
    assert isinstance(wrong.exception, YolomishError) and said in str(wrong.exception)


def test_without_nncf_eight_bits_for_openvino_say_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "nncf", None)
    words = ["export", "--weights", "demo", "--format", "openvino", "--int8", "--data", "shapes"]
    wrong = CliRunner().invoke(app, [*words, "--output", str(tmp_path / "x.xml")])
    assert isinstance(wrong.exception, YolomishError) and "pip install 'yolomish[int8]'" in str(wrong.exception)


def test_openvino_in_8_bits_holds_8_bit_weights_finds_the_same_and_says_its_ap(tmp_path: Path) -> None:
    need("nncf", "openvino", "onnx")
    import openvino as ov

    target = tmp_path / "demo.xml"
    words = ["export", "--weights", "demo", "--format", "openvino", "--int8", "--output", str(target), "--data", "shapes"]
    done = CliRunner().invoke(app, [*words, "--images", "12"])
    assert done.exit_code == 0, done.output
    assert sorted(path.name for path in tmp_path.iterdir()) == ["demo.bin", "demo.xml"]
    engine, description = open_exported(target, device=CPU)
    stated = description.eight_bits
    assert stated.images == 12 and stated.by.startswith("NNCF") and "100 images" in stated.protocol
    assert stated.int8[0] > 0.9 * stated.fp32[0] > 0.4 and stated.int8 != stated.fp32
    for name, values in (("fp32", stated.fp32), ("int8", stated.int8)):
        line = next(line for line in done.stdout.splitlines() if line.startswith(name))
        assert f"AP {values[0]:.4f}" in line  # as evaluated, and nothing of NNCF's between
    model = ov.Core().read_model(target)
    kinds = [_weight_kind(op) for op in model.get_ops() if op.get_type_name() == "Convolution"]
    heads = load_network("demo").network.heads
    assert kinds.count("f32") == len(heads) and kinds.count("i8") == len(kinds) - len(heads) > 50
    images = torch.rand(1, 3, 128, 128)
    engine(images)
    (compiled,) = engine.engine.compiled.values()  # type: ignore[attr-defined]
    ran = [op.get_rt_info()["runtimePrecision"].astype(str) for op in compiled.get_runtime_model().get_ops() if _convolves(op)]
    assert {"i8", "u8"} & set(ran) and sum(kind in ("i8", "u8") for kind in ran) > 0.9 * len(ran)
    picture = open_data(load_data_config("shapes"), "val").load(0).image
    ours, theirs = (Detector(of, engine=e, conf=0.5).detect(picture) for of, e in ((target, "auto"), ("demo", "torch")))
    assert len(ours) == len(theirs) > 0 and sorted(ours.labels.tolist()) == sorted(theirs.labels.tolist())
    assert box_iou(ours.boxes, theirs.boxes).amax(1).min() > 0.8
    assert (ours.scores.sort().values - theirs.scores.sort().values).abs().max() < 0.15


def _weight_kind(convolution: Any) -> str:
    """The element type in which a convolution's weights are stored."""
    node = convolution.input_value(1).get_node()
    while node.get_type_name() != "Constant":
        node = node.input_value(0).get_node()
    return str(node.get_element_type().get_type_name())


def _convolves(op: Any) -> bool:
    return bool(op.get_rt_info()["layerType"].astype(str) == "Convolution")


def test_an_int8_file_that_lost_its_ap_is_not_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("onnxruntime", reason="onnxruntime is optional, not installed here")
    values = iter((0.5, 0.2))
    monkeypatch.setattr(int8, "_evaluate", lambda *_: Metrics(primary="AP", values={"AP": next(values)}, per_class={}))
    with pytest.raises(YolomishError, match=r"8 bits leave AP 0.2000 of 0.5000: nothing was written"):
        int8.export_int8(
            load_network("demo"),
            tmp_path / "x.onnx",
            "onnx",
            load_data_config("shapes"),
            image=generated_image(),
            size_hw=(128, 128),
            options=ExportOptions(),
            images=2,
        )
    assert not list(tmp_path.iterdir())
