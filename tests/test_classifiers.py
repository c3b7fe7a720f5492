"""Classifier networks: torchvision's ResNets and Darknet's CSPDarknet-53 by the same numbers, and their activation slots."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torchvision
from conftest import randomise

from yolomish.config import ModelConfig, load_model_config
from yolomish.darknet.cfg import parse_cfg
from yolomish.darknet.network import config_of, read_cfg
from yolomish.darknet.summary import summarise
from yolomish.darknet.weights import read_weights, write_weights
from yolomish.darknet.write import network_cfg, section_numbers
from yolomish.errors import YolomishError
from yolomish.networks import Network, build_network
from yolomish.networks.registry import outline
from yolomish.networks.resnet import MEMBERS, of_torchvision
from yolomish.networks.scope import find_slots, swap
from yolomish.nn.fold import folded

THEIRS = {"resnext50": "resnext50_32x4d"}
SMALL = replace(load_model_config("cspdarknet53"), width=0.125, depth=0.25, num_classes=7, image_size=(64, 64))


def logits(network: torch.nn.Module, images: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        found = network.eval()(images)
    return found[0] if isinstance(found, tuple) else found


def streamed(source: Network, target: Network, path: Path) -> None:
    """All weights of ``source`` into ``target`` by a Darknet file."""
    write_weights(path, source)
    assert read_weights(path, target).convolutions > 0


@pytest.mark.parametrize("name", MEMBERS)
def test_resnets_are_torchvisions(name: str) -> None:
    with torch.device("meta"):
        theirs = getattr(torchvision.models, THEIRS.get(name, name))()
    ours = outline(load_model_config(name))
    renamed = of_torchvision(theirs.state_dict())
    assert {k: v.shape for k, v in renamed.items()} == {k: v.shape for k, v in ours.state_dict().items()}
    assert (
        len(ours.slots())
        == sum(2 if "resnet18" in name or "resnet34" in name else 3 for _ in range(sum(MEMBERS[name].units))) + 1
    )


@pytest.mark.parametrize("name", ["resnet18", "resnet50", "resnext50"])
def test_resnets_have_torchvisions_numbers(name: str) -> None:
    theirs = getattr(torchvision.models, THEIRS.get(name, name))(num_classes=11)
    randomise(theirs)
    ours = build_network(replace(load_model_config(name), num_classes=11))
    ours.load_state_dict(of_torchvision(theirs.state_dict()))
    images = torch.rand(2, 3, 64, 96)
    wanted = logits(theirs, images)
    assert torch.allclose(logits(ours, images), wanted, rtol=1e-4, atol=1e-5 * wanted.abs().max().item())
    assert torch.allclose(logits(folded(ours), images), wanted, rtol=1e-3, atol=1e-4 * wanted.abs().max().item())


def test_the_mean_and_deviation_are_those_of_torchvisions_preset() -> None:
    pixels = torch.randint(0, 256, (1, 3, 32, 32), dtype=torch.uint8)
    preset = torchvision.models.ResNet50_Weights.IMAGENET1K_V1.transforms(crop_size=32, resize_size=32)
    assert torch.allclose(outline(load_model_config("resnet50")).input.normalise(pixels), preset(pixels), atol=1e-6)


def test_cspdarknet53_is_its_cfg(shared_data: Path, tmp_path: Path) -> None:
    by_cfg = build_network(read_cfg(shared_data / "darknet-cfg" / "classifiers" / "csdarknet53-omega.cfg"))
    ours = build_network(load_model_config("cspdarknet53"))
    assert ours.input.size_hw == by_cfg.input.size_hw and ours.activations() == by_cfg.activations()
    randomise(ours)
    streamed(ours, by_cfg, tmp_path / "all.weights")
    images = torch.rand(1, 3, 64, 64)
    assert torch.allclose(logits(ours, images), logits(by_cfg, images), rtol=1e-4, atol=1e-5)
    assert summarise(ours.config, (256, 256)).bflops == pytest.approx(summarise(by_cfg.config, (256, 256)).bflops, rel=1e-3)


@pytest.mark.parametrize("name", ["cspdarknet53", "resnet18", "resnet50"])
def test_a_written_cfg_is_the_same_network(name: str, tmp_path: Path) -> None:
    config = SMALL if name == "cspdarknet53" else replace(SMALL, architecture=name, name=name)
    ours = build_network(config)
    randomise(ours)
    ours.input = replace(ours.input, mean=(), std=())
    text = network_cfg(ours)
    by_cfg = build_network(config_of(parse_cfg(text, "written.cfg").sections, "written"))
    assert by_cfg.config.num_classes == 7 and by_cfg.input.size_hw == (64, 64)
    streamed(ours, by_cfg, tmp_path / "all.weights")
    images = torch.rand(2, 3, 64, 64)
    assert torch.allclose(logits(ours, images), logits(by_cfg, images), rtol=1e-4, atol=1e-5)
    assert set(section_numbers(ours).values()) <= set(range(len(by_cfg.sections)))


def test_darknet_has_no_mean_to_write() -> None:
    with pytest.raises(YolomishError, match="less a mean"):
        network_cfg(outline(load_model_config("resnet18")))


def test_scopes_are_stem_stages_and_head() -> None:
    network = build_network(replace(load_model_config("resnet50"), width=0.125, num_classes=3))
    before = logits(network, torch.ones(1, 3, 32, 32))
    assert list(find_slots(network, "stem")) == ["stem.0"] and len(find_slots(network, "stages")) == 48
    swap(network, ("stages=mish",))
    assert network.activation_label() == "relu / mish"
    assert not torch.equal(logits(network, torch.ones(1, 3, 32, 32)), before)
    with pytest.raises(YolomishError, match=r"does not tell its neck apart: name stem or stages or head"):
        find_slots(network, "neck")
    with pytest.raises(YolomishError, match="scope 'head' names no activation"):
        find_slots(network, "head")  # a linear layer


def test_one_seed_draws_the_same_kernels_whatever_the_activation() -> None:
    found = []
    for activation in ("relu", "mish"):
        torch.manual_seed(5)
        network = build_network(ModelConfig(**{**vars(SMALL), "activation": activation, "architecture": "resnet18"}))
        found.append(network.state_dict())
    assert all(torch.equal(found[0][k], found[1][k]) for k in found[0])


def test_widths_and_depths_scale_and_groups_refuse() -> None:
    small = outline(replace(load_model_config("resnet50"), width=0.25, depth=0.34))
    assert [len(stage) for stage in small.stages] == [1, 1, 2, 1]
    with pytest.raises(YolomishError, match="leave out width"):
        outline(replace(load_model_config("resnext50"), width=0.5))
