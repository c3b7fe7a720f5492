"""The benchmark times what it says, in turn, and names what it could not run."""

import json

import numpy as np
import pytest
import torch
from reference.networks import calibrated
from typer.testing import CliRunner

from yolomish.commands import app
from yolomish.config import load_model_config
from yolomish.darknet.order import file_order
from yolomish.darknet.summary import summarise
from yolomish.inference.act_bench import ActCost, as_table
from yolomish.inference.bench import STAGES, OpenCvEngine, interleaved, with_activation


def test_the_command_times_each_engine_and_stage() -> None:
    options = "--model yolov4-n --imgsz 64x96 --engines torch,opencv:half --acts mish,leaky_relu --rounds 2 --threads 1 --json"
    done = CliRunner().invoke(app, ["bench", *options.split()])
    assert done.exit_code == 0, done.output
    report = json.loads(done.stdout.splitlines()[-1])
    assert [(t["engine"], t["activation"], len(t["seconds"])) for t in report["timings"]] == [
        ("torch", "mish", 2),
        ("torch", "leaky_relu", 2),
    ]
    assert all(s > 0 for t in report["timings"] for s in t["seconds"])
    assert list(report["stages"]) == list(STAGES) and all(len(v) == 2 for v in report["stages"].values())
    assert "fp32" in report["skipped"]["opencv:half"] and report["peaks"]["fp32"] > 1
    square = summarise(load_model_config("yolov4-n"), (64, 64)).bflops
    assert report["image_size_hw"] == [64, 96] and report["bflops"] / square == pytest.approx(96 / 64)


def test_another_activation_changes_the_activation_alone_and_keeps_values_alive() -> None:
    network = calibrated()
    image = np.random.default_rng(0).integers(0, 255, (80, 90, 3), dtype=np.uint8)
    other = with_activation(network, "relu", image)
    assert (other.activations("backbone"), other.activations("neck")) == (("relu",), ("leaky_relu",))
    assert network.activations("backbone") == ("mish",)
    assert with_activation(network, "mish", image) is network
    for ours, theirs in zip(file_order(network), file_order(other), strict=True):
        assert torch.equal(ours.module.weight, theirs.module.weight)
    with torch.no_grad():
        assert all(0.01 < raw.std() < 1e3 for raw in other(torch.rand(1, 3, 64, 64)))


def test_opencv_is_timed_on_the_networks_own_maps() -> None:
    pytest.importorskip("onnx", reason="OpenCV reads the network as ONNX")
    network, images = calibrated(), torch.rand(1, 3, 64, 96)
    with torch.no_grad():
        for ours, theirs in zip(OpenCvEngine(network, (64, 96))(images), network(images), strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-3 * theirs.abs().max().item())


def test_activations_are_timed_in_each_engine_against_the_same_map_without_one() -> None:
    options = [
        "acts",
        "--act",
        "linear,swish,acon,gelu",
        "--bench",
        "--engines",
        "torch,training,onnxruntime:half",
        "--rounds",
        "3",
    ]
    done = CliRunner().invoke(app, [*options, "--json"])
    assert done.exit_code == 0, done.output
    costs = {(cost["activation"], cost["engine"]): cost for cost in json.loads(done.stdout.splitlines()[-1])}
    assert {("silu", "torch"), ("acon", "training"), ("gelu", "torch")} <= set(costs)
    assert all(len(c["seconds"]) == len(c["linear"]) == 3 for (_, engine), c in costs.items() if "half" not in engine)
    assert "bf16" in costs["linear", "onnxruntime:half"]["skipped"]
    table = as_table([ActCost(activation="a", engine="torch", seconds=(0.004, 0.005, 0.006), linear=(0.003, 0.003, 0.003))])
    assert table[-1] == "| a | 2.00 [1.50, 2.50] |"


def test_interleaved_rounds_begin_with_another_call_each_time() -> None:
    ran: list[int] = []
    ticks = iter(range(100))
    seconds = interleaved([lambda i=i: ran.append(i) for i in range(3)], 4, clock=lambda: next(ticks))
    assert ran == [0, 1, 2, 1, 2, 0, 2, 0, 1, 0, 1, 2] and seconds == [[1] * 4] * 3
