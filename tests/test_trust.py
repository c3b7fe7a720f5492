"""Opening a file runs no code: what a checkpoint, a YAML or an exported file names is not imported unless the user says so."""

import io
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from yolomish.activations import build_activation
from yolomish.commands import app
from yolomish.errors import YolomishError
from yolomish.inference.engines.exported import open_exported
from yolomish.trust import store, trust_file, trusting
from yolomish.weights.load import load_network
from yolomish.weights.store import DEMO_FILE

CPU = torch.device("cpu")
MISH = "import torch\nfrom pathlib import Path\nPath({0!r}).touch()\ndef f(x):\n    return torch.nn.functional.mish(x)\n"


@pytest.fixture
def own(tmp_path: Path) -> Path:
    """An activation file that leaves ``ran`` beside it when it is executed, and the demo's checkpoint ``w.pt`` that names it."""
    file = tmp_path / "own.py"
    file.write_text(MISH.format(str(tmp_path / "ran")))
    content = torch.load(DEMO_FILE, weights_only=True)
    content["config"]["model"]["activation"] = f"{file}:f"
    torch.save(content, tmp_path / "w.pt")
    return file


@pytest.mark.parametrize(
    "command",
    [
        "detect PICTURE --weights w.pt --no-save",
        "eval --weights w.pt",
        "export --weights w.pt --output w.onnx",
        "weights info w.pt",
        "weights export w.pt",
        "bench --weights w.pt --rounds 1",
        "info own.yaml",
        "train --model own.yaml --dry-run",
        "train --recipe own-recipe.yaml --dry-run",
        "landscape loss w.pt",
    ],
)
def test_a_file_that_another_file_names_is_not_imported(own: Path, monkeypatch: pytest.MonkeyPatch, command: str) -> None:
    monkeypatch.chdir(own.parent)
    (own.parent / "own.yaml").write_text(f"activation: {own}:f\nwidth: 0.1\ndepth: 0.1\n")
    (own.parent / "own-recipe.yaml").write_text(f"model:\n  activation: {own}:f\n")
    done = CliRunner().invoke(app, command.replace("PICTURE", str(own.parent / "no.jpg")).split())
    if "PICTURE" not in command:
        assert isinstance(done.exception, YolomishError) and "--trust" in str(done.exception), done.output
    assert not (own.parent / "ran").exists()


def test_trust_runs_it_now_and_later_until_it_changes(own: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(YolomishError, match=r"own.py is a Python file, and would run as you .*--act, or pass --trust"):
        load_network(str(own.parent / "w.pt"))
    with trusting():
        load_network(str(own.parent / "w.pt"))
    assert (own.parent / "ran").exists() and str(own) in store().read_text()
    monkeypatch.setenv("YOLOMISH_TRUSTED", "")  # another process, with the same home
    load_network(str(own.parent / "w.pt"))
    own.write_text(own.read_text() + "# changed\n")
    with pytest.raises(YolomishError, match="pass --trust"):
        load_network(str(own.parent / "w.pt"))


def test_what_is_named_on_the_command_line_runs(own: Path) -> None:
    done = CliRunner().invoke(app, ["acts", "--act", f"mish,{own}:f"])
    assert done.exit_code == 0 and (own.parent / "ran").exists()
    (own.parent / "ran").unlink()
    other = own.with_name("other.py")
    other.write_text(own.read_text() + "# other\n")
    swap = f"backbone={other}:f"
    assert CliRunner().invoke(app, ["info", "yolov4-n", "--swap", swap, "--no-layers"]).exit_code == 0
    assert (own.parent / "ran").exists()


def test_a_home_that_cannot_be_written_trusts_for_this_process_and_its_children(
    own: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (own.parent / "file").touch()
    monkeypatch.setenv("YOLOMISH_CONFIG", str(own.parent / "file" / "no-folder"))
    trust_file(own)
    build_activation(f"{own}:f")
    code = f"from yolomish.activations import build_activation; build_activation({f'{own}:f'!r})"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_checkpoint_records_its_activations_content(own: Path) -> None:
    from yolomish.config import TrainConfig
    from yolomish.weights.checkpoint import read_checkpoint, save_checkpoint

    with trusting():
        loaded = load_network(str(own.parent / "w.pt"))
    file = own.parent / "new.pt"
    config = TrainConfig(model=loaded.network.config)
    save_checkpoint(file, config=config, model=loaded.network, names=loaded.names)
    assert read_checkpoint(file)["activation_files"].keys() == {f"{own}:f"}
    own.write_text(own.read_text() + "# changed\n")
    with pytest.raises(YolomishError, match=r"new.pt was trained with other code in .*own.py than is there now"):
        read_checkpoint(file)


class _Runs:
    def __reduce__(self) -> tuple:
        return os.system, ("touch ran",)


def test_a_program_with_a_pickle_inside_is_not_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    program, content = torch.export.export(torch.nn.Linear(2, 2), (torch.zeros(1, 2),)), io.BytesIO()
    torch.export.save(program, "good.pt2", extra_files={"yolomish.json": "{}"})
    torch.save(_Runs(), content)
    with zipfile.ZipFile("good.pt2") as good, zipfile.ZipFile("bad.pt2", "w") as bad:
        for name in good.namelist():
            bad.writestr(name, content.getvalue() if "sample_inputs" in name else good.read(name))
    for name in ("bad.pt2", "good.pt2"):
        with pytest.raises(YolomishError, match=rf"{name} is a program \(.pt2\), and would run as you .*pass --trust"):
            open_exported(name, device=CPU)
    assert not Path("ran").exists()
    with trusting(), pytest.raises(YolomishError, match="description"):
        open_exported("good.pt2", device=CPU)


def test_a_torchscript_that_writes_a_file_is_not_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("mine.txt").write_text("mine, sixteen by")

    def write(x: torch.Tensor) -> torch.Tensor:
        return x + torch.from_file("mine.txt", True, 16, dtype=torch.uint8).fill_(65).sum()

    torch.jit.save(torch.jit.trace(write, torch.zeros(1)), "w.torchscript", _extra_files={"yolomish.json": "{}"})
    Path("mine.txt").write_text("mine, sixteen by")
    with pytest.raises(YolomishError, match="pass --trust"):
        open_exported("w.torchscript", device=CPU)
    assert Path("mine.txt").read_text() == "mine, sixteen by"


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("class f(torch.nn.Module):\n    def __init__(self, a): super().__init__()", "TypeError"),
        ("def f(x): raise ValueError('no')", "fails on a tensor: ValueError: no"),
        ("def f(x): return f(x)", "fails on a tensor: RecursionError"),
        ("def f(x): return x.double()", "returns .*float64 on cpu for .*float32"),
        ("def f(x): return None", "returns a NoneType, not a tensor"),
        ("def f(x): return x.numpy()", "returns a ndarray, not a tensor"),
        ("def f(x): return x[:, :1]", r"returns \(2, 1, 4, 4\)"),
    ],
)
@pytest.mark.usefixtures("trusted")
def test_an_activation_that_is_none_is_named(tmp_path: Path, body: str, message: str) -> None:
    (tmp_path / "a.py").write_text(f"import torch\n{body}\n")
    with pytest.raises(YolomishError, match=message):
        build_activation(f"{tmp_path}/a.py:f")
