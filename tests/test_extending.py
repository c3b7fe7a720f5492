"""What the pages for contributors say: the code in them is run as it stands there."""

import dataclasses
import re
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from conftest import randomise

from yolomish.config import DataConfig, from_dict, load_data_config, load_recipe, parse_yaml
from yolomish.config.settings import ModelConfig
from yolomish.darknet.network import read_cfg
from yolomish.darknet.weights import read_weights, write_weights
from yolomish.darknet.write import write_cfg
from yolomish.data import formats
from yolomish.errors import YolomishError
from yolomish.inference.engines import build_engine
from yolomish.networks import registry
from yolomish.training.loop import fit

DOCS = Path(__file__).resolve().parents[1] / "docs"


def block(page: str, language: str) -> str:
    """The first code block of a page in ``language``, without its indentation."""
    found = re.search(rf"^( *)```{language}\n(.*?)^\1```", (DOCS / page).read_text(encoding="utf-8"), re.M | re.S)
    assert found
    return re.sub(rf"^{found.group(1)}", "", found.group(2), flags=re.M)


def run(page: str) -> dict[str, Any]:
    names: dict[str, Any] = {"__name__": page}
    exec(block(page, "python"), names)
    return names


@torch.no_grad()
def test_the_network_of_the_page_swaps_and_is_exported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(registry.ARCHITECTURES, "plain", run("add-network.md")["Plain"])
    config = from_dict(ModelConfig, parse_yaml(block("add-network.md", "yaml"), "page"), "page")
    config = dataclasses.replace(config, num_classes=2, swap=("backbone=relu",))
    network = registry.build_network(config)
    assert network.activations("backbone") == ("relu",) and network.activations("head") == ("leaky_relu",)
    randomise(network)
    images = torch.rand(2, 3, 64, 96)
    (raw,) = network.eval()(images)
    assert raw.shape == (2, 21, 4, 6)
    write_cfg(tmp_path / "n.cfg", network)
    write_weights(tmp_path / "n.weights", network)
    again = registry.build_network(read_cfg(tmp_path / "n.cfg"))
    read_weights(tmp_path / "n.weights", again)
    torch.testing.assert_close(again.eval()(images)[0], raw, rtol=0, atol=1e-5)
    pytest.importorskip("onnxruntime", reason="ONNX Runtime is not installed")
    pytest.importorskip("onnx", reason="onnx is not installed")
    engine = build_engine("onnxruntime", network, device=torch.device("cpu"))
    torch.testing.assert_close(engine(images)[0], raw, rtol=0, atol=1e-4)


def test_the_network_of_the_page_trains(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(registry.ARCHITECTURES, "plain", run("add-network.md")["Plain"])
    model = from_dict(ModelConfig, parse_yaml(block("add-network.md", "yaml"), "page"), "page")
    data = dataclasses.replace(load_data_config("shapes"), fraction=0.02)
    config = dataclasses.replace(load_recipe("small", model), data=data, epochs=1, image_size=(64, 64))
    fit(config, tmp_path / "run")
    assert (tmp_path / "run" / "last.pt").exists()


def test_the_format_of_the_page_is_recognised_and_its_faults_are_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    table = run("add-format.md")["TABLE"]
    monkeypatch.setattr(formats, "FORMATS", {"table": table, **formats.FORMATS})
    (tmp_path / "images").mkdir()
    cv2.imwrite(str(tmp_path / "images" / "a.png"), np.zeros((40, 60, 3), np.uint8))
    rows = "image,class,x1,y1,x2,y2\na.png,dog,1,2,30,20\n"
    (tmp_path / "train.csv").write_text(rows + "a.png,cat,5,5,15.5,25\n", encoding="utf-8")
    (tmp_path / "val.csv").write_text(rows + "a.png,dog,1,x,3,4\nb.png,dog,1,2,3,4\n", encoding="utf-8")
    config = DataConfig(format="auto", root=str(tmp_path))
    assert formats.resolved(config).format == "table"
    train = formats.read_listing(config, "train")
    assert train.names == ("cat", "dog") and not train.findings
    (record,) = train.records
    assert record.boxes.tolist() == [[1, 2, 30, 20], [5, 5, 15.5, 25]] and record.labels.tolist() == [1, 0]
    assert record.size_hw == (40, 60)
    faults = {finding.check: finding.message for finding in formats.read_listing(config, "val").findings}
    assert "val.csv:3: 'x' is no number" in faults["annotation-malformed"] and "b.png" in faults["image-missing"]
    with pytest.raises(YolomishError, match="no test split"):
        formats.read_listing(config, "test")
