"""Every engine gives what the network gives: raw maps, and detections on a photograph."""

import shutil
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import randomise
from reference.builders import loaded_from, pipeline_of
from reference.networks import calibrated

from yolomish.data.images import read_image
from yolomish.errors import YolomishError
from yolomish.inference.detector import Detector
from yolomish.inference.engines import build_engine
from yolomish.inference.engines.packed import PackedConv, packing_missing
from yolomish.inference.engines.torch_engine import TorchEngine
from yolomish.networks import build_network, find_model
from yolomish.ops.device import bf16_missing

CPU = torch.device("cpu")
CROSS_STAGE = """[net]
width=64
height=64
channels=3
[convolutional]
batch_normalize=1
filters=8
size=3
stride=2
pad=1
activation=mish
[route]
layers=-1
groups=2
group_id=1
[convolutional]
batch_normalize=1
filters=4
size=3
pad=1
activation=mish
[route]
layers=-1,-3
[maxpool]
size=2
stride=2
[upsample]
stride=2
[convolutional]
filters=14
size=1
activation=linear
[yolo]
mask=0,1
anchors=8,8, 16,16
num=2
classes=2
"""
PACKAGES = {"torch": "torch", "onnxruntime": "onnxruntime", "openvino": "openvino"}


def require(name: str) -> None:
    pytest.importorskip(PACKAGES[name], reason=f"{name} is an optional engine, not installed here")
    if name != "torch":
        pytest.importorskip("onnx", reason="the engine reads the network as ONNX")


@pytest.mark.parametrize("activation", ["mish", "silu"])
@pytest.mark.parametrize("name", PACKAGES)
def test_maps_equal_the_networks_at_any_size_and_batch(name: str, activation: str) -> None:
    require(name)
    model = calibrated(activation)
    engine = build_engine(name, model, device=CPU)
    assert (engine.input, engine.heads) == (model.input, model.heads) and name[:4] in engine.how.lower().replace(" ", "")
    for shape in ((1, 3, 64, 64), (2, 3, 96, 64), (1, 3, 64, 64)):
        images = torch.rand(shape)
        with torch.no_grad():
            expected = model(images)
        for ours, theirs in zip(engine(images), expected, strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4 * theirs.abs().max().item())


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler on the CPU")
def test_the_compiled_network_equals_the_network(tmp_path: Path) -> None:
    (tmp_path / "n.cfg").write_text(CROSS_STAGE)  # small: the C++ of each operator takes seconds to build
    model, images = build_network(find_model(str(tmp_path / "n.cfg"))).eval(), torch.rand(1, 3, 64, 64)
    randomise(model)
    engine = TorchEngine(model, device=CPU, compile=True)
    with torch.no_grad():
        expected = model(images)
    assert engine.how.startswith("torch.compile")
    for ours, theirs in zip(engine(images), expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4 * theirs.abs().max().item())


@pytest.mark.parametrize("name", ["onnxruntime", "openvino"])
def test_detections_on_photographs_equal_torchs(name: str, shared_data: Path) -> None:
    require(name)
    network = loaded_from(calibrated(), ("a", "b", "c"), size=160, resize="letterbox")
    images = [read_image(path) for path in sorted((shared_data / "photos").glob("*.jpg"))]
    for size in (0, (128, 192)):
        ours, theirs = (Detector(network, engine=e, conf=0.2, image_size=size).detect_batch(images) for e in (name, "torch"))
        assert sum(len(d) for d in ours) > 50
        for one, other in zip(ours, theirs, strict=True):
            assert one.labels.tolist() == other.labels.tolist()
            torch.testing.assert_close(one.scores, other.scores, rtol=1e-3, atol=1e-4)
            torch.testing.assert_close(one.boxes, other.boxes, rtol=1e-3, atol=0.05)


@pytest.mark.parametrize("name", PACKAGES)
def test_threads_that_share_an_engine_do_not_mix_their_maps(name: str) -> None:
    require(name)
    engine = build_engine(name, calibrated(), device=CPU)
    inputs = [torch.rand(1, 3, 64, 64) for _ in range(4)]
    alone = [engine(x)[0].clone() for x in inputs]
    wrong = []

    def call(i: int) -> None:
        wrong.extend(i for _ in range(5) if not torch.allclose(engine(inputs[i])[0], alone[i], atol=1e-5))

    threads = [threading.Thread(target=call, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


@pytest.mark.parametrize("name", ["torch", "openvino"])
def test_bf16_stays_near_fp32(name: str) -> None:
    require(name)
    if bf16_missing():
        pytest.skip(bf16_missing())
    model, images = calibrated(), torch.rand(1, 3, 64, 64)
    full, half = (build_engine(name, model, device=CPU, half=h)(images) for h in (False, True))
    for one, other in zip(full, half, strict=True):
        difference = (one - other.float()).abs().max() / one.abs().max()
        assert 1e-4 < difference < 3e-2  # another precision ran, and it is bf16
        if name == "torch":
            assert (other.bfloat16() != other).any()  # the maps themselves are finer


def test_the_torch_engine_packs_its_convolutions_and_leaves_the_network_alone() -> None:
    if packing_missing(torch.float32):
        pytest.skip(packing_missing(torch.float32))
    model = calibrated()
    before = {k: v.clone() for k, v in model.state_dict().items()}
    engine = TorchEngine(model, device=CPU)
    engine(torch.rand(1, 3, 64, 64))
    convs = [m for m in engine.network.modules() if isinstance(m, PackedConv)]
    assert len(convs) == sum(isinstance(m, torch.nn.Conv2d) for m in model.modules())
    assert all(c.packed is not None for c in convs)
    assert all(torch.equal(before[k], v) for k, v in model.state_dict().items())


def test_signals_are_survived_when_openvino_engines_go_in_the_order_in_which_they_came() -> None:
    require("openvino")
    code = """
import faulthandler, signal, torch
from yolomish.config import ModelConfig
from yolomish.inference.engines.openvino_engine import OpenVinoEngine
from yolomish.networks import build_network
faulthandler.enable()  # gives the thread a stack for signals, as pytest does; Python's own handlers use it
signal.signal(signal.SIGUSR1, lambda *_: print("handled"))
network = build_network(ModelConfig(num_classes=2, width=0.125, depth=0.1)).eval()
engines = [OpenVinoEngine.of(network) for _ in range(2)]
for engine in engines:
    engine(torch.zeros(1, 3, 64, 64))
del engine
while engines:
    del engines[0]
signal.raise_signal(signal.SIGUSR1)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0 and done.stdout == "handled\n", (done.returncode, done.stderr[-300:])


def test_impossible_choices_say_the_way_out(monkeypatch: pytest.MonkeyPatch) -> None:
    model = calibrated()
    with pytest.raises(YolomishError, match="did you mean 'torch'"):
        build_engine("torhc", model, device=CPU)
    with pytest.raises(YolomishError, match="--engine torch"):
        build_engine("openvino", model, device=CPU, compile=True)
    with pytest.raises(YolomishError, match="no bf16"):
        build_engine("onnxruntime", model, device=CPU, half=True)
    monkeypatch.setattr("yolomish.inference.engines.installed", lambda package: False)
    engine = build_engine("auto", model, device=CPU)
    assert isinstance(engine, TorchEngine) and "yolomish[openvino]" in engine.how


@pytest.mark.usefixtures("trusted")
def test_an_activation_from_a_file_runs_in_every_engine(tmp_path: Path) -> None:
    require("onnxruntime")
    pytest.importorskip("onnxscript", reason="torch.onnx writes unknown activations with it")
    (tmp_path / "own.py").write_text("import torch\ndef bend(x):\n    return x * torch.sigmoid(1.5 * x) + 0.01 * x.abs()\n")
    model = calibrated(f"{tmp_path}/own.py:bend")
    images = torch.from_numpy(np.random.default_rng(0).random((1, 3, 64, 64), dtype=np.float32))
    with torch.no_grad():
        expected = model(images)
    for ours, theirs in zip(build_engine("onnxruntime", model, device=CPU)(images), expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)


def test_eval_by_an_engine_finds_what_the_network_finds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    require("openvino")
    from yolomish.config import load_data_config
    from yolomish.data.datasets import open_data
    from yolomish.tasks.detection.predict import predict

    data = open_data(load_data_config("shapes"), "val")
    monkeypatch.setattr(type(data), "__len__", lambda self: 6)
    torch.manual_seed(0)
    model = calibrated()
    theirs, ours = (predict(pipeline_of(r, 96, conf=0.1), data) for r in (model, build_engine("openvino", model, device=CPU)))
    assert len(ours) > 20 and [(r["image_id"], r["category_id"]) for r in ours] == [
        (r["image_id"], r["category_id"]) for r in theirs
    ]
    np.testing.assert_allclose([r["bbox"] for r in ours], [r["bbox"] for r in theirs], atol=0.05)
