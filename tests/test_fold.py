"""Folded networks against the stock ones."""

import copy

import pytest
import torch

from yolomish.activations import activation_names
from yolomish.config import ModelConfig
from yolomish.networks import Network, build_network
from yolomish.nn.blocks import ConvBlock
from yolomish.nn.fold import fold_batch_norm, folded


def trained(activation: str, neck_activation: str = "leaky_relu") -> Network:
    """A small network whose batch norms have seen data and whose affine parameters are not the initial ones."""
    torch.manual_seed(0)
    config = ModelConfig(
        num_classes=3, width=0.125, depth=0.1, activation=activation, neck_activation=neck_activation, bn_momentum=0.5
    )
    model = build_network(config)
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            torch.nn.init.uniform_(module.weight, 0.5, 1.5)
            torch.nn.init.normal_(module.bias, 0, 0.2)
    model.train()
    with torch.no_grad():
        for _ in range(3):
            model(torch.rand(2, 3, 64, 64))
    return model.eval()


def relative(maps: tuple[torch.Tensor, ...], truth: tuple[torch.Tensor, ...]) -> float:
    """The largest error over the largest value, over the three maps."""
    return max(((m.double() - t.double()).abs().max() / t.double().abs().max()).item() for m, t in zip(maps, truth, strict=True))


@pytest.mark.parametrize("activation", activation_names())
@torch.no_grad()
def test_folding_keeps_the_raw_maps(activation):
    model = trained(activation, neck_activation=activation)
    images = torch.rand(2, 3, 64, 96)
    before = copy.deepcopy(model.state_dict())
    fused = folded(model)
    assert (fused.input, fused.heads) == (model.input, model.heads)
    assert not any(isinstance(m, torch.nn.BatchNorm2d | ConvBlock) for m in fused.modules())
    truth = copy.deepcopy(model).double()(images.double())
    assert relative(folded(copy.deepcopy(model).double())(images.double()), truth) < 1e-5
    # float32 folded is as far from the truth as float32 stock
    assert relative(fused(images), truth) < max(2 * relative(model(images), truth), 1e-5)
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())


@torch.no_grad()
def test_folding_keeps_mode_memory_format_and_gradients_of_the_original():
    model = trained("mish").to(memory_format=torch.channels_last).train()
    fused = folded(model)
    assert model.training and not fused.training
    assert all(p.requires_grad for p in model.parameters()) and not any(p.requires_grad for p in fused.parameters())
    maps = fused(torch.rand(1, 3, 64, 64).contiguous(memory_format=torch.channels_last))
    assert all(m.is_contiguous(memory_format=torch.channels_last) for m in maps)


@pytest.mark.usefixtures("trusted")
@torch.no_grad()
def test_folding_takes_a_users_activation(tmp_path):
    file = tmp_path / "mine.py"
    file.write_text("import torch\ndef bent(x):\n    return x + (torch.sqrt(x * x + 1) - 1) / 2\n")
    model = trained(f"{file}:bent")
    images = torch.rand(1, 3, 64, 64)
    assert relative(folded(model)(images), model(images)) < 1e-5


@torch.no_grad()
def test_a_convolution_with_bias_folds_too():
    conv = torch.nn.Conv2d(3, 5, 3).double()
    bn = torch.nn.BatchNorm2d(5).double().eval()
    bn.running_mean.normal_()
    bn.running_var.uniform_(0.1, 2)
    x = torch.rand(2, 3, 9, 9).double()
    assert torch.allclose(fold_batch_norm(conv, bn)(x), bn(conv(x)), rtol=1e-12)


def test_gradients_reach_the_images():
    model = trained("mish")
    images = torch.rand(1, 3, 64, 64, requires_grad=True)
    (ours,) = torch.autograd.grad(folded(model)(images)[0].sum(), images)
    (stock,) = torch.autograd.grad(model(images)[0].sum(), images)
    assert torch.allclose(ours, stock, rtol=1e-3, atol=1e-4 * stock.abs().max().item())
