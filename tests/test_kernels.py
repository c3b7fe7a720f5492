"""Kernels against float64 formulas and torch's own layers: error under twice torch's at the dtype. Triton's run through its
interpreter where there is no GPU, compiled on one."""

import contextvars
import copy
import json
import os
import shutil
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from functools import partial
from pathlib import Path

import pytest
import torch
from processes import Started
from torch import nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from yolomish.activations import build_activation
from yolomish.errors import YolomishError, first_line
from yolomish.kernels import (
    CLOSED_FORMS,
    choose,
    chosen,
    describe,
    kernel_kind,
    lean_memory,
    mish,
    mish_,
    native,
    norm_act,
    using_kernels,
)
from yolomish.kernels.choice import _GUARDED, LARGE, triton_missing
from yolomish.kernels.lean import active_keeper
from yolomish.kernels.native import compiler_missing, native_missing

CUDA = torch.cuda.is_available()
DEVICE = "cuda" if CUDA else "cpu"
SHAPES = [(2, 3, 5, 7), (3, 70, 2, 3), (1, 1, 9, 33), (2, 4, 13, 13), (5, 24, 1, 1), (1, 3, 36, 31)]
GPU_SHAPES = [(1, 2048, 19, 19), (2, 32, 608, 608), (16, 255, 20, 20), (3, 1, 417, 333), (64, 512, 13, 13)]
needs_triton = pytest.mark.skipif(bool(triton_missing()), reason=triton_missing() or "-")
needs_native = pytest.mark.skipif(bool(native_missing()), reason=native_missing() or "-")
both_fused = pytest.mark.parametrize(
    "kind",
    [pytest.param("fused", marks=needs_triton), *([] if CUDA else [pytest.param("auto", marks=needs_native)])],
)  # Triton, by its interpreter where there is no GPU, and the CPU's loops
needs_compiler = pytest.mark.skipif(bool(compiler_missing()), reason=compiler_missing() or "-")


def torch_layers(act: str, z: torch.Tensor) -> torch.Tensor:
    return build_activation(act)(z)


def norm(channels: int) -> nn.BatchNorm2d:
    bn = nn.BatchNorm2d(channels, momentum=0.1, device=DEVICE)
    nn.init.uniform_(bn.weight, 0.5, 1.5)
    nn.init.normal_(bn.bias)
    bn.running_mean.normal_()
    bn.running_var.uniform_(0.5, 2)
    return bn


def everything(x: torch.Tensor, dy: torch.Tensor, bn: nn.BatchNorm2d, act: str, kind: str) -> list[torch.Tensor]:
    """Result, gradients of x, weight and bias, and running statistics."""
    x = x.detach().requires_grad_()
    with using_kernels(kind):
        y = norm_act(x, bn, build_activation(act), act)
    gradients = torch.autograd.grad(y, (x, bn.weight, bn.bias), dy)
    return [y.detach(), *gradients, bn.running_mean, bn.running_var]


def distance(values: list[torch.Tensor], truth: list[torch.Tensor]) -> list[float]:
    """The largest error of each, relative to the largest true value."""
    return [((v.double() - t).abs().max() / t.abs().max().clamp(min=1e-30)).item() for v, t in zip(values, truth, strict=True)]


def check_block(shape, act, dtype, layout, training, implementation, kind):
    """Ours must be nearer to float64 than twice torch's own distance, or than a rounding of the dtype."""
    x = (torch.randn(shape, device=DEVICE) * 2 + 3).to(dtype)
    x = x.contiguous(memory_format=torch.channels_last) if layout == "channels_last" else x
    if layout == "strided":
        x = torch.stack((x, x), -1)[..., 0]
    dy = torch.randn_like(x)
    bn = norm(shape[1]).train(training)
    with using_kernels(kind):
        assert chosen(x, bn, build_activation(act), act) == implementation
    truth = everything(x.double(), dy.double(), copy.deepcopy(bn).double(), act, "eager")
    stock = distance(everything(x, dy, copy.deepcopy(bn), act, "eager"), truth)
    ours = distance(everything(x, dy, bn, act, kind), truth)
    rounding = torch.finfo(dtype).eps * ((3 if CUDA else 2) if dtype == torch.float32 else 1)  # an H200 took up to 2.7
    floor = [rounding, 1.5 * rounding, *[5e-7 if dtype == torch.float32 else 2e-6] * 2, 1e-6, 1e-6]
    for name, our, theirs, least in zip(("y", "dx", "dweight", "dbias", "mean", "var"), ours, stock, floor, strict=True):
        assert our <= max(2 * theirs, least), f"{name}: {our:.2e} from the truth, torch {theirs:.2e}"
    assert bn.num_batches_tracked == int(training)


@needs_triton
@pytest.mark.parametrize(
    ("act", "dtype"),
    [
        *((act, torch.float32) for act in CLOSED_FORMS),
        *((act, dtype) for act in ("mish", "leaky_relu") for dtype in (torch.float16, torch.bfloat16)),
    ],
)
def test_triton_blocks_are_as_near_to_float64_as_torch(act, dtype):
    layouts = ("contiguous", "channels_last", "strided")
    shapes = [*SHAPES, *GPU_SHAPES] if CUDA else SHAPES if act == "mish" else SHAPES[:3]
    for i, shape in enumerate(shapes):
        check_block(shape, act, dtype, layouts[i % 3], i % 4 != 3, "triton", "fused")


@needs_native
@pytest.mark.skipif(CUDA, reason="the CPU's kernels")
@pytest.mark.parametrize("act", native.STRUCTS)
@pytest.mark.parametrize("dtype", native.DTYPES)
def test_native_blocks_are_as_near_to_float64_as_torch(act, dtype):
    layouts = ("contiguous", "channels_last", "strided")
    shapes = [*SHAPES, (2, 300, 20, 21), (2, 3, 160, 161), (1, 17, 90, 33)]  # wide, several chunks in a plane, an odd count
    for i, shape in enumerate(shapes):
        check_block(shape, act, dtype, layouts[i % 3], i % 4 != 3, "native", "auto")


@needs_native
@pytest.mark.skipif(CUDA, reason="the CPU's kernels")
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_native_blocks_have_the_same_bits_with_any_number_of_threads(memory_format):
    x = (torch.randn(3, 20, 47, 61) + 2).contiguous(memory_format=memory_format)
    dy, bn = torch.randn_like(x), norm(20)
    results = []
    for threads in (1, 2, 3, 5):
        torch.set_num_threads(threads)
        results.append(everything(x, dy, copy.deepcopy(bn), "mish", "auto"))
    for others in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], others, strict=True))


@pytest.mark.gpu
@pytest.mark.skipif(not CUDA, reason="no CUDA device")
def test_the_gpu_runs_triton_by_itself_and_compiles_once():
    from yolomish.kernels import triton_code

    x = torch.randn(4, 32, 64, 64, device="cuda")
    bn = norm(32)
    assert chosen(x, bn, nn.Mish(), "mish") == "eager"  # a small map
    assert chosen(torch.empty(LARGE // 32, 32, 1, 1, device="cuda"), bn, nn.Mish(), "mish") == "triton"
    with using_kernels("fused"):
        _compiles_once(x, bn, triton_code)


def _compiles_once(x, bn, triton_code):
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profile:
        norm_act(x.requires_grad_(), bn, nn.Mish(), "mish").sum().backward()
    ran = {e.key for e in profile.key_averages()}
    assert {"statistics_kernel", "merge_kernel", "apply_kernel", "reduce_kernel", "input_gradient_kernel"} <= ran
    kernels = [triton_code.statistics_kernel, triton_code.apply_kernel, triton_code.input_gradient_kernel]

    def variants():
        return sum(len(cache[0] if isinstance(cache, tuple) else cache) for k in kernels for cache in k.device_caches.values())

    for size in (19, 20, 32, 38, 64, 160, 304):
        norm_act(torch.randn(2, 32, size, size, device="cuda"), bn, nn.Mish(), "mish")
    before = variants()
    for size in (24, 23, 40, 48, 97, 208, 333):
        norm_act(torch.randn(3, 32, size, size, device="cuda"), bn, nn.Mish(), "mish")
    assert variants() == before


@pytest.mark.gpu
@pytest.mark.skipif(not CUDA, reason="no CUDA device")
def test_a_block_trains_in_a_cuda_graph_as_outside_of_one():
    inside, outside = norm(32), None
    outside = copy.deepcopy(inside)
    inputs = [torch.randn(4, 32, 40, 40, device="cuda") for _ in range(3)]
    x, dy = inputs[0].clone().requires_grad_(), torch.randn_like(inputs[0])

    def step(source, bn):
        with using_kernels("fused"):
            y = norm_act(source, bn, nn.Mish(), "mish")
        return (y, *torch.autograd.grad(y, (source, bn.weight, bn.bias), dy))

    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):  # Triton compiles and tunes before the capture
        for _ in range(3):
            step(x, copy.deepcopy(inside))
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = step(x, inside)
    for values in inputs:
        with torch.no_grad():
            x.copy_(values)
        graph.replay()
        expected = step(values.clone().requires_grad_(), outside)
        for ours, theirs in zip(captured, expected, strict=True):
            assert torch.allclose(ours, theirs, rtol=1e-5, atol=1e-5)
    assert torch.allclose(inside.running_var, outside.running_var)
    assert inside.num_batches_tracked == outside.num_batches_tracked == 3


@needs_compiler
@pytest.mark.skipif(CUDA, reason="the CPU's kernels")
@pytest.mark.slow
def test_compiled_blocks_are_as_near_to_float64_as_torch_and_fit_every_size():
    from torch._dynamo.utils import counters

    before = counters["stats"]["unique_graphs"]
    for shape, training in (((2, 16, 13, 13), True), ((3, 5, 40, 31), False), ((3, 16, 20, 20), True)):
        check_block(shape, "mish", torch.float32, "channels_last", training, "compiled", "compile")
    assert counters["stats"]["unique_graphs"] - before == 4  # one for each step


@needs_triton
@pytest.mark.parametrize("act", CLOSED_FORMS)
def test_triton_has_the_value_and_derivative_of_every_closed_form(act):
    from yolomish.kernels import triton_code

    kinks = torch.tensor([0.0, -0.0, -3, 3, -2, 6, 1e4, -1e4])
    x = torch.cat((kinks, torch.randn(3000) * 6)).to(DEVICE)
    dy, form = torch.randn_like(x), CLOSED_FORMS[act]
    expected = form.value(x.double()), dy.double() * form.slope(x.double())
    for ours, truth in zip((triton_code.value(x, act), triton_code.slope(dy, x, act)), expected, strict=True):
        assert torch.allclose(ours.double(), truth, rtol=2e-6, atol=2e-6)


@pytest.mark.skipif(CUDA or bool(triton_missing()), reason=triton_missing() or "the GPU's own instructions run there")
@pytest.mark.parametrize("sign", [-1, 1])
@pytest.mark.parametrize("act", CLOSED_FORMS)
def test_what_a_gpus_fast_instructions_may_lack_stays_small(act, sign, monkeypatch):
    from reference import fast_instructions

    from yolomish.kernels import triton_code

    monkeypatch.setattr(fast_instructions, "SIGN", sign)
    monkeypatch.setattr(triton_code, "_exp", fast_instructions.exp)
    monkeypatch.setattr(triton_code, "_reciprocal", fast_instructions.reciprocal)
    form = CLOSED_FORMS[act]
    x = torch.cat((torch.tensor([0.0, -0.0, 88, -88, 104, -104, 1e4, -1e4]), torch.randn(2000) * 6, torch.randn(100) * 60))
    dy = torch.randn_like(x)
    expected = form.value(x.double()), dy.double() * form.slope(x.double())
    for ours, truth in zip((triton_code.value(x, act), triton_code.slope(dy, x, act)), expected, strict=True):
        assert torch.allclose(ours.double(), truth, rtol=3e-6, atol=2e-6)


@needs_triton
def test_the_machine_code_for_gpus_is_within_what_memory_allows():
    """Compiled ahead of time for sm_90: no spills, 16-byte accesses, fewer instructions than the time of a copy allows."""
    script = Path(__file__).parents[1] / "benchmarks" / "kernel_static.py"
    words = ["--dtypes", "bf16", "--layouts", "channels_last", "--archs", "90", "--json"]
    environment = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"} | {"PYTHONPATH": str(script.parents[1])}
    done = subprocess.run([sys.executable, script, *words], capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    rows = json.loads(done.stdout)
    assert {row["kernel"] for row in rows} == {"statistics", "apply", "reduce", "input_gradient", "value", "slope"}
    for row in rows:
        assert row["spills"] == 0 and row["access"] == 128 and row["share"]["H100"] >= 0.8, row


@pytest.mark.parametrize("kind", ["auto", "fused", "compile"])
def test_mish_alone_is_torchs_for_ordinary_extreme_and_undefined_values(kind):
    device = "cpu" if kind == "auto" else DEVICE
    if missing := {"auto": native_missing, "fused": triton_missing, "compile": compiler_missing}[kind]():
        pytest.skip(missing)
    inf = float("inf")
    edges = [0.0, -0.0, 1e-30, -1e-30, 1e4, -1e4, 3e38, -3e38, 19.9, 20.1, 39.9, 40.1, -87.0, -104.0, inf, -inf, float("nan")]
    x = torch.cat((torch.tensor(edges), torch.randn(3000) * 10)).to(device)
    dtypes = {"auto": native.DTYPES, "fused": (torch.float32, torch.float16, torch.bfloat16), "compile": (torch.float32,)}
    for dtype in dtypes[kind]:
        ours, stock = (x.to(dtype).requires_grad_() for _ in range(2))
        with using_kernels(kind):
            y = mish(ours)
            copy_of = ours.detach().clone()
            written = mish_(copy_of)
            assert copy_of._version == 1 and written is copy_of  # so that autograd sees what was overwritten
        ran = "MishBackward" if kind == "auto" else "yolomish_activation"
        assert ran in type(y.grad_fn).__name__ and "MishBackward0" not in type(y.grad_fn).__name__, y.grad_fn
        truth = F.mish(stock)
        dy = torch.randn_like(truth)
        (g,) = torch.autograd.grad(y, ours, dy)
        (t,) = torch.autograd.grad(truth, stock, dy)
        tolerance = {"rtol": 4e-6 if dtype == torch.float32 else 2 * torch.finfo(dtype).eps, "equal_nan": True}
        assert torch.allclose(y, truth, atol=1e-6, **tolerance)
        assert torch.allclose(g, t, atol=1e-6, **tolerance)
        assert torch.equal(written.nan_to_num(), y.detach().nan_to_num())


@needs_native
@pytest.mark.parametrize("dtype", native.DTYPES)
@pytest.mark.parametrize("layout", ["contiguous", "channels_last", "strided"])
def test_native_mish_is_nearer_to_float64_than_twice_torch(dtype, layout):
    torch.set_num_threads(2)  # the loop divides its values among threads
    x = (torch.randn(2, 5, 41, 37) * 4).to(dtype)
    x = x.contiguous(memory_format=torch.channels_last) if layout == "channels_last" else x
    x = torch.stack((x, x), -1)[..., 0] if layout == "strided" else x
    dy = torch.randn_like(x)
    results = []
    for kind, wide in (("eager", True), ("eager", False), ("auto", False)):
        v = (x.double() if wide else x).detach().requires_grad_()
        with using_kernels(kind):
            y = mish(v)
            results.append([y.detach(), *torch.autograd.grad(y, v, dy.to(v.dtype))])
    truth, stock, ours = results
    assert ours[0].stride() == stock[0].stride() and ours[0].dtype == dtype
    for error, theirs in zip(distance(ours, truth), distance(stock, truth), strict=True):
        assert error <= 2 * theirs


@needs_native
def test_native_mish_differentiates_twice_and_marks_what_it_overwrites():
    x, dy = torch.randn(3, 4, 5), torch.randn(3, 4, 5)
    results = []
    for kind in ("eager", "auto"):
        v = x.clone().requires_grad_()
        with using_kernels(kind):
            (g,) = torch.autograd.grad(mish(v), v, dy, create_graph=True)
        results.append(torch.autograd.grad(g.square().sum(), v)[0])
    assert torch.allclose(*results, rtol=1e-4, atol=1e-5)
    with using_kernels("auto"):
        w, v = torch.ones(60, requires_grad=True), x.flatten()
        product = w * v  # saves v for w's gradient
        mish_(v)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        product.sum().backward()


@needs_native
def test_torch_compile_makes_its_own_loop_of_the_formula():
    x = torch.cat((torch.randn(500) * 5, torch.tensor([-90.0, 39.9, 40.1, 500.0])))
    graphs = []

    def backend(graph, inputs):
        graphs.append([str(node.target) for node in graph.graph.nodes])
        return graph.forward

    results = []
    for function in (F.mish, torch.compile(lambda v: mish(v), fullgraph=True, backend=backend)):
        v = x.clone().requires_grad_()
        with using_kernels("auto"):
            y = function(v)
        results.append((y, *torch.autograd.grad(y.sum(), v)))
    for ours, theirs in zip(results[1], results[0], strict=True):
        assert torch.allclose(ours, theirs, rtol=1e-5, atol=1e-6)
    assert graphs[0].count("exp") == 1 and not any("mish" in name or "activation" in name for name in graphs[0])


@needs_native
def test_native_loops_are_built_once_and_only_used_where_they_are_right(tmp_path, monkeypatch):
    monkeypatch.setenv("YOLOMISH_CACHE", str(tmp_path))
    fresh = native._library.__wrapped__
    fresh()
    (library,) = (tmp_path / "kernels").iterdir()
    built = library.stat().st_mtime_ns
    fresh()
    assert [p.stat().st_mtime_ns for p in (tmp_path / "kernels").iterdir()] == [built]
    wrong = tmp_path / native.SOURCE.name
    wrong.write_text(native.SOURCE.read_text().replace("x * (n / (n + 2.f))", "x * (n / (n + 2.1f))"))
    monkeypatch.setattr(native, "SOURCE", wrong)
    with pytest.raises(RuntimeError, match="returns wrong values in float32"):
        fresh()
    assert len(list((tmp_path / "kernels").iterdir())) == 1


@both_fused
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_statistics_survive_a_mean_far_above_the_deviation(kind, memory_format):
    x = torch.randn(4, 6, 31, 17, device=DEVICE) * 0.01 + 1000
    x = x.contiguous(memory_format=memory_format)
    bn = norm(6)
    bn.momentum = 1.0
    with using_kernels(kind):
        norm_act(x, bn, nn.Identity(), "linear")
    truth = x.double().var((0, 2, 3))
    assert torch.allclose(bn.running_var.double(), truth, rtol=1e-3)
    assert ((x.square().mean((0, 2, 3)) - x.mean((0, 2, 3)).square()) / truth).sub(1).abs().max() > 1  # the short cut fails


@needs_triton
@pytest.mark.parametrize("channels_last", [False, True])
def test_statistics_survive_a_beginning_unlike_the_rest(channels_last, monkeypatch):
    from yolomish.kernels import triton_code

    monkeypatch.setattr(triton_code, "PROGRAMS", 2)  # so that each has many tiles
    pixels = 1 << 13
    x = torch.randn(pixels, 8, device=DEVICE) * 0.01
    x[:32] = 1000
    x = x[:, :, None] if channels_last else x.T.contiguous()[None]
    count, mean, square = triton_code.partial_statistics(x).double()
    assert triton_code.Tiles(x).share > 1 and torch.all(count.sum(0) == pixels)
    middle = (count * mean).sum(0) / pixels
    variance = (square + count * (mean - middle) ** 2).sum(0) / pixels
    truth = x.double().var((0, 2), unbiased=False)
    assert torch.allclose(middle, x.double().mean((0, 2)), rtol=1e-5) and torch.allclose(variance, truth, rtol=1e-4)


@both_fused
def test_undefined_inputs_spoil_their_channel_alone_as_in_torch(kind):
    x = torch.randn(2, 4, 6, 5, device=DEVICE)
    x[0, 1, 2, 3], x[1, 2, 0, 0] = float("nan"), float("inf")
    for runs in ("eager", kind):
        with using_kernels(runs):
            y = norm_act(x, norm(4), nn.Mish(), "mish")
        assert y.isfinite().all((0, 2, 3)).tolist() == [True, False, False, True]


@both_fused
@pytest.mark.parametrize("training", [True, False])
def test_second_backward_is_torchs(training, kind):
    x, dy = torch.randn(2, 3, 4, 5, device=DEVICE), torch.randn(2, 3, 4, 5, device=DEVICE)
    results = []
    bn = norm(3).train(training)
    for runs in ("eager", kind):
        own, x1 = copy.deepcopy(bn), x.clone().requires_grad_()
        with using_kernels(runs):
            y = norm_act(x1, own, nn.Mish(), "mish")
        first = torch.autograd.grad(y, (x1, own.weight, own.bias), dy, create_graph=True)
        penalty = sum(g.square().sum() for g in first)
        results.append(torch.autograd.grad(penalty, (x1, own.weight, own.bias)))
    for ours, theirs in zip(*results, strict=True):
        assert torch.allclose(ours, theirs, rtol=1e-3, atol=1e-4)


@needs_triton
def test_operators_satisfy_torchs_own_checks():
    x = torch.randn(2, 3, 4, 5, device=DEVICE, requires_grad=True)
    channels = [torch.rand(3, device=DEVICE, requires_grad=i < 2) for i in range(4)]
    arguments = (x, *channels, 1e-5, "mish", False, "triton")
    names = ("test_schema", "test_autograd_registration", "test_faketensor")
    torch.library.opcheck(torch.ops.yolomish.norm_act.default, arguments, test_utils=names)
    torch.library.opcheck(torch.ops.yolomish.activation.default, (x, "mish", "triton"), test_utils=names)
    statistics = (x.detach(), torch.zeros(3, device=DEVICE), torch.ones(3, device=DEVICE), 0.1, 1e-5, "mish", "triton")
    torch.library.opcheck(torch.ops.yolomish.norm_statistics.default, statistics, test_utils=names)


@needs_triton
def test_a_block_compiles_without_a_break_and_trains_alike():
    x = torch.randn(2, 8, 6, 6, device=DEVICE)
    stock, fused = norm(8), None
    fused = copy.deepcopy(stock)
    act = nn.Mish()
    with using_kernels("eager"):
        truth = norm_act(x, stock, act, "mish")
    with using_kernels("fused"):
        step = torch.compile(lambda v: norm_act(v, fused, act, "mish"), fullgraph=True, backend="aot_eager")
        y = step(x)
    y.sum().backward()
    truth.sum().backward()
    assert torch.allclose(y, truth, atol=1e-5)
    assert torch.allclose(fused.weight.grad, stock.weight.grad, atol=1e-4)
    assert torch.allclose(fused.running_var, stock.running_var)
    assert fused.num_batches_tracked == 1


def test_layers_that_are_out_of_the_ordinary_run_as_they_are():
    x, act = torch.randn(2, 3, 4, 4, device=DEVICE), nn.Mish()
    hooked = norm(3)
    hooked.register_forward_hook(lambda *_: None)
    cumulative, single = norm(3), torch.randn(1, 3, 1, 1, device=DEVICE)
    cumulative.momentum = None
    with using_kernels("fused"):
        assert chosen(x, hooked, act, "mish") == chosen(x, cumulative, act, "mish") == "eager"
        assert chosen(x, nn.InstanceNorm2d(3), act, "mish") == chosen(x, norm(3), act, "prelu") == "eager"
        assert chosen(x.double(), norm(3), act, "mish") == "eager"
        with pytest.raises(ValueError, match="more than 1 value per channel"):
            norm_act(single, norm(3), act, "mish")
        assert norm_act(x[:0], norm(3).eval(), act, "mish").shape == (0, 3, 4, 4)


def test_the_choice_speaks_and_is_overridden():
    with using_kernels("eager"):
        assert "mish by torch's own layers (asked for)" in describe("cpu", torch.float32, ["mish"])
        with using_kernels("auto"):
            assert kernel_kind() == "eager"
        with using_kernels("compile"):
            assert kernel_kind() == "compile"
    assert kernel_kind() == "auto"
    assert "prelu has no closed form" in choose("auto", "cpu", torch.float32, "prelu").reason
    assert choose("auto", "mps", torch.float32, "mish").reason == "no kernels for mps"
    with pytest.raises(YolomishError, match="did you mean 'fused'"), using_kernels("fusd"):
        pass


@pytest.mark.parametrize(
    ("compiler", "reason"),
    [("no-such-compiler", "no C++ compiler: no-such-compiler is not on PATH"), ("false", "false cannot build norm_act.cpp: ")],
)
def test_without_a_compiler_torch_takes_over_and_says_so(compiler, reason, monkeypatch):
    caches = (compiler_missing, native_missing, native._library, choose)
    for cached in caches:
        cached.cache_clear()
    monkeypatch.setenv("CXX", compiler)
    try:
        assert choose("auto", "cpu", torch.float32, "mish").implementation == "eager"
        assert reason in describe("cpu", torch.float32, ["mish"])
    finally:
        for cached in caches:
            cached.cache_clear()


@both_fused
def test_lean_memory_makes_exact_copies_and_refuses_changed_ones(kind):
    x = torch.randn(2, 4, 6, 6, device=DEVICE)
    conv = nn.Conv2d(4, 4, 1, bias=False, device=DEVICE)
    bn, other = norm(4), nn.Conv2d(4, 2, 3, device=DEVICE)
    with using_kernels(kind), lean_memory() as keeper:
        y = norm_act(conv(x), bn, nn.Mish(), "mish")
        recipe = keeper.find(y.detach())
        assert recipe is not None and torch.equal(recipe.tensor(), y)
        assert keeper.find(y[:1]) is None
        out = other(y)
    with torch.no_grad():
        bn.weight.mul_(2)
    del y
    with pytest.raises(RuntimeError, match="modified in place"):
        out.sum().backward()


def test_the_first_line_of_a_message_is_the_first_that_says_something():
    assert first_line(RuntimeError("\n  \n really: no \nmore")) == "really: no"
    assert first_line(RuntimeError(" \n")) == "RuntimeError" and first_line("x" * 99, 9) == "x" * 9


def in_thread(function):
    """What ``function`` returns in a new thread."""
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(function).result()


def test_each_thread_has_its_own_kind_and_keeper():
    both_inside, both_looked = threading.Barrier(2, timeout=30), threading.Barrier(2, timeout=30)

    def look(kind, lean):
        with using_kernels(kind), lean_memory(lean) as keeper:
            both_inside.wait()
            seen = kernel_kind(), active_keeper() is keeper
            both_looked.wait()
        return *seen, kernel_kind(), active_keeper()

    with ThreadPoolExecutor(2) as pool:
        seen = [pool.submit(look, kind, lean) for kind, lean in (("eager", True), ("compile", False))]
        assert [s.result() for s in seen] == [("eager", True, "auto", None), ("compile", True, "auto", None)]


def test_a_pool_starts_with_auto_and_takes_the_callers_kind_in_a_copied_context():
    with using_kernels("eager"), lean_memory() as keeper:
        assert in_thread(kernel_kind) == "auto" and in_thread(active_keeper) is None
        assert in_thread(partial(contextvars.copy_context().run, kernel_kind)) == "eager"
        assert active_keeper() is keeper


@pytest.mark.parametrize("kind", ["eager", "fused"])
def test_backward_in_another_thread_has_the_gradients_of_lean_forward(kind):
    if kind == "fused" and triton_missing():
        pytest.skip(triton_missing())
    block = nn.Sequential(nn.Conv2d(3, 4, 1), norm(4), nn.Conv2d(4, 2, 1)).to(DEVICE)
    x = torch.randn(2, 3, 5, 5, device=DEVICE)
    gradients = []
    for lean, run in ((False, lambda f: f()), (True, in_thread)):
        with using_kernels(kind), lean_memory(lean):
            y = block[2](norm_act(block[0](x), copy.deepcopy(block[1]), nn.Mish(), "mish")).square().sum()
        block.zero_grad()
        run(y.backward)
        gradients.append([block[0].weight.grad.clone(), block[2].weight.grad.clone()])
    for ours, theirs in zip(*gradients, strict=True):
        assert torch.allclose(ours, theirs, rtol=1e-4, atol=1e-4)


@pytest.mark.skipif(not _GUARDED, reason="this torch.compile cannot read a context variable")
def test_a_compiled_function_is_compiled_anew_for_another_kind_and_only_then():
    x, graphs = torch.randn(8), []

    def backend(graph, inputs):
        graphs.append({str(node.target) for node in graph.graph.nodes})
        return graph.forward

    function = torch.compile(lambda v: mish(v), fullgraph=True, backend=backend)
    for kind in ("eager", "compile", "eager", "compile"):
        with using_kernels(kind):
            function(x)
    if compiler_missing():
        pytest.skip(compiler_missing())
    assert len(graphs) == 2 and any("mish" in name for name in graphs[0]) and not any("mish" in name for name in graphs[1])


@pytest.fixture(scope="module")
def good_library(tmp_path_factory):
    """Mish's library as it was built."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("YOLOMISH_CACHE", str(tmp_path_factory.mktemp("good")))
        native._library.__wrapped__()
        (library,) = (Path(os.environ["YOLOMISH_CACHE"]) / "kernels").iterdir()
    return library


@pytest.mark.parametrize("damage", [lambda b: b[: len(b) // 2], lambda b: b"", lambda b: bytes(len(b)), lambda b: b[:-1] + b"x"])
@needs_native
def test_a_damaged_library_is_not_loaded_but_built_anew(damage, good_library, tmp_path, monkeypatch):
    monkeypatch.setenv("YOLOMISH_CACHE", str(tmp_path))
    fresh, good, library = native._library.__wrapped__, good_library.read_bytes(), tmp_path / "kernels" / good_library.name
    library.parent.mkdir()
    library.write_bytes(damage(good))
    opened, built = [], []

    def build(command, **_):  # takes seconds
        built.append(shutil.copyfile(good_library, command[-1]))
        return subprocess.CompletedProcess(command, 0)

    monkeypatch.setattr(native.subprocess, "run", build)
    monkeypatch.setattr(native.ctypes, "CDLL", lambda path, load=native.ctypes.CDLL: opened.append(path) or load(path))
    fresh()
    assert str(library) not in opened and len(opened) == len(built) == 1
    (rebuilt,) = (tmp_path / "kernels").iterdir()
    assert rebuilt.stat().st_size == len(good)
    fresh()
    assert opened[1:] == [str(rebuilt)] and len(built) == 1


def first_run() -> None:
    native._library.__wrapped__()


@needs_native
def test_two_first_runs_at_once_leave_one_whole_library(tmp_path):
    environment = {"YOLOMISH_CACHE": str(tmp_path)}
    runs = [Started(tmp_path / f"errors{i}.txt", first_run, environment=environment) for i in range(2)]
    assert [run.wait() for run in runs] == [0, 0]
    names = [path.name for path in (tmp_path / "kernels").iterdir()]
    assert all(name.endswith(f"-{native._hash((tmp_path / 'kernels' / name).read_bytes())}.so") for name in names)


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        ("exit 1", "no reason given"),
        ("printf '\\n \\n\\n' >&2; exit 1", "no reason given"),
        ("printf 'mish.cpp:1: error: ung\\374ltig\\n' >&2; exit 1", "mish.cpp:1: error: ung\ufffdltig"),
        ("printf '\\nfirst said\\nthen more\\n' >&2; exit 1", "first said"),
        ("exec cc -shared -x c /dev/null -o {output}", "what it built has no function statistics_float32"),
        ("exit 0", "No such file"),
    ],
)
@needs_compiler
def test_a_compiler_that_fails_is_one_line(script, reason, tmp_path, monkeypatch):
    compiler = tmp_path / "compiler"
    compiler.write_text("#!/bin/bash\n" + script.replace("{output}", '"${@: -1}"') + "\n")
    compiler.chmod(0o755)
    monkeypatch.setenv("CXX", str(compiler))
    monkeypatch.setenv("YOLOMISH_CACHE", str(tmp_path / "cache"))
    caches = (compiler_missing, native_missing, native._library, choose)
    for cached in caches:
        cached.cache_clear()
    try:
        (line,) = describe("cpu", torch.float32, ["mish"]).splitlines()
        assert f"mish by torch's own layers ({compiler} cannot build norm_act.cpp: " in line and reason in line
        assert not (tmp_path / "cache" / "kernels").exists()
    finally:
        for cached in caches:
            cached.cache_clear()


def test_what_recomputes_a_forward_pass_in_another_thread_takes_its_kind_along():
    seen = []

    def layer(x):
        seen.append(kernel_kind())
        return x.tanh()

    for options in ({}, {"context_fn": lambda: (nullcontext(), using_kernels(kernel_kind()))}):
        with using_kernels("fused"):
            y = checkpoint(layer, torch.randn(3, requires_grad=True), use_reentrant=False, **options)
        in_thread(y.sum().backward)
    assert seen == ["fused", "auto", "fused", "fused"]
