"""A classifier starts a detector: by our checkpoint, by Darknet's files, and torchvision's ResNet as a start of its own."""

import os
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torchvision
from conftest import four_pictures, randomise
from reference.classes import TINY, coloured_squares
from typer.testing import CliRunner

from yolomish.commands import app
from yolomish.comparison.arms import build_arms
from yolomish.comparison.train import plan
from yolomish.config import ModelConfig, TrainConfig, load_model_config
from yolomish.darknet.cfg import parse_cfg
from yolomish.darknet.network import config_of
from yolomish.darknet.order import size
from yolomish.darknet.weights import write_weights
from yolomish.darknet.write import network_cfg
from yolomish.errors import YolomishError
from yolomish.networks import Network, build_network
from yolomish.networks.registry import outline
from yolomish.training.loop import fit
from yolomish.weights.checkpoint import save_checkpoint
from yolomish.weights.load import load_network, start_from
from yolomish.weights.structure import structure_of

pytestmark = pytest.mark.usefixtures("undrawn")

CLASSIFIER = replace(load_model_config("cspdarknet53"), width=0.125, depth=0.1, num_classes=3)
DETECTOR = ModelConfig(name="tiny", width=0.125, depth=0.1, num_classes=2)


def saved(network: Network, path: Path, **training: object) -> Path:
    config = TrainConfig(task="detect" if network.heads else "classify", model=network.config)
    save_checkpoint(path, config=config, model=network, names=tuple("abc"))
    return path


def backbones_are_equal(classifier: Network, detector: Network) -> bool:
    own = detector.state_dict()
    parts = {k: v for k, v in classifier.state_dict().items() if k.startswith(("stem.", "stages.")) and "num_batches" not in k}
    return len(parts) > 50 and all(torch.equal(own[f"backbone.{k}"], v) for k, v in parts.items())


def test_a_classifier_gives_a_detector_its_backbone(tmp_path: Path) -> None:
    classifier, detector = build_network(CLASSIFIER), build_network(DETECTOR)
    randomise(classifier)
    said: list[str] = []
    start_from(detector, saved(classifier, tmp_path / "c.pt"), said.append)
    assert backbones_are_equal(classifier, detector)
    assert len(said) == 1 and "tensors loaded; left as initialised: neck.before_spp" in said[0]
    other = build_network(replace(DETECTOR, activation="relu"))
    start_from(other, tmp_path / "c.pt", said.append)
    assert "was trained with activation mish, this model has relu" in said[1]


def test_a_backbone_passes_between_python_and_cfg_both_ways(tmp_path: Path) -> None:
    classifier = build_network(CLASSIFIER)
    randomise(classifier)
    by_cfg = build_network(config_of(parse_cfg(network_cfg(classifier), "c.cfg").sections, "c"))
    start_from(by_cfg, saved(classifier, tmp_path / "python.pt"), lambda _: None)
    images = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        assert torch.allclose(by_cfg.eval()(images)[0], classifier.eval()(images)[0], rtol=1e-4, atol=1e-5)
    detector = build_network(DETECTOR)
    start_from(detector, saved(by_cfg, tmp_path / "cfg.pt"), lambda _: None)
    assert backbones_are_equal(classifier, detector)
    again = build_network(CLASSIFIER)
    start_from(again, saved(detector, tmp_path / "detector.pt"), lambda _: None)
    assert backbones_are_equal(again, detector)


def test_darknet_files_go_out_whole_and_cut_and_come_back(tmp_path: Path) -> None:
    classifier = build_network(CLASSIFIER)
    randomise(classifier)
    saved(classifier, tmp_path / "c.pt")
    done = CliRunner().invoke(app, ["weights", "export", str(tmp_path / "c.pt")])
    assert done.exit_code == 0, done.output
    back = load_network(str(tmp_path / "c.weights"), cfg=str(tmp_path / "c.cfg"))
    assert back.names == tuple("abc")
    with torch.no_grad():
        images = torch.rand(1, 3, 64, 64)
        assert torch.allclose(back.network(images)[0], classifier.eval()(images)[0], rtol=1e-4, atol=1e-5)
    sections = len(back.network.layers) - 3  # without [avgpool], the last convolution and [softmax]
    done = CliRunner().invoke(app, ["weights", "export", str(tmp_path / "c.pt"), "--cut", str(sections)])
    assert done.exit_code == 0, done.output
    detector = build_network(DETECTOR)
    start_from(detector, tmp_path / f"c.conv.{sections}", lambda _: None)
    assert backbones_are_equal(classifier, detector)
    files = {end: str(tmp_path / f"c.{end}") for end in ("weights", "cfg")}
    target = str(tmp_path / "imported.pt")
    done = CliRunner().invoke(app, ["weights", "import", files["weights"], "--cfg", files["cfg"], "--output", target])
    assert done.exit_code == 0, done.output
    training = load_network(target).training
    assert training is not None and training.task == "classify" and training.eval_crop == 1


def test_the_cut_of_cspdarknet53_is_yolov4s_backbone(tmp_path: Path) -> None:
    narrow = replace(load_model_config("cspdarknet53"), width=0.125)
    saved(build_network(replace(narrow, num_classes=3)), tmp_path / "csdarknet53-omega.pt")
    command = ["weights", "export", str(tmp_path / "csdarknet53-omega.pt"), "--cut", "105", "--output", str(tmp_path / "new")]
    done = CliRunner().invoke(app, command)
    assert done.exit_code == 0, done.output
    backbone = outline(replace(load_model_config("yolov4"), width=0.125)).get_submodule("backbone").state_dict()
    floats = sum(tensor.numel() for name, tensor in backbone.items() if "num_batches" not in name)
    assert (tmp_path / "new" / "csdarknet53-omega.conv.105").stat().st_size == 20 + 4 * floats


def test_a_whole_csdarknet53_is_known_by_its_length(tmp_path: Path) -> None:
    path = tmp_path / "csdarknet53-omega_final.weights"
    write_weights(path, build_network(DETECTOR), convolutions=1)
    os.truncate(path, 20 + 4 * size(outline(load_model_config("cspdarknet53"))))  # a header and holes
    found = structure_of(path)
    assert (found.name, found.num_classes) == ("cspdarknet53", 1000)


@pytest.mark.parametrize("wrapped", [False, True])
def test_torchvisions_resnet_starts_ours(wrapped: bool, tmp_path: Path) -> None:
    theirs = torchvision.models.resnet18(num_classes=1000)
    randomise(theirs)
    state = theirs.state_dict()
    torch.save({"state_dict": state, "epoch": 3} if wrapped else state, tmp_path / "r.pth")
    said: list[str] = []
    ours = build_network(replace(load_model_config("resnet18"), activation="mish", num_classes=1000))
    start_from(ours, tmp_path / "r.pth", said.append)
    assert "102 of 102 tensors loaded" in said[0]
    relu = build_network(replace(load_model_config("resnet18"), num_classes=7))
    start_from(relu, tmp_path / "r.pth", said.append)
    assert "left as initialised: head.1.conv.weight, head.1.conv.bias" in said[1]
    assert torch.equal(relu.stages[3][1].convs[1].conv.weight, theirs.layer4[1].conv2.weight)
    with pytest.raises(YolomishError, match="is it another model"):
        start_from(build_network(load_model_config("resnet50")), tmp_path / "r.pth", said.append)
    torch.save({"weight": torch.ones(3)}, tmp_path / "x.pth")
    with pytest.raises(YolomishError, match="not a yolomish checkpoint"):
        start_from(relu, tmp_path / "x.pth", said.append)


def test_two_stages_are_two_commands_and_each_arm_starts_from_its_own(tmp_path: Path) -> None:
    pictures = coloured_squares(tmp_path / "classes")
    files = {}
    for act in ("mish", "leaky_relu"):
        config = replace(TINY, data=pictures, epochs=1, model=replace(CLASSIFIER, activation=act), image_size=64)
        files[act] = str(fit(config, tmp_path / act, log=lambda _: None).last)
    base = TrainConfig(
        model=DETECTOR, data=four_pictures(tmp_path / "boxes"), image_size=64, epochs=1, batch=4, workers=0, device="cpu"
    )
    arms = build_arms(base, ["mish", "leaky_relu"], weights=files)
    runs = plan(arms, [0], tmp_path / "out")
    assert [Path(run.start.weights).parent.name for run in runs] == ["mish", "leaky_relu"]
    said: list[str] = []
    result = fit(runs[0].trained(), tmp_path / "detector", log=said.append)
    assert result.last.is_file() and any("tensors loaded; left as initialised: neck" in line for line in said)
