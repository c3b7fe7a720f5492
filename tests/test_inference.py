"""Detect, end to end through the command line, on a random small network."""

import json
from pathlib import Path

import numpy as np
import torch
from typer.testing import CliRunner

from yolomish.commands import app
from yolomish.config import ModelConfig, TrainConfig
from yolomish.data.images import read_image, write_image
from yolomish.inference.draw import draw_detections
from yolomish.models import build_model
from yolomish.training.checkpoint import save_checkpoint
from yolomish.types import Detections


def checkpoint(path: Path) -> None:
    config = TrainConfig(image_size=64, model=ModelConfig(num_classes=2, width=0.125, depth=0.1))
    model = build_model(config.model)
    with torch.no_grad():
        for head in model.head_layers:
            head.out.bias.fill_(1.0)
    save_checkpoint(path, config=config, model=model, names=("cat", "dog"))


def test_a_broken_file_is_skipped_the_rest_done_and_the_exit_code_says_so(tmp_path: Path) -> None:
    checkpoint(tmp_path / "w.pt")
    images = tmp_path / "in"
    images.mkdir()
    write_image(images / "a b.png", np.random.default_rng(0).integers(0, 255, (50, 81, 3), dtype=np.uint8))
    (images / "broken.jpg").write_text("junk")
    command = ["detect", str(images), "--weights", str(tmp_path / "w.pt"), "--output", str(tmp_path / "out"), "--conf", "0.1"]
    result = CliRunner().invoke(app, [*command, "--save-json", "--save-csv", "--save-txt"])
    assert result.exit_code == 1, result.output
    assert read_image(tmp_path / "out" / "a b.png").shape == (50, 81, 3)
    rows = json.loads((tmp_path / "out" / "detections.json").read_text())
    assert rows and all(0 <= r["x1"] <= r["x2"] <= 81 and 0 <= r["y1"] <= r["y2"] <= 50 for r in rows)
    assert len((tmp_path / "out" / "detections.csv").read_text().splitlines()) == len(rows) + 1
    assert len((tmp_path / "out" / "a b.png.txt").read_text().splitlines()) == len(rows)
    (images / "broken.jpg").unlink()
    assert CliRunner().invoke(app, [*command, "--classes", "dog"]).exit_code == 0
    assert (tmp_path / "out-2").is_dir()


def test_drawing_changes_a_copy_near_the_boxes() -> None:
    image = np.zeros((80, 90, 3), np.uint8)
    found = Detections(boxes=torch.tensor([[10.0, 30, 40, 60]]), scores=torch.ones(1), labels=torch.zeros(1).long())
    drawn = draw_detections(image, found, ["cat"])
    assert not image.any() and drawn.any() and not drawn[:, 75:].any() and not drawn[66:].any()
