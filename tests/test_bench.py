"""The benchmark times what it says, in turn, and names what it could not run."""

import json

import numpy as np
import torch
from test_engines import calibrated
from typer.testing import CliRunner

from yolomish.commands import app
from yolomish.darknet.summary import summarise
from yolomish.inference.bench import STAGES, with_activation
from yolomish.weights.load import LoadedNetwork


def test_the_command_times_each_engine_and_stage() -> None:
    options = "--model yolov4-n --imgsz 64 --engines torch,opencv:half --acts mish,leaky_relu --rounds 2 --threads 1 --json"
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


def test_another_activation_changes_the_activation_alone_and_keeps_values_alive() -> None:
    network = LoadedNetwork(model=calibrated(), names=("a", "b", "c"), resize="stretch", image_size=64)
    image = np.random.default_rng(0).integers(0, 255, (80, 90, 3), dtype=np.uint8)
    other = with_activation(network, "relu", image).model
    assert set(summarise(other.config, 64).activations) == {"relu", "leaky_relu", "linear"}
    for (_, ours, _), (_, theirs, _) in zip(network.model.darknet_order(), other.darknet_order(), strict=True):
        assert torch.equal(ours.weight, theirs.weight)
    with torch.no_grad():
        assert all(0.01 < raw.std() < 1e3 for raw in other(torch.rand(1, 3, 64, 64)))
