"""Evaluation as published: Darknet's resize, the named protocols, test-time views, backends, submissions, warnings."""

import dataclasses
import hashlib
import json
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from reference.coco_cases import IDS, NAMES, random_case
from reference.darknet_image import resize_image as slow_resize
from torchvision.ops import box_iou
from typer.testing import CliRunner

from yolomish.commands import app
from yolomish.config import DataConfig, ModelConfig, TrainConfig, load_data_config
from yolomish.darknet.network import read_cfg
from yolomish.data.datasets import DetectionData, open_data
from yolomish.data.images import write_image
from yolomish.data.transforms import apply_resize, darknet_resize, resize_image
from yolomish.errors import YolomishError
from yolomish.evaluation import provenance
from yolomish.evaluation.coco import evaluate
from yolomish.networks import Network, build_network
from yolomish.networks.registry import outline
from yolomish.ops.decode import decode_above
from yolomish.ops.nms import Selection, select
from yolomish.tasks.detection.pipeline import Pipeline
from yolomish.tasks.detection.predict import predict
from yolomish.tasks.detection.protocol import PROTOCOLS, EvalProtocol, training_protocol
from yolomish.tasks.detection.views import VIEWS, decode_views
from yolomish.weights import catalogue
from yolomish.weights.checkpoint import save_checkpoint
from yolomish.weights.load import load_network

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
    assert (darknet.resize, darknet.conf, darknet.nms, darknet.iou, darknet.interpolation, darknet.nms_frame) == (
        "stretch",
        0.001,
        "own",
        0.6,
        "darknet",
        "image",
    )
    shown = PROTOCOLS["darknet-test"]
    assert (shown.conf, shown.iou, shown.nms_frame, shown.resize) == (0.25, 0.45, "relative", "stretch")
    assert (letterbox.resize, letterbox.conf, letterbox.nms, letterbox.iou, letterbox.grey) == (
        "letterbox",
        0.001,
        "iou",
        0.65,
        114,
    )
    line = darknet.of(build_network(SMALL).heads).describe(87, "val", (416, 416))
    greys = {name: protocol.grey for name, protocol in PROTOCOLS.items() if protocol.resize == "letterbox"}
    darknets = {"darknet-letterbox": 127.5, "darknet-test-letterbox": 127.5}
    assert greys == darknets | {"letterbox": 114, "scaled-yolov4": 114, "ultralytics": 114}
    assert training_protocol(build_network(SMALL).input).grey == 114
    assert (
        "stretch (darknet) to 416 px" in line
        and "0.001" in line
        and "greedy-diou at 0.6 in image px" in line
        and "87 images" in line
    )
    assert "at most 10000 boxes per image" in line
    assert "no limit per image" in darknet.changed(max_det=0).describe(1, "val", (416, 416))


def test_a_cfgs_own_suppression_is_taken_and_said(shared_data: Path) -> None:
    cfgs = shared_data / "darknet-cfg"
    for name, kind, beta in (("yolov4-tiny", "greedy-diou", 0.6), ("yolov3-tiny", "iou", 0.6), ("yolov4x-mish", "diou", 0.6)):
        (head, *_) = heads = outline(read_cfg(cfgs / f"{name}.cfg")).heads
        assert (head.nms, head.beta_nms) == (kind, beta)
        protocol = PROTOCOLS["darknet"].of(heads)
        assert (protocol.nms, protocol.beta_nms) == (kind, beta)
        assert f"NMS {kind}" in protocol.describe(1, "val", (416, 416))
        assert PROTOCOLS["letterbox"].of(heads) == PROTOCOLS["letterbox"]
        assert PROTOCOLS["darknet"].changed(nms="iou").of(heads).nms == "iou"


@pytest.mark.parametrize("frame", ["network", "image", "relative"])
def test_boxes_suppress_one_another_in_the_protocols_frame(frame: str) -> None:
    protocol = EvalProtocol(name="x", resize="letterbox", conf=0.1, iou=0.5, nms_frame=frame)
    _, resize = protocol.resize_image(np.zeros((60, 240, 3), np.uint8), (96, 192))
    x, y = protocol.frame(resize)
    box = np.array([[10.0, 20.0, 30.0, 50.0]])
    there = (apply_resize(box, resize) - [resize.pad_x, resize.pad_y] * 2) * [x, y, x, y]
    wanted = {"network": box * 0.8, "image": box, "relative": box / [240, 60, 240, 60]}[frame]
    np.testing.assert_allclose(there, wanted, rtol=1e-5)


@pytest.mark.parametrize("size", [(480, 640), (427, 640), (640, 427), (333, 500), (500, 500), (1080, 1920), (3, 700)])
def test_darknets_letterbox_rounds_down(size: tuple[int, int]) -> None:
    protocol, image = PROTOCOLS["darknet-letterbox"], np.zeros((*size, 3), np.uint8)
    canvas, resize = protocol.resize_image(image, (416, 608))
    h, w = size
    new_h, new_w = (h * 608 // w, 608) if 608 / w < 416 / h else (416, w * 416 // h)  # src/image.c letterbox_image
    rows, columns = (canvas[..., 0] == 0).any(1).nonzero()[0], (canvas[..., 0] == 0).any(0).nonzero()[0]
    assert (len(rows), len(columns)) == (new_h, new_w) and (rows[0], columns[0]) == ((416 - new_h) // 2, (608 - new_w) // 2)
    assert canvas.dtype == np.float32 and canvas.max() == (0 if (new_h, new_w) == (416, 608) else 127.5)
    # src/yolo_layer.c correct_yolo_boxes: x of the network's width -> of the image's
    x = ((0.3 - (608 - new_w) / 2 / 608) / (new_w / 608)) * w
    assert (0.3 * 608 - resize.pad_x) / resize.scale_x == pytest.approx(x)


def few_shapes(count: int = 3) -> DetectionData:
    """The first pictures of the built-in validation split."""
    return open_data(load_data_config("shapes"), "val").first(count)


@pytest.mark.parametrize("name", PROTOCOLS)
def test_every_protocol_sees_every_image(name: str) -> None:
    data = few_shapes()
    model = build_network(SMALL)
    protocol = dataclasses.replace(PROTOCOLS[name], conf=0.0, max_det=2)
    found = predict(Pipeline(runner=model, protocol=protocol, size_hw=(64, 64)), data, batch=2)
    assert {r["image_id"] for r in found} == set(data.image_ids) and len(found) == 2 * len(data)


def test_without_a_terminal_progress_is_lines(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    pipeline = Pipeline(runner=build_network(SMALL), protocol=PROTOCOLS["letterbox"], size_hw=(64, 64))
    predict(pipeline, few_shapes(), batch=2, progress=True)
    assert capsys.readouterr().err == ""  # it took no ten seconds
    monkeypatch.setattr("yolomish.tasks.detection.predict.REPORT_EVERY", 0.0)
    predict(pipeline, few_shapes(), batch=2, progress=True)
    first, last = capsys.readouterr().err.splitlines()
    assert first.startswith("evaluate: 2 of 3 images, ") and last.startswith("evaluate: 3 of 3 images, ")
    predict(pipeline, few_shapes(), batch=2)
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("backend", ["faster", "hotcoco"])
@pytest.mark.parametrize("seed", [0, 1])
def test_backends_give_pycocotools_twelve_numbers(backend: str, seed: int) -> None:
    pytest.importorskip({"faster": "faster_coco_eval", "hotcoco": "hotcoco"}[backend])
    truth, found = random_case(seed, crowds=True)
    ours, theirs = (evaluate(truth, found, NAMES, IDS, backend=b) for b in ("pycocotools", backend))
    assert theirs.per_class == pytest.approx(ours.per_class, abs=1e-12)
    assert theirs.values == pytest.approx(ours.values, abs=1e-12) and len(ours.values) == 12 and 0 < ours.score < 1


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
    val2017 = DetectionData(dataclasses.replace(shapes.listing, source=Path("instances_val2017.json")))
    renamed = DetectionData(dataclasses.replace(shapes.listing, source=Path("mine.json")))
    renamed.image_ids = (*provenance.VAL2017_IDS, 785)
    for data in (val2017, renamed):
        assert "official yolov4.weights" in provenance.warning(str(tmp_path / "a.weights"), data)
        assert provenance.warning(str(tmp_path / "b.weights"), data).startswith("note: if")
        assert provenance.warning(str(tmp_path / "c.weights"), data).startswith("note: if")
        assert not provenance.warning(str(tmp_path / "best.pt"), data)
    assert not provenance.warning(str(tmp_path / "a.weights"), shapes)


def small_weights(folder: Path, monkeypatch: pytest.MonkeyPatch, objectness: float = -4.6) -> Path:
    """Weights of a random network with that objectness logit; `eval` then sees the first three of the built-in pictures alone."""
    monkeypatch.setattr("yolomish.inference.evaluate.open_data", lambda config, split: few_shapes())
    config = TrainConfig(model=SMALL, image_size=64)
    model = build_network(SMALL)
    for head in model.head_layers:
        head.out.bias.data.view(3, -1)[:, 4] = objectness
    save_checkpoint(folder / "best.pt", config=config, model=model, names=few_shapes().names)
    return folder / "best.pt"


def run_eval(weights: Path, out: Path, *options: str) -> tuple[dict, list[dict], set[tuple[int, ...]]]:
    """metrics.json, results.json and the sizes at which the network ran."""
    sizes = set()

    def see(module: torch.nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
        if isinstance(module, Network):
            sizes.add(tuple(inputs[0].shape[2:]))

    command = ["eval", "--weights", str(weights), "--output", str(out), "--no-plots", *options]
    with torch.nn.modules.module.register_module_forward_pre_hook(see):
        result = CliRunner().invoke(app, command, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return json.loads((out / "metrics.json").read_text()), json.loads((out / "results.json").read_text()), sizes


@pytest.mark.parametrize("size_hw", [(64, 96), (128, 32)])
def test_an_oblong_eval_finds_what_the_network_finds_at_that_size(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size_hw: tuple[int, int]
) -> None:
    weights, data, (height, width) = small_weights(tmp_path, monkeypatch), few_shapes(), size_hw
    content, results, sizes = run_eval(weights, tmp_path / "out", "--imgsz", f"{height}x{width}")
    assert sizes == {size_hw} and content["image_size_hw"] == [height, width]
    network = load_network(str(weights)).network
    for index, image_id in enumerate(data.image_ids):
        image = data.load(index).image
        stretched = torch.from_numpy(darknet_resize(image, size_hw)).permute(2, 0, 1)[None] / 255
        with torch.no_grad():
            maps = network(stretched)
        h, w = image.shape[:2]
        there = decode_above(maps, network.heads, 0.001)
        there = dataclasses.replace(there, boxes=there.boxes * torch.tensor([w / width, h / height] * 2))
        (truth,) = select(there, 1, Selection(conf=0.001, iou=0.6, max_det=0))
        corners = truth.boxes.clamp(min=0).minimum(torch.tensor([w, h] * 2))
        theirs = torch.cat((corners[:, :2], corners[:, 2:] - corners[:, :2]), 1)
        rows = [r for r in results if r["image_id"] == image_id]
        assert len(rows) == len(truth) > 100
        assert [data.category_ids.index(r["category_id"]) for r in rows] == truth.labels.tolist()
        torch.testing.assert_close(torch.tensor([r["bbox"] for r in rows]), theirs, atol=1e-2, rtol=1e-4)


def test_zeros_and_noes_given_to_eval_are_obeyed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    weights, base = small_weights(tmp_path, monkeypatch), ("--protocol", "scaled-yolov4")
    content, usual, sizes = run_eval(weights, tmp_path / "usual", *base)
    assert content["protocol"] == dataclasses.asdict(PROTOCOLS["scaled-yolov4"]) | {"classes": []}
    assert sizes == {(96, 96)}  # a square in rectangles: half a stride of padding, in whole strides
    content, found, sizes = run_eval(weights, tmp_path / "square", *base, "--no-rect")
    assert content["protocol"]["rect"] is False and sizes == {(64, 64)} and found != usual
    faint = small_weights(tmp_path, monkeypatch, objectness=-8)
    assert run_eval(faint, tmp_path / "none", *base)[1] == []
    content, found, _ = run_eval(faint, tmp_path / "all", *base, "--conf", "0")
    assert content["protocol"]["conf"] == 0 and len(found) == 3 * 300 and max(r["score"] for r in found) < 0.001
    weights = small_weights(tmp_path, monkeypatch)
    content, found, _ = run_eval(weights, tmp_path / "apart", *base, "--iou", "0")
    assert content["protocol"]["iou"] == 0 and len(found) < len(usual)
    for key in {(r["image_id"], r["category_id"]) for r in found}:
        x, y, w, h = torch.tensor([r["bbox"] for r in found if (r["image_id"], r["category_id"]) == key]).T
        boxes = torch.stack((x, y, x + w, y + h), 1)
        overlap = box_iou(boxes, boxes).nan_to_num(0).fill_diagonal_(0)  # boxes in the grey are left without area
        assert overlap.max() < 1e-3
    for options, message in (
        (("--conf", "1.5"), "conf must be between 0 and 1"),
        (("--iou", "-1"), "iou must be between"),
        (("--rect",), "--no-rect"),
        (("--tta", "flop"), "did you mean 'flip'"),
    ):
        wrong = CliRunner().invoke(app, ["eval", "--weights", str(weights), *options])
        assert isinstance(wrong.exception, YolomishError) and message in str(wrong.exception), options


def test_eval_writes_metrics_pictures_and_tables(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    weights = small_weights(tmp_path, monkeypatch)
    options = ["--weights", str(weights), "--tta", "flip", "--conf", "0.02", "--json", "--output", str(tmp_path / "out")]
    result = CliRunner().invoke(app, ["eval", *options], catch_exceptions=False)
    assert result.exit_code == 0
    content = json.loads((tmp_path / "out" / "metrics.json").read_text())
    protocol = content["protocol"]
    assert (protocol["name"], protocol["tta"], protocol["conf"]) == ("darknet, changed", "flip", 0.02)
    assert content["images"] == 3 and content["image_size_hw"] == [64, 64]
    errors = json.loads((tmp_path / "out" / "errors.json").read_text())
    assert errors["ap"] == pytest.approx(content["AP50"], abs=1e-9)
    for name in ("pr_curves.png", "f1_curves.png", "confusion_matrix.png", "errors.png"):
        assert (tmp_path / "out" / name).stat().st_size > 5000
    wrong = CliRunner().invoke(app, ["eval", "--weights", str(weights), "--protocol", "darknett"])
    assert isinstance(wrong.exception, YolomishError) and "did you mean 'darknet'" in str(wrong.exception)
