"""Darknet's formats against OpenCV's own reader, and round trips."""

import csv
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from conftest import randomise
from reference.networks import narrower

from yolomish.config import ModelConfig
from yolomish.darknet.network import read_cfg
from yolomish.darknet.order import file_order
from yolomish.darknet.weights import read_weights, write_weights
from yolomish.errors import YolomishError
from yolomish.networks import build_network
from yolomish.tasks.detection.protocol import find_protocol

SMALL = ModelConfig(name="small", width=0.25, depth=0.25, num_classes=3)


def small_model(seed: int = 0) -> torch.nn.Module:
    torch.manual_seed(seed)
    model = build_network(SMALL)
    randomise(model)
    return model


def test_yolov4_weights_file_has_the_published_size(tmp_path: Path) -> None:
    model = build_network(ModelConfig())
    write_weights(tmp_path / "whole.weights", model)
    assert (tmp_path / "whole.weights").stat().st_size == 257_717_640
    write_weights(tmp_path / "yolov4.conv.137", model, convolutions=92)
    assert (tmp_path / "yolov4.conv.137").stat().st_size == 170_038_676


@pytest.mark.parametrize("minor", [1, 2])
def test_write_read_write_is_bit_exact(tmp_path: Path, minor: int) -> None:
    first, second = small_model(1), small_model(2)
    write_weights(tmp_path / "a.weights", first, 12_345, minor=minor)
    header = read_weights(tmp_path / "a.weights", second)
    assert (header.images_seen, header.convolutions) == (12_345, header.total)
    write_weights(tmp_path / "b.weights", second, 12_345, minor=minor)
    assert (tmp_path / "a.weights").read_bytes() == (tmp_path / "b.weights").read_bytes()
    for key, value in first.state_dict().items():
        if not key.endswith("num_batches_tracked"):
            assert torch.equal(value, second.state_dict()[key]), key


def test_partial_file_loads_its_layers_and_leaves_the_rest(tmp_path: Path) -> None:
    first, second, untouched = small_model(1), small_model(2), small_model(2)
    write_weights(tmp_path / "part.conv", first, convolutions=10)
    assert read_weights(tmp_path / "part.conv", second).convolutions == 10
    layers = [list(file_order(m)) for m in (first, second, untouched)]
    assert torch.equal(layers[0][9].module.weight, layers[1][9].module.weight)
    assert torch.equal(layers[1][10].module.weight, layers[2][10].module.weight)


def test_truncated_long_and_foreign_files_name_the_layer_and_bytes(tmp_path: Path) -> None:
    model = small_model()
    before = {k: v.clone() for k, v in model.state_dict().items()}
    path = tmp_path / "x.weights"
    write_weights(path, model)
    whole = path.read_bytes()
    path.write_bytes(whole[:-48])
    with pytest.raises(YolomishError, match=r"48 bytes early at convolution .*head_layers\.2\.out"):
        read_weights(path, model)
    path.write_bytes(whole + b"12345678")
    with pytest.raises(YolomishError, match="8 more than"):
        read_weights(path, model)
    path.write_bytes(b"<html>404</html>" * 9)
    with pytest.raises(YolomishError, match="not a Darknet"):
        read_weights(path, model)
    assert all(torch.equal(before[k], v) for k, v in model.state_dict().items())


@pytest.mark.usefixtures("darknet_reader")
@pytest.mark.slow
def test_photographs_through_detect_equal_opencv_after_nms(tmp_path: Path, shared_data: Path) -> None:
    from typer.testing import CliRunner

    from yolomish.commands import app

    height_px, width_px, conf, iou = 256, 352, 0.8, 0.45
    cfg, weights = tmp_path / "n.cfg", tmp_path / "n.weights"
    text = (shared_data / "darknet-cfg" / "yolov4.cfg").read_text()
    cfg.write_text(narrower(text, 2).replace("height=608", f"height={height_px}").replace("width=608", f"width={width_px}"))
    model = build_network(read_cfg(cfg)).eval()
    randomise(model)
    photos = sorted((shared_data / "photos").glob("*.jpg"))
    pictures = np.stack([cv2.resize(cv2.imread(str(photo)), (width_px, height_px)) for photo in photos])
    inputs = torch.from_numpy(pictures).permute(0, 3, 1, 2).float() / 255
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                module.momentum = 0.9  # near the photographs' own statistics: maps follow what is seen, and stay smooth
        model.train()(inputs)
        model.eval()
        for result, raw in zip(model.results, model(inputs), strict=True):  # spread the scores: few above
            head = model.layers[result - 1]
            mean, gain = raw.mean((0, 2, 3)), 2 / raw.std((0, 2, 3))
            wanted = torch.full((3, 85), -8.0)
            wanted[:, 4] = 0
            scored = torch.arange(255) % 85 >= 4
            head.weight[scored] *= gain[scored, None, None, None]
            head.bias[scored] = (wanted.view(-1) - mean * gain)[scored]
    write_weights(weights, model)
    out = tmp_path / "out"
    options = f"--conf {conf} --iou {iou} --nms iou --max-det 10000 --save-csv --no-save --device cpu".split()
    command = ["detect", str(shared_data / "photos"), "--weights", str(weights), "--cfg", str(cfg), *options]
    done = CliRunner().invoke(app, [*command, "--output", str(out)])
    assert done.exit_code == 0, done.output
    ours = list(csv.DictReader((out / "detections.csv").open(encoding="utf-8")))
    net = cv2.dnn.readNetFromDarknet(str(cfg), str(weights))
    net.enableWinograd(False)  # its rounding shows in a network without training
    kept_boxes = candidates = 0
    for photo in photos:
        image = cv2.imread(str(photo))
        height, width = image.shape[:2]
        resized, _ = find_protocol("darknet-test").resize_image(image[..., ::-1], (height_px, width_px))  # not OpenCV's resize
        net.setInput(cv2.dnn.blobFromImage(np.ascontiguousarray(resized, np.float32), 1 / 255.0))
        rows = np.concatenate(net.forward(net.getUnconnectedOutLayersNames()))
        candidate, label = ((rows[:, 5:] > conf) & (rows[:, 4:5] > conf)).nonzero()
        box = rows[candidate, :4] * [width, height, width, height]
        corners = np.concatenate((box[:, :2] - box[:, 2:] / 2, box[:, 2:]), 1)
        scores = rows[candidate, 5 + label]
        kept = cv2.dnn.NMSBoxesBatched(corners.tolist(), scores.tolist(), label.tolist(), conf, iou)
        x1y1 = corners[kept, :2].clip(0, [width, height])
        x2y2 = (corners[kept, :2] + corners[kept, 2:]).clip(0, [width, height])
        theirs = np.concatenate((x1y1, x2y2, scores[kept, None], label[kept, None]), 1)
        found = [[*(float(d[k]) for k in ("x1", "y1", "x2", "y2", "score", "label"))] for d in ours if Path(d["file"]) == photo]
        mine = np.array(found).reshape(-1, 6)
        kept_boxes += len(mine)
        candidates += len(candidate)
        for one, other in ((mine, theirs), (theirs, mine)):  # each has its counterpart: px, score, class
            apart = np.abs(one[:, None] - other[None]) / [1, 1, 1, 1, 0.005, 0.5]
            matched = apart.max(2).min(1, initial=9) < 0.2
            assert (matched | (one[:, 4] < conf + 1e-3)).all()  # rounding decides those at the threshold itself
    assert candidates > kept_boxes > 100
