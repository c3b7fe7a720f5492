"""Blocks on fused kernels: what they save, exactly; lean memory, checkpointing, several processes, checkpoints of weights."""

import copy

import pytest
import torch
from conftest import randomise
from processes import all_ranks
from torch import nn
from torch.utils.checkpoint import checkpoint

from yolomish.config import ModelConfig
from yolomish.kernels import lean_memory, using_kernels
from yolomish.kernels.choice import triton_missing
from yolomish.kernels.lean import Keeper, Recipe
from yolomish.networks import build_network
from yolomish.nn.blocks import ConvBlock

needs_triton = pytest.mark.skipif(bool(triton_missing()), reason=triton_missing() or "-")
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


def maps_of(saved: torch.Tensor | Recipe) -> list[torch.Tensor]:
    if isinstance(saved, Recipe):
        return [t for i in saved.inputs for t in maps_of(i)]
    return [saved] if saved.dim() == 4 else []


def saved_bytes(model: nn.Module, images: torch.Tensor, kind: str, lean: bool = False) -> int:
    """Bytes of all maps that a training forward pass keeps for backward, each storage once; weights left out."""
    own = {p.untyped_storage()._cdata for p in model.parameters()}
    held: dict[int, torch.UntypedStorage] = {}

    def counting(keeper: Keeper | None):
        def pack(t: torch.Tensor):
            saved = keeper.pack(t) if keeper else t
            storages = (m.untyped_storage() for m in maps_of(saved))
            held.update({s._cdata: s for s in storages if s._cdata not in own})
            return saved

        return torch.autograd.graph.saved_tensors_hooks(pack, Keeper.unpack)

    with using_kernels(kind), lean_memory(lean) as keeper, counting(keeper):
        kept = model(images)
    del kept
    return sum(s.nbytes() for s in held.values())


def in_place_leaky(model: nn.Module) -> nn.Module:
    model = copy.deepcopy(model)
    for block in model.modules():
        if isinstance(block, ConvBlock):
            block.act, block.activation_name = nn.LeakyReLU(0.1, inplace=True), "in-place"
    return model


@needs_triton
def test_saved_bytes_of_blocks_are_exactly_as_promised():
    chain = nn.Sequential(*(ConvBlock(4, 4, 3, activation="mish") for _ in range(3))).to(DEVICE).train()
    x = torch.randn(2, 4, 6, 6, device=DEVICE)
    one = x.numel() * 4
    assert saved_bytes(chain, x, "eager") == 9 * one  # convolution's input, its output, mish's input
    assert saved_bytes(in_place_leaky(chain), x, "eager") == 7 * one
    assert saved_bytes(chain, x, "fused") == 6 * one
    assert saved_bytes(chain, x, "fused", lean=True) == 4 * one  # the convolution's output alone, and the first input


def test_lean_memory_keeps_under_two_thirds_of_a_networks_maps_and_gives_its_gradients():
    model = build_network(ModelConfig(num_classes=2, width=0.125, depth=0.5)).train()
    images = torch.rand(2, 3, 64, 64)
    stock = saved_bytes(in_place_leaky(model), images, "eager")
    assert saved_bytes(model, images, "eager", lean=True) <= 0.65 * stock
    randomise(model)
    model, images = model.double(), images.double()
    gradients = []
    for lean in (False, True):
        own = copy.deepcopy(model)
        with using_kernels("eager"), lean_memory(lean):
            maps = own(images)
        sum(m.square().mean() for m in maps).backward()
        gradients.append([p.grad for p in own.parameters()])
    for ours, theirs in zip(*gradients, strict=True):
        assert torch.allclose(ours, theirs, rtol=1e-7, atol=1e-9 * theirs.abs().max().item())


@needs_triton
def test_fused_and_stock_blocks_read_each_others_state_and_checkpoint_alike():
    block, x = ConvBlock(3, 5, 3, activation="mish").to(DEVICE), torch.randn(2, 3, 5, 5, device=DEVICE)
    randomise(block)
    assert sorted(block.state_dict()) == sorted(
        ["conv.weight", *(f"bn.{k}" for k in ("weight", "bias", "running_mean", "running_var", "num_batches_tracked"))]
    )
    results = []
    for kind in ("eager", "fused"):
        own = copy.deepcopy(block).train()
        with using_kernels(kind):
            checkpoint(own, x, use_reentrant=False).square().sum().backward()
        results.append([own.conv.weight.grad, own.bn.weight.grad, own.bn.running_mean, own.bn.running_var])
    for ours, theirs in zip(*results, strict=True):
        assert torch.allclose(ours, theirs, rtol=1e-4, atol=1e-4)


def one_of_two(kind: str) -> None:
    torch.distributed.init_process_group("gloo")
    rank = torch.distributed.get_rank()
    torch.manual_seed(0)
    stock = ConvBlock(3, 4, 1, activation="mish").double()
    fused = nn.SyncBatchNorm.convert_sync_batchnorm(copy.deepcopy(stock)).to(torch.float32 if kind == "fused" else torch.float64)
    x = torch.randn(5, 3, 3, 4, dtype=torch.float64)
    mine = (x[:2] if rank == 0 else x[2:]).to(fused.conv.weight.dtype)  # unequal shares
    with using_kernels("eager"):
        truth = stock(x)
    truth.square().sum().backward()
    with using_kernels(kind), lean_memory(kind == "eager"):
        y = fused(mine)
    assert "_Synchronised" in type(y.grad_fn).__name__
    y.square().sum().backward()
    assert torch.allclose(y.double(), truth[:2] if rank == 0 else truth[2:], atol=1e-5)
    for ours, theirs in zip(fused.parameters(), stock.parameters(), strict=True):
        torch.distributed.all_reduce(ours.grad)
        assert torch.allclose(ours.grad.double(), theirs.grad, rtol=1e-4, atol=1e-4)
    assert torch.allclose(fused.bn.running_var.double(), stock.bn.running_var, rtol=1e-5)
    torch.distributed.destroy_process_group()


@pytest.mark.slow
@needs_triton
@pytest.mark.skipif(DEVICE == "cuda", reason="gloo and the interpreter: a CPU's test")
@pytest.mark.parametrize("kind", ["fused", "eager"])
def test_statistics_over_two_processes_are_those_of_the_whole_batch(kind, tmp_path):
    assert all_ranks(tmp_path, one_of_two, kind) == [0, 0]
