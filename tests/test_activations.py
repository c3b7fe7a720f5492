"""The contract that every registered activation inherits, and Mish against its float64 formula."""

from pathlib import Path

import numpy as np
import pytest
import torch

from yolomish.activations import activation_names, build_activation
from yolomish.errors import YolomishError

NAMES = activation_names()
SMOOTH = ("mish", "silu", "swish", "gelu", "softplus", "tanh", "linear")


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
        x = torch.tensor([[-4.5, -2.5, -1.3, -0.4, 0.3, 1.1, 2.7, 4.9]], dtype=torch.float64).T.requires_grad_()
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

    def test_input_is_left_alone_and_compile_gives_the_same(self, name: str) -> None:
        act, x = build_activation(name), torch.randn(2, 3, 4, 4)
        before = x.clone()
        with torch.autocast("cpu", dtype=torch.bfloat16):
            assert act(x).isfinite().all()
        torch._dynamo.reset()  # each function is a recompilation of one forward
        expected = act(x)
        assert torch.equal(x, before)
        torch.testing.assert_close(torch.compile(act, fullgraph=True, backend="eager")(x), expected)


def test_mish_equals_its_float64_formula_and_minimum() -> None:
    x = np.linspace(-30, 30, 4001)
    truth = x * np.tanh(np.logaddexp(0, x))
    np.testing.assert_allclose(build_activation("mish")(torch.from_numpy(x)).numpy(), truth, rtol=1e-12, atol=1e-15)
    assert truth.min() == pytest.approx(-0.30884, abs=1e-5)
    assert x[truth.argmin()] == pytest.approx(-1.1924, abs=0.02)


def test_hand_values() -> None:
    x = torch.tensor([-3.0, -2.0, -1.0, 0.0, 2.0])
    assert build_activation("hard_mish")(x).tolist() == [0, 0, -0.5, 0, 2]
    torch.testing.assert_close(build_activation("leaky_relu")(x), torch.tensor([-0.3, -0.2, -0.1, 0, 2]))


def test_own_activation_by_file_and_errors(tmp_path: Path) -> None:
    file = tmp_path / "my.py"
    file.write_text("def squareplus(x):\n    return (x + (x * x + 4).sqrt()) / 2\n\nnumber = 3\n")
    assert build_activation(f"{file}:squareplus")(torch.zeros(1)).item() == 1
    for name, message in (
        (f"{file}:none", "has no 'none'"),
        (f"{file}:number", "not a function"),
        (f"{tmp_path}/no.py:f", "does not exist"),
        ("mihs", "did you mean 'mish'"),
    ):
        with pytest.raises(YolomishError, match=message):
            build_activation(name)


def test_activation_of_an_installed_package_is_listed_and_built(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "theirs.py").write_text('def squareplus(x):\n    """Theirs."""\n    return (x + (x * x + 4).sqrt()) / 2\n')
    info = tmp_path / "theirs-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: theirs\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[yolomish.activations]\nsquareplus = theirs:squareplus\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    assert "squareplus" in activation_names()
    assert build_activation("squareplus")(torch.zeros(1)).item() == 1
