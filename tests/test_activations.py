"""The contract that every activation inherits: its module, and each of its other forms against that module."""

import sys
import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from yolomish.activations import (
    Activation,
    activation_names,
    build_activation,
    darknet_activations,
    find_activation,
    register_activation,
)
from yolomish.activations.plot import plot_activations
from yolomish.activations.standard import STANDARD
from yolomish.config import ModelConfig
from yolomish.darknet.network import read_cfg
from yolomish.darknet.write import write_cfg
from yolomish.errors import YolomishError
from yolomish.inference.engines.packed import PackedConv, packing_missing
from yolomish.inference.export.onnx_graph import _Graph
from yolomish.kernels import CLOSED_FORMS
from yolomish.networks.registry import outline
from yolomish.nn.blocks import ConvBlock
from yolomish.nn.fold import fold_batch_norm

pytestmark = pytest.mark.usefixtures("trusted")
NAMES = activation_names()
SMOOTH = ("mish", "silu", "swish", "sigmoid", "gelu", "gelu_tanh", "softplus", "tanh", "linear")


def having(form: str) -> list[object]:
    """The records that have this form, each under its name."""
    return [pytest.param(record, id=record.name) for record in STANDARD if getattr(record, form)]


@pytest.mark.parametrize("name", NAMES)
class TestContract:
    @pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
    def test_shape_and_dtype_are_kept_and_values_finite(self, name: str, dtype: torch.dtype) -> None:
        act = build_activation(name).to(dtype)
        for shape in ((2, 3, 5, 7), (0, 3, 4, 4), (1,)):
            y = act(torch.randn(shape, dtype=dtype)) if len(shape) > 1 else act(torch.randn(1, 1, dtype=dtype))
            assert y.dtype == dtype and y.shape == (shape if len(shape) > 1 else (1, 1))
        x = torch.tensor([[-1e4], [-1.0], [0.0], [1.0], [1e4]], dtype=dtype, requires_grad=True)
        y = act(x)
        y.sum().backward()
        assert y.isfinite().all() and x.grad is not None and x.grad.isfinite().all()

    def test_gradient_is_the_derivative(self, name: str) -> None:
        x = torch.tensor([[-4.5, -2.5, -1.3, -0.4, 0.3, 1.1, 2.7, 4.9, 7.3]], dtype=torch.float64).T.requires_grad_()
        act = build_activation(name).double()
        assert torch.autograd.gradcheck(act, (x,))
        if name in SMOOTH and name != "linear":
            assert torch.autograd.gradgradcheck(act, (x,))

    def test_layouts_do_not_matter(self, name: str) -> None:
        act = build_activation(name)
        x = torch.randn(2, 4, 6, 8)
        last = x.to(memory_format=torch.channels_last)
        assert act(last).is_contiguous(memory_format=torch.channels_last)
        torch.testing.assert_close(act(last), act(x))
        torch.testing.assert_close(act(x[..., ::2]), act(x)[..., ::2])

    def test_input_is_left_alone_and_compile_returns_the_same(self, name: str) -> None:
        act, x = build_activation(name), torch.randn(2, 3, 4, 4)
        before = x.clone()
        with torch.autocast("cpu", dtype=torch.bfloat16):
            assert act(x).isfinite().all()
        torch._dynamo.reset()  # each function is a recompilation of one forward
        expected = act(x)
        assert torch.equal(x, before)
        torch.testing.assert_close(torch.compile(act, fullgraph=True, backend="eager")(x), expected)


@pytest.mark.parametrize("record", having("closed_form"))
def test_the_closed_form_is_the_module_and_its_derivative(record: Activation) -> None:
    z = (torch.randn(4000, dtype=torch.float64) * 6).requires_grad_()
    truth = record.build()(z)
    (slope,) = torch.autograd.grad(truth.sum(), z)
    value = record.closed_form.value(z)  # type: ignore[union-attr]
    assert torch.allclose(value, truth, rtol=1e-12, atol=1e-14)
    assert torch.allclose(record.closed_form.slope(z.detach()), slope, rtol=1e-10, atol=1e-12)  # type: ignore[union-attr]
    (by_autograd,) = torch.autograd.grad(value.sum(), z)
    assert torch.allclose(by_autograd, slope, rtol=1e-10, atol=1e-12)


def test_every_closed_form_belongs_to_a_record() -> None:
    assert set(CLOSED_FORMS) == {record.name for record in STANDARD if record.closed_form}


@pytest.mark.parametrize("record", having("in_place"))
def test_the_in_place_form_writes_the_modules_values_into_its_input(record: Activation) -> None:
    for layout in (torch.contiguous_format, torch.channels_last):
        x = (torch.randn(2, 5, 7, 9) * 4).contiguous(memory_format=layout)
        expected = record.build()(x)
        y = record.in_place(x)  # type: ignore[misc]
        assert y.data_ptr() == x.data_ptr() and torch.equal(y, x) and y.stride() == expected.stride()
        torch.testing.assert_close(y, expected, rtol=4e-6, atol=1e-6)


@pytest.mark.skipif(bool(packing_missing(torch.float32)), reason=packing_missing(torch.float32) or "-")
@pytest.mark.parametrize("record", having("onednn"))
@torch.no_grad()
def test_onednn_computes_the_module_behind_the_convolution(record: Activation) -> None:
    conv = nn.Conv2d(16, 32, 3, padding=1)
    nn.init.normal_(conv.weight, std=0.4)
    x = torch.randn(1, 16, 9, 11).contiguous(memory_format=torch.channels_last)
    fused = PackedConv(conv, record.name, record.build())
    assert fused.act is None
    torch.testing.assert_close(fused(x), record.build()(conv(x)), rtol=1e-5, atol=1e-5)


def onnx_block(block: ConvBlock, x: torch.Tensor, opset: int) -> tuple[torch.Tensor, set[str]]:
    """What ONNX Runtime makes of a block, and the operators in its graph."""
    onnx = pytest.importorskip("onnx", reason="onnx is optional, not installed here")
    runtime = pytest.importorskip("onnxruntime", reason="onnxruntime is optional, not installed here")
    graph = _Graph(opset, False)
    result = graph.block("b", block, "x")
    values = [onnx.helper.make_tensor_value_info(n, onnx.TensorProto.FLOAT, list(x.shape)) for n in ("x", result)]
    made = onnx.helper.make_graph(graph.nodes, "block", values[:1], values[1:], graph.initializers)
    model = onnx.helper.make_model(made, opset_imports=[onnx.helper.make_opsetid("", opset)], ir_version=9)
    onnx.checker.check_model(model)
    (y,) = runtime.InferenceSession(model.SerializeToString()).run(None, {"x": x.numpy()})
    return torch.from_numpy(y), {node.op_type for node in graph.nodes}


@pytest.mark.parametrize("record", having("onnx"))
@torch.no_grad()
def test_onnx_has_the_modules_values(record: Activation) -> None:
    block = ConvBlock(4, 4, 1, activation=record.name).eval()
    nn.init.normal_(block.conv.weight, std=3)
    if record.name == "prelu":
        nn.init.uniform_(block.act.weight, -1, 1)  # type: ignore[arg-type]
    x = torch.randn(1, 4, 40, 41)
    conv = fold_batch_norm(block.conv, block.bn)
    first = record.onnx.opset  # type: ignore[union-attr]
    for opset in {20, max(13, first - 1)}:
        if opset < first <= 18:
            with pytest.raises(YolomishError, match=f"opset {opset} has no {record.onnx.operator} operator"):  # type: ignore[union-attr]
                onnx_block(block, x, opset)
            continue  # an operator newer than 18 is traced into older ones
        y, operators = onnx_block(block, x, opset)
        assert (record.onnx.operator in operators) == (first <= opset)  # type: ignore[union-attr]
        torch.testing.assert_close(y, block.act(conv(x)), rtol=1e-5, atol=1e-5)


DARKNET = {  # src/activations.h and activations.c, written with numpy
    "linear": lambda x: x,
    "leaky": lambda x: np.where(x > 0, x, 0.1 * x),
    "relu": lambda x: x * (x > 0),
    "relu6": lambda x: np.minimum(np.maximum(x, 0), 6),
    "mish": lambda x: x * np.tanh(np.log1p(np.exp(x))),
    "hard_mish": lambda x: np.where(x > 0, x, np.where(x > -2, x * x / 2 + x, 0)),
    "swish": lambda x: x * (1 / (1 + np.exp(-x))),
    "logistic": lambda x: 1 / (1 + np.exp(-x)),
    "tanh": lambda x: 2 / (1 + np.exp(-2 * x)) - 1,
    "elu": lambda x: (x >= 0) * x + (x < 0) * (np.exp(x) - 1),
    "selu": lambda x: (x >= 0) * 1.0507 * x + (x < 0) * 1.0507 * 1.6732 * (np.exp(x) - 1),
    "gelu": lambda x: 0.5 * x * (1 + np.tanh(0.797885 * x + 0.035677 * x**3)),
}


def test_darknets_names_stand_for_darknets_functions(tmp_path: Path) -> None:
    x = np.linspace(-15, 15, 3001)
    known = darknet_activations()
    assert set(known) == set(DARKNET) and len({record.name for record in known.values()}) == len(known)
    for name, formula in DARKNET.items():
        ours = known[name].build()(torch.from_numpy(x)).numpy()
        np.testing.assert_allclose(
            ours, formula(x), atol=2.2e-7 if name == "gelu" else 1e-4 if name == "selu" else 1e-12, err_msg=name
        )
        file = tmp_path / f"{name}.cfg"
        write_cfg(file, outline(ModelConfig(activation=known[name].name, neck_activation="leaky_relu")))
        assert f"activation={name}\n" in file.read_text()
        assert outline(read_cfg(file)).layers[0].activation_name == known[name].name
    with pytest.raises(YolomishError, match=r"Darknet has no activation 'gelu'; it has .*gelu_tanh"):
        write_cfg(tmp_path / "exact.cfg", outline(ModelConfig(activation="gelu")))
    file.write_text(file.read_text().replace("activation=leaky", "activation=leeky"))
    with pytest.raises(YolomishError, match=r"gelu.cfg:\d+: .* unknown activation 'leeky'; did you mean 'leaky'"):
        read_cfg(file)


def test_mish_equals_its_float64_formula_and_minimum() -> None:
    x = np.linspace(-30, 30, 4001)
    truth = x * np.tanh(np.logaddexp(0, x))
    np.testing.assert_allclose(build_activation("mish")(torch.from_numpy(x)).numpy(), truth, rtol=1e-12, atol=1e-15)
    assert truth.min() == pytest.approx(-0.30884, abs=1e-5)
    assert x[truth.argmin()] == pytest.approx(-1.1924, abs=0.02)


def test_an_alias_is_the_same_record_under_its_own_name() -> None:
    assert find_activation("swish") is find_activation("silu")
    assert ConvBlock(1, 1, 1, activation="swish").activation_name == "silu"
    assert {"swish", "silu"} <= set(NAMES) and len(NAMES) == len(set(NAMES))


def test_own_activation_by_file_and_errors(tmp_path: Path) -> None:
    file = tmp_path / "my.py"
    file.write_text('def squareplus(x):\n    """Mine.\n\n    More."""\n    return (x + (x * x + 4).sqrt()) / 2\n\nnumber = 3\n')
    assert build_activation(f"{file}:squareplus")(torch.zeros(1)).item() == 1
    record = find_activation(f"{file}:squareplus")
    assert (record.name, record.description) == (f"{file}:squareplus", "Mine.")
    assert not any((record.closed_form, record.in_place, record.onednn, record.onnx, record.darknet))
    (tmp_path / "broken.py").write_text("1 / 0\n")
    for name, message in (
        (f"{file}:none", "has no 'none'"),
        (f"{file}:number", "not a function"),
        (f"{tmp_path}/no.py:f", "does not exist"),
        (f"{tmp_path}/broken.py:f", "broken.py cannot be imported: ZeroDivisionError"),
        ("mihs", "did you mean 'mish'"),
    ):
        with pytest.raises(YolomishError, match=message):
            build_activation(name)
    assert not any("yolomish_activation_broken" in name for name in sys.modules)


def test_a_file_is_executed_once_per_content_however_many_layers_and_threads(tmp_path: Path) -> None:
    file, log = tmp_path / "counted.py", tmp_path / "log"
    text = f"open({str(log)!r}, 'a').write('x')\ndef act(x):\n    return x * FACTOR\n"
    file.write_text(text.replace("FACTOR", "2"))
    threads = [threading.Thread(target=lambda: ConvBlock(2, 2, 1, activation=f"{file}:act")) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    (tmp_path / "link.py").symlink_to(file)
    build_activation(f"{tmp_path}/link.py:act")
    assert log.read_text() == "x"
    file.write_text(text.replace("FACTOR", "3"))  # as long, within the same second
    assert build_activation(f"{file}:act")(torch.ones(1)).item() == 3
    assert log.read_text() == "xx"


def test_a_file_first_executed_for_an_outline_keeps_its_constants(tmp_path: Path) -> None:
    file = tmp_path / "constant.py"
    file.write_text("import torch\nTWO = torch.tensor(2.0)\ndef act(x):\n    return x * TWO\n")
    with torch.device("meta"):
        build_activation(f"{file}:act")
    assert build_activation(f"{file}:act")(torch.ones(1)).item() == 2


def test_names_registered_in_a_file_are_known_to_that_file_alone(tmp_path: Path) -> None:
    file = tmp_path / "registering.py"
    file.write_text(
        "from yolomish.activations import register_activation\n"
        "@register_activation('twice', 'double')\ndef function(x):\n    return 2 * x\n"
    )
    for _ in range(2):
        assert build_activation(f"{file}:twice")(torch.ones(1)).item() == 2
        assert find_activation(f"{file}:double").name == f"{file}:double"
    assert "twice" not in activation_names() and "double" not in activation_names()
    file.write_text(file.read_text().replace("'double'", "'mish'"))
    with pytest.raises(YolomishError, match="'mish' is already registered"):
        build_activation(f"{file}:twice")
    with pytest.raises(YolomishError, match="'silu' is already registered"):
        register_activation("silu")(torch.relu)


def test_activation_of_an_installed_package_is_listed_and_built(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "theirs.py").write_text('def squareplus(x):\n    """Theirs."""\n    return (x + (x * x + 4).sqrt()) / 2\n')
    info = tmp_path / "theirs-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: theirs\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[yolomish.activations]\nsquareplus = theirs:squareplus\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    assert "squareplus" in activation_names()
    assert build_activation("squareplus")(torch.zeros(1)).item() == 1
    assert find_activation("squareplus").description == "Theirs."


def test_a_plot_is_written_and_leaves_the_users_backend_alone(tmp_path: Path) -> None:
    import matplotlib

    before, loaded = matplotlib.rcParams._get("backend"), "matplotlib.pyplot" in sys.modules
    plot_activations(["mish", "silu", "swish", "prelu", "relu6"], tmp_path / "f.png")
    assert (tmp_path / "f.png").stat().st_size > 10_000
    assert matplotlib.rcParams._get("backend") == before and ("matplotlib.pyplot" in sys.modules) == loaded
    with pytest.raises(YolomishError, match="cannot be written"):
        plot_activations(["mish"], tmp_path / "no" / "f.png")
