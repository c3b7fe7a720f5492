"""A transfer: what is put in, what the batch norms then hold, what annealing passes through, and what is saved."""

from __future__ import annotations

import copy
import json
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from conftest import four_pictures
from reference.networks import calibrated
from torch import nn
from typer.testing import CliRunner

from yolomish.commands import app
from yolomish.config import DataConfig, ModelConfig, TrainConfig, save_yaml
from yolomish.data.datasets import open_data
from yolomish.errors import YolomishError
from yolomish.networks import build_network
from yolomish.networks.scope import swap
from yolomish.nn.blocks import ConvBlock
from yolomish.transfer import TransferOptions, transfer
from yolomish.transfer.blend import BLEND, Blend, end_blend, re_estimate, set_share, start_blend
from yolomish.weights.checkpoint import save_checkpoint
from yolomish.weights.load import LoadedNetwork, load_network

TINY = ModelConfig(name="small", width=0.125, depth=0.1, num_classes=2, image_size=64)


def loaded() -> LoadedNetwork:
    return LoadedNetwork(network=build_network(TINY).eval(), names=("red", "blue"))


def test_re_estimated_norms_hold_the_mean_of_the_batches_own_statistics() -> None:
    network = calibrated()
    batches = [torch.rand(4, 3, 64, 64) * scale for scale in (0.5, 1, 2)]
    first = next(m for m in network.modules() if isinstance(m, ConvBlock))
    with torch.no_grad():
        maps = [first.conv(batch).double().numpy() for batch in batches]
    before = copy.deepcopy(dict(network.named_parameters()))
    momenta = [m.momentum for m in network.modules() if isinstance(m, nn.BatchNorm2d)]
    assert re_estimate(network, batches) == 12
    np.testing.assert_allclose(first.bn.running_mean, np.mean([m.mean((0, 2, 3)) for m in maps], 0), rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(first.bn.running_var, np.mean([m.var((0, 2, 3), ddof=1) for m in maps], 0), rtol=1e-4)
    assert all(torch.equal(p, before[n]) for n, p in network.named_parameters()) and not network.training
    assert momenta == [m.momentum for m in network.modules() if isinstance(m, nn.BatchNorm2d)]
    assert not any(m.training for m in network.modules())


def test_a_blend_passes_from_the_old_function_to_the_new_and_leaves_the_learned_module() -> None:
    network, x = calibrated(), torch.randn(2, 3, 64, 64)
    old, blocks = copy.deepcopy(network), network.slots()
    with torch.no_grad():
        start_blend(blocks, "prelu")
        assert {b.activation_name for b in blocks.values()} == {BLEND}
        for ours, theirs in zip(network(x), old(x), strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)
        block = next(iter(blocks.values()))
        values = torch.linspace(-3, 3, 7)[:, None].expand(7, block.act_channels)
        set_share(blocks, 0.25)
        torch.testing.assert_close(block.act(values), 0.75 * block.act.old(values) + 0.25 * block.act.new(values))
        new = block.act.new
        end_blend(blocks, "prelu")
    assert block.act is new and network.activations() == ("prelu",)
    assert not any(isinstance(m, Blend) for m in network.modules())


def test_labels_or_the_original_train_the_network_that_the_scope_changed(tmp_path: Path) -> None:
    data, source = four_pictures(tmp_path / "data"), loaded()
    for distil in (True, False):
        lines: list[str] = []
        options = TransferOptions(to="silu", scope="head", batch=2, epochs=1, anneal=1, distil=distil, peak_lr=1e-3)
        done = transfer(source, data, options, log=lines.append)
        assert ("distil" in lines[-1]) == distil and ("objectness" in lines[-1]) != distil
        assert [stage.name.split(",")[0] for stage in done.stages] == ["original", "original", "silu put in", "silu", "epoch 1"]
        network = done.loaded.network
        assert network.activations("head") == ("silu",) and network.activations("backbone") == ("mish",)
        before = dict(source.network.named_parameters())
        assert all(not torch.equal(p, before[n]) for n, p in network.named_parameters() if n.endswith("conv.weight"))
    assert source.network.activations("head") == ("leaky_relu",)


def test_the_distilled_student_comes_nearer_to_its_teacher(tmp_path: Path) -> None:
    data, source = four_pictures(tmp_path / "data"), loaded()
    source = LoadedNetwork(network=calibrated(), names=("a", "b", "c"))
    source.network.resized((64, 64))
    data = DataConfig(format="yolo", root=data.root, train="images", val="images", names=("a", "b", "c"))
    lines: list[str] = []
    transfer(source, data, TransferOptions(to="relu", batch=2, epochs=4, distil=True, peak_lr=1e-3), log=lines.append)
    losses = [float(line.partition("distil ")[2].partition(",")[0]) for line in lines if "distil" in line]
    assert len(losses) == 4 and losses[-1] < 0.9 * losses[0]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (TransferOptions(to="mish", scope="backbone"), "has mish in backbone already: there is nothing to swap"),
        (TransferOptions(to="relu", anneal=2, epochs=1), "give --epochs 2 or more"),
        (TransferOptions(to="relu", distil=True), "give --epochs 1 or more"),
        (TransferOptions(to="rellu"), "did you mean 'relu'"),
        (TransferOptions(to="relu", scope="spine"), "scope 'spine' names no activation"),
    ],
)
def test_what_does_not_go_together_is_one_line(options: TransferOptions, message: str, tmp_path: Path) -> None:
    with pytest.raises(YolomishError, match=message):
        transfer(loaded(), four_pictures(tmp_path / "data"), options)


def test_the_command_reports_each_step_and_leaves_weights_that_load_with_the_new_activation(tmp_path: Path) -> None:
    save_yaml(four_pictures(tmp_path / "data"), tmp_path / "data.yaml")
    weights = tmp_path / "w.pt"
    source = loaded()
    save_checkpoint(weights, config=TrainConfig(model=TINY, image_size=64), model=source.network, names=source.names)
    words = ["swap", str(weights), "--to", "prelu", "--data", str(tmp_path / "data.yaml"), "--batch", "2", "--images", "3"]
    words += ["--bench", "torch,onnxruntime:half", "--rounds", "2", "--output", str(tmp_path / "out")]
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 0, done.output
    assert "| prelu, batch norms of 3 training images | 0." in done.output or "| -1" in done.output
    assert "onnxruntime:half | not run: onnxruntime computes no bf16" in done.output
    content = json.loads((tmp_path / "out" / "swap.json").read_text())
    assert len(content["stages"]) == 4 and len(content["costs"][0]["after"]) == 2 and content["options"]["to"] == "prelu"
    again = load_network(str(tmp_path / "out" / "swapped.pt"))
    assert again.network.activations() == ("prelu",) and again.names == ("red", "blue")
    weight = next(iter(again.network.slots().values())).conv.weight
    assert torch.equal(weight, next(iter(source.network.slots().values())).conv.weight)


@torch.no_grad()
def test_official_darknet_weights_come_back_towards_their_maps_by_their_batch_norms_alone(shared_data: Path) -> None:
    root = shared_data / "coco-mini"
    where = {f"{split}": f"annotations/instances_{split}2017.json" for split in ("train", "val")}
    data = open_data(DataConfig(format="coco", root=str(root), train_images="train2017", val_images="val2017", **where), "train")
    original = load_network(str(shared_data / "weights" / "yolov4-tiny.weights")).network
    pictures = [cv2.resize(data.load(i).image, (224, 224)) for i in range(12)]
    images = original.input.normalise(torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2))
    network = copy.deepcopy(original)
    swap(network, ("all=hard_mish",))

    def distance() -> float:
        pairs = zip(network(images[8:]), original(images[8:]), strict=True)
        return float(sum((a - b).square().mean() / b.var() for a, b in pairs))

    before = distance()
    assert re_estimate(network, [images[:8]]) == 8 and distance() < 0.7 * before
