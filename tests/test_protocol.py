"""Evaluation as published: Darknet's resize, the named protocols, test-time views, backends, submissions, warnings."""

import dataclasses
import hashlib
import json
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from reference.darknet_image import resize_image as slow_resize
from test_errors import IDS, NAMES, random_case
from typer.testing import CliRunner

from yolomish.commands import app
from yolomish.config import DataConfig, ModelConfig, TrainConfig, load_data_config
from yolomish.data.datasets import DetectionData, open_data
from yolomish.data.images import write_image
from yolomish.data.transforms import darknet_resize, resize_image
from yolomish.errors import YolomishError
from yolomish.evaluation import provenance
from yolomish.evaluation.coco import evaluate
from yolomish.networks import build_network
from yolomish.ops.decode import decode_above
from yolomish.tasks.detection.predict import predict
from yolomish.tasks.detection.protocol import PROTOCOLS
from yolomish.tasks.detection.views import VIEWS, decode_views
from yolomish.weights import catalogue
from yolomish.weights.checkpoint import save_checkpoint


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)  # small operations, and a second thread waits for its turn on a busy machine


SMALL = ModelConfig(name="n", width=0.125, depth=0.25, num_classes=4, image_size=64)


@pytest.mark.parametrize(("old", "new"), [((17, 33), (64, 32)), ((50, 21), (32, 64)), ((1, 9), (32, 32)), ((32, 64), (32, 64))])
def test_darknet_resize_equals_the_loop(old: tuple[int, int], new: tuple[int, int]) -> None:
    image = np.random.default_rng(0).integers(0, 256, (*old, 2), dtype=np.uint8)
    expected = image if old == new else slow_resize(image, *new)
    np.testing.assert_allclose(darknet_resize(image, new), expected, atol=1e-4)


def test_darknet_resize_keeps_corners_and_its_dark_last_row() -> None:
    image = np.full((400, 40, 1), 200, np.uint8)
    dark = darknet_resize(image, (608, 64))
    assert dark[-1].max() < 1 and (dark[:-1] > 199.9).all()
    ramp = np.arange(48, dtype=np.uint8)[:, None, None].repeat(3, 1)
    tall = darknet_resize(ramp, (95, 3))[:, 0, 0]
    np.testing.assert_allclose(tall, np.arange(95) / 2, atol=1e-4)


def test_letterbox_fills_with_the_protocols_grey_and_keeps_to_its_long_side() -> None:
    image = np.zeros((30, 60, 3), np.uint8)
    canvas, resize = resize_image(image, (96, 96), "letterbox", grey=114, long_side=64)
    assert canvas[0, 0, 0] == 114 and resize.scale_x == pytest.approx(64 / 60) and (canvas == 0).all(2).sum() == 64 * 32


def test_protocols_state_the_published_numbers() -> None:
    darknet, letterbox = PROTOCOLS["darknet"], PROTOCOLS["letterbox"]
    assert (darknet.resize, darknet.conf, darknet.nms, darknet.iou, darknet.interpolation) == (
        "stretch",
        0.001,
        "greedy-diou",
        0.6,
        "darknet",
    )
    assert (letterbox.resize, letterbox.conf, letterbox.nms, letterbox.iou, letterbox.grey) == (
        "letterbox",
        0.001,
        "iou",
        0.65,
        114,
    )
    line = darknet.describe(87, "val", 416)
    assert "stretch (darknet) to 416 px" in line and "0.001" in line and "greedy-diou at 0.6" in line and "87 images" in line


def few_shapes(count: int = 3) -> DetectionData:
    """The first pictures of the built-in validation split."""
    data = open_data(load_data_config("shapes"), "val")
    return DetectionData(data._records[:count], data.names, data.category_ids, data.source)


@pytest.mark.parametrize("name", PROTOCOLS)
def test_every_protocol_sees_every_image(name: str) -> None:
    data = few_shapes()
    model = build_network(SMALL)
    settings = {k: v for k, v in dataclasses.asdict(PROTOCOLS[name]).items() if k != "name"} | {"conf": 0.0, "max_det": 2}
    found = predict(model, data, image_size=64, batch=2, **settings)
    assert {r["image_id"] for r in found} == set(data.image_ids) and len(found) == 2 * len(data)


@pytest.mark.parametrize("backend", ["faster", "hotcoco"])
@pytest.mark.parametrize("seed", [0, 1])
def test_backends_give_pycocotools_twelve_numbers(backend: str, seed: int) -> None:
    pytest.importorskip({"faster": "faster_coco_eval", "hotcoco": "hotcoco"}[backend])
    truth, found = random_case(seed, crowds=True)
    ours, theirs = (dataclasses.asdict(evaluate(truth, found, NAMES, IDS, backend=b)) for b in ("pycocotools", backend))
    assert theirs.pop("per_class_ap") == pytest.approx(ours.pop("per_class_ap"), abs=1e-12)
    assert theirs == pytest.approx(ours, abs=1e-12) and 0 < ours["ap"] < 1


def test_an_absent_backend_names_its_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "hotcoco", None)
    with pytest.raises(YolomishError, match="pip install hotcoco"):
        evaluate(*random_case(0), NAMES, IDS, backend="hotcoco")
    with pytest.raises(YolomishError, match="did you mean 'faster'"):
        evaluate(*random_case(0), NAMES, IDS, backend="fasterr")


def test_mirrored_images_give_mirrored_candidates_under_flip() -> None:
    model = build_network(SMALL).eval()
    images = torch.rand(2, 3, 64, 96)
    with torch.no_grad():
        there, mirrored = decode_views(model, images, "flip", 0.0), decode_views(model, images.flip(3), "flip", 0.0)
        plain = decode_above(model(images), model.heads, 0.0)
    for image in (0, 1):
        own = plain.boxes[plain.image == image]
        boxes, back = there.boxes[there.image == image], mirrored.boxes[mirrored.image == image]
        assert torch.equal(boxes[: len(own)], own) and len(boxes) == 2 * len(own)
        x0, x1 = 96 - back[len(own) :, 2], 96 - back[len(own) :, 0]  # its second view is the plain picture
        torch.testing.assert_close(torch.stack((x0, x1), -1), own[:, [0, 2]], atol=1e-3, rtol=1e-4)


def test_scaled_views_come_back_to_the_batchs_frame() -> None:
    model = build_network(SMALL).eval()
    for head in model.head_layers:
        torch.nn.init.zeros_(head.out.weight)
        torch.nn.init.zeros_(head.out.bias)
    with torch.no_grad():
        found = decode_views(model, torch.rand(1, 3, 96, 192), "multi-scale", 0.0).boxes
    centres = (found[:, :2] + found[:, 2:]) / 2
    sizes = ((96, 192), (64, 160), (64, 128))  # 0.83 and 0.67 in whole multiples of 32
    assert len(VIEWS["multi-scale"]) == 3
    counts = [sum(3 * (h // s) * (w // s) for s in (8, 16, 32)) for h, w in sizes]
    for part, (h, w) in zip(centres.split(counts), sizes, strict=True):
        step_x, step_y = 8 * 192 / w, 8 * 96 / h
        assert part[0].tolist() == pytest.approx([step_x / 2, step_y / 2], rel=1e-4)
        assert part.max(0).values.tolist() == pytest.approx([192 - step_x / 2, 96 - step_y / 2], rel=1e-4)


def coco_test_set(root: Path) -> DataConfig:
    """Two pictures without annotations, as COCO's test-dev."""
    (root / "test2017").mkdir(parents=True)
    images = [{"id": i, "file_name": f"{i}.png", "width": 40, "height": 30} for i in (7, 9)]
    for image in images:
        write_image(root / "test2017" / image["file_name"], np.full((30, 40, 3), 90, np.uint8))
    categories = [{"id": i, "name": n} for i, n in zip((1, 3, 7, 9), "abcd", strict=True)]
    (root / "image_info_test-dev2017.json").write_text(json.dumps({"images": images, "categories": categories}))
    (root / "data.yaml").write_text(
        "format: coco\nroot: .\ntest: image_info_test-dev2017.json\ntest_images: test2017\nval: image_info_test-dev2017.json\n"
        "val_images: test2017\n"
    )
    return load_data_config(str(root / "data.yaml"))


def test_test_dev_gives_a_submission_and_no_metrics(tmp_path: Path) -> None:
    config = coco_test_set(tmp_path)
    assert not open_data(config, "test").annotated
    with pytest.raises(YolomishError, match="annotations"):
        open_data(config, "val")
    weights = tmp_path / "best.pt"
    model = build_network(SMALL)
    save_checkpoint(weights, config=TrainConfig(model=SMALL, image_size=64), model=model, names=tuple("abcd"))
    options = ["--weights", str(weights), "--data", str(tmp_path / "data.yaml"), "--split", "test", "--name", "my net/1"]
    result = CliRunner().invoke(app, ["eval", *options, "--output", str(tmp_path / "out")], catch_exceptions=False)
    assert result.exit_code == 0 and "server" in result.output
    name = "detections_test-dev2017_my-net-1_results"
    with zipfile.ZipFile(tmp_path / "out" / f"{name}.zip") as archive:
        assert archive.namelist() == [f"{name}.json"]
        found = json.loads(archive.read(f"{name}.json"))
    assert {r["image_id"] for r in found} <= {7, 9} and {r["category_id"] for r in found} <= {1, 3, 7, 9}
    assert not (tmp_path / "out" / "metrics.json").exists()


def test_official_weights_meeting_val2017_are_warned_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, content in (("a.weights", b"official"), ("b.weights", b"retrained"), ("c.weights", b"officiaL"), ("best.pt", b"")):
        (tmp_path / name).write_bytes(content)
    official = dataclasses.replace(catalogue.PUBLISHED[0], size=8, sha1=hashlib.sha1(b"official").hexdigest())
    monkeypatch.setattr(catalogue, "PUBLISHED", (official,))
    shapes = few_shapes()
    val2017 = DetectionData(shapes._records, shapes.names, shapes.category_ids, Path("instances_val2017.json"))
    renamed = DetectionData(shapes._records, shapes.names, shapes.category_ids, Path("mine.json"))
    renamed.image_ids = (*provenance.VAL2017_IDS, 4)
    for data in (val2017, renamed):
        assert "official yolov4.weights" in provenance.warning(str(tmp_path / "a.weights"), data)
        assert provenance.warning(str(tmp_path / "b.weights"), data).startswith("note: if")
        assert provenance.warning(str(tmp_path / "c.weights"), data).startswith("note: if")
        assert not provenance.warning(str(tmp_path / "best.pt"), data)
    assert not provenance.warning(str(tmp_path / "a.weights"), shapes)


def test_eval_writes_metrics_pictures_and_tables(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("yolomish.data.datasets.open_data", lambda config, split: few_shapes())
    weights = tmp_path / "best.pt"
    model = build_network(SMALL)
    save_checkpoint(weights, config=TrainConfig(model=SMALL, image_size=64), model=model, names=tuple("abcd"))
    options = ["--weights", str(weights), "--tta", "flip", "--conf", "0.02", "--json", "--output", str(tmp_path / "out")]
    result = CliRunner().invoke(app, ["eval", *options], catch_exceptions=False)
    assert result.exit_code == 0
    content = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert content["tta"] == "flip" and content["protocol"]["conf"] == 0.02 and content["images"] == 3
    errors = json.loads((tmp_path / "out" / "errors.json").read_text())
    assert errors["ap"] == pytest.approx(content["ap50"], abs=1e-9)
    for name in ("pr_curves.png", "f1_curves.png", "confusion_matrix.png", "errors.png"):
        assert (tmp_path / "out" / name).stat().st_size > 5000
    wrong = CliRunner().invoke(app, ["eval", "--weights", str(weights), "--protocol", "darknett"])
    assert isinstance(wrong.exception, YolomishError) and "did you mean 'darknet'" in str(wrong.exception)
