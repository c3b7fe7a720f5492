"""Detect, from pictures of every kind to every output, through the command line and from Python, on small networks."""

import csv
import dataclasses
import io
import json
import subprocess
import sys
import threading
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from PIL import Image
from pycocotools.coco import COCO
from reference.builders import loaded_from
from typer.testing import CliRunner, Result

import yolomish
from yolomish.commands import app, main
from yolomish.config import ModelConfig, TrainConfig
from yolomish.config.settings import ResizeMode
from yolomish.darknet.weights import write_weights
from yolomish.darknet.write import write_cfg
from yolomish.data.images import read_image, write_image
from yolomish.drawing import boxes as draw
from yolomish.drawing.boxes import SMALLEST_TEXT, draw_detections
from yolomish.errors import YolomishError
from yolomish.inference.records import coco_ids
from yolomish.kernels import native
from yolomish.networks import Network, build_network
from yolomish.ops.decode import decode
from yolomish.tasks.detection.pipeline import Pipeline
from yolomish.tasks.detection.protocol import PROTOCOLS
from yolomish.types import Detections
from yolomish.weights.checkpoint import save_checkpoint
from yolomish.weights.load import load_network

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random network that finds something everywhere, its boxes moving with what it sees."""
    torch.manual_seed(0)
    config = TrainConfig(image_size=64, model=ModelConfig(num_classes=2, width=0.125, depth=0.1))
    model = build_network(config.model)
    with torch.no_grad():
        for head in model.head_layers:
            head.out.bias.fill_(1.0)
    path = tmp_path_factory.mktemp("weights") / "w.pt"
    save_checkpoint(path, config=config, model=model, names=("cat", "dog"))
    return path


def picture(seed: int = 0, size_hw: tuple[int, int] = (50, 81)) -> np.ndarray:
    low = np.random.default_rng(seed).integers(0, 255, (5, 7, 3), dtype=np.uint8)
    return cv2.resize(low, size_hw[::-1], interpolation=cv2.INTER_CUBIC)


def run(weights: Path, *arguments: object, stdin: bytes | str | None = None) -> Result:
    words = ["detect", *map(str, arguments), "--weights", str(weights), "--conf", "0.1"]
    return CliRunner().invoke(app, words, input=stdin)


def write_video(path: Path, frames: int, fps: float = 12.5, size_hw: tuple[int, int] = (48, 64)) -> None:
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"mp4v"), fps, size_hw[::-1])
    for i in range(frames):
        writer.write(picture(i, size_hw))
    writer.release()


def test_a_folder_of_mixed_junk_is_done_and_the_exit_code_and_names_say_what_failed(weights: Path, tmp_path: Path) -> None:
    images = tmp_path / "in"
    (images / "folder.jpg").mkdir(parents=True)
    write_image(images / "a b.png", picture())
    Image.fromarray(picture(1)).save(images / "ünï 图.webp")
    (images / "broken.jpg").write_text("junk")
    (images / "empty.png").touch()
    (images / "notes.md").write_text("# notes")
    (images / "gone.jpg").symlink_to(tmp_path / "nowhere.jpg")
    whole = io.BytesIO()
    Image.fromarray(picture(2, (400, 500))).save(whole, "png")
    (images / "cut.png").write_bytes(whole.getvalue()[:9000])
    out = tmp_path / "out"
    result = run(weights, images, "--output", out, "--save-json", "--save-csv", "--save-txt")
    assert result.exit_code == 1 and "Traceback" not in result.output, result.output
    for name in ("broken.jpg", "empty.png", "cut.png"):
        assert f"failed: {images / name} is" in result.stderr
    assert "3 of 5 sources failed" in result.stderr
    assert read_image(out / "a b.png").shape == read_image(out / "ünï 图.webp").shape == (50, 81, 3)
    table = list(csv.DictReader((out / "detections.csv").open(encoding="utf-8")))
    assert {Path(r["file"]).name for r in table} == {"a b.png", "ünï 图.webp"}
    assert all(0 <= float(r["x1"]) <= float(r["x2"]) <= 81 and 0 <= float(r["y1"]) <= float(r["y2"]) <= 50 for r in table)
    for name in ("broken.jpg", "empty.png", "cut.png"):
        (images / name).unlink()
    assert run(weights, images, "--output", out, "--classes", "dog").exit_code == 0
    assert (tmp_path / "out-2").is_dir()


def test_every_output_tells_the_same_boxes(weights: Path, tmp_path: Path) -> None:
    write_image(tmp_path / "a.png", picture())
    options = "--save-json --save-csv --save-txt --save-conf --save-crop --max-det 9 --json".split()
    result = run(weights, tmp_path / "a.png", "--output", tmp_path / "out", *options)
    assert result.exit_code == 0, result.output
    (line,) = [json.loads(text) for text in result.stdout.splitlines()]
    assert (line["width"], line["height"], len(line["detections"])) == (81, 50, 9)
    boxes = np.array([d["box"] for d in line["detections"]])
    scores = np.array([d["score"] for d in line["detections"]])
    coco = COCO(str(tmp_path / "out" / "detections.json"))
    assert coco.imgs[1]["file_name"] == str(tmp_path / "a.png") and coco.loadCats([1, 2])[1]["name"] == "dog"
    xywh = np.array([a["bbox"] for a in coco.dataset["annotations"]])
    np.testing.assert_allclose(np.hstack((xywh[:, :2], xywh[:, :2] + xywh[:, 2:])), boxes, atol=0.002)
    assert [a["category_id"] - 1 for a in coco.dataset["annotations"]] == [d["label"] for d in line["detections"]]
    table = list(csv.DictReader((tmp_path / "out" / "detections.csv").open()))
    np.testing.assert_allclose([[float(r[k]) for k in ("x1", "y1", "x2", "y2")] for r in table], boxes)
    txt = np.loadtxt(tmp_path / "out" / "labels" / "a.txt")
    centre, size = txt[:, 1:3] * [81, 50], txt[:, 3:5] * [81, 50]
    np.testing.assert_allclose(np.hstack((centre - size / 2, centre + size / 2)), boxes, atol=0.01)
    np.testing.assert_allclose(txt[:, 5], scores, atol=1e-6)
    crops = sorted((tmp_path / "out" / "crops").rglob("*.jpg"))
    assert len(crops) == 9 and read_image(tmp_path / "out" / "crops" / table[0]["class"] / "a-1.jpg").size
    assert all(len(row.split()) == 5 for row in _labels_without_scores(weights, tmp_path))


def _labels_without_scores(weights: Path, tmp_path: Path) -> list[str]:
    assert run(weights, tmp_path / "a.png", "--output", tmp_path / "plain", "--save-txt", "--no-save").exit_code == 0
    return (tmp_path / "plain" / "labels" / "a.txt").read_text().splitlines()


def test_coco_classes_get_cocos_ids_with_their_gaps() -> None:
    ids = coco_ids(yolomish.inference.records.COCO_NAMES)
    assert (len(ids), ids[0], ids[10], ids[11], ids[79]) == (80, 1, 11, 13, 90)
    assert coco_ids(["a", "b"]) == (1, 2)


def test_globs_lists_and_stdin_name_the_same_pictures(weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for i in range(3):
        write_image(tmp_path / f"p{i}.png", picture(i))
    Path("list.txt").write_text("# mine\np0.png\n\np1.png\np2.png\n")
    expected = run(weights, "p0.png", "p1.png", "p2.png", "--no-save", "--json").stdout
    assert len(expected.splitlines()) == 3
    assert run(weights, "p?.png", "p0.png", "--no-save", "--json").stdout == expected  # each once
    assert run(weights, "list.txt", "--no-save", "--json").stdout == expected
    assert run(weights, "-", "--no-save", "--json", stdin="p0.png\np1.png\np2.png\n").stdout == expected
    assert run(weights, "p?.png", "--no-save", "--json", "--batch", "2").stdout == expected
    (piped,) = run(weights, "-", "--no-save", "--json", stdin=Path("p0.png").read_bytes()).stdout.splitlines()
    assert json.loads(piped)["detections"] == json.loads(expected.splitlines()[0])["detections"]


def test_same_named_pictures_of_two_folders_keep_their_own_files(weights: Path, tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        write_image(tmp_path / name / "a.jpg", picture())
    assert run(weights, tmp_path / "one", tmp_path / "two", "--output", tmp_path / "out", "--save-txt").exit_code == 0
    assert sorted(p.name for p in (tmp_path / "out").rglob("a*")) == ["a-2.jpg", "a-2.txt", "a.jpg", "a.txt"]


@pytest.mark.parametrize("stride", [1, 3])
def test_a_video_comes_back_annotated_at_its_own_rate(weights: Path, tmp_path: Path, stride: int) -> None:
    write_video(tmp_path / "v.mp4", 10)
    options = ["--save-json", "--save-csv", "--vid-stride", stride, "--json"]
    result = run(weights, tmp_path / "v.mp4", "--output", tmp_path / "out", *options)
    assert result.exit_code == 0, result.output
    frames = [json.loads(line)["frame"] for line in result.stdout.splitlines()]
    assert frames == list(range(0, 10, stride))
    capture = cv2.VideoCapture(str(tmp_path / "out" / "v.mp4"))
    assert capture.get(cv2.CAP_PROP_FPS) == pytest.approx(12.5 / stride, rel=0.01)
    assert (capture.get(cv2.CAP_PROP_FRAME_WIDTH), capture.get(cv2.CAP_PROP_FRAME_HEIGHT)) == (64, 48)
    count = 0
    while capture.read()[0]:
        count += 1
    assert count == len(frames) == len(COCO(str(tmp_path / "out" / "detections.json")).imgs)


def test_a_video_that_breaks_off_gives_its_frames_and_fails(weights: Path, tmp_path: Path) -> None:
    path = tmp_path / "v.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 10, (64, 48))
    for i in range(20):
        writer.write(picture(i, (48, 64)))
    writer.release()
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    result = run(weights, path, "--output", tmp_path / "out", "--json")
    assert result.exit_code == 1 and 3 < len(result.stdout.splitlines()) < 20, result.output
    (tmp_path / "x.mp4").write_text("no video")
    result = run(weights, tmp_path / "x.mp4", "--output", tmp_path / "out")
    assert result.exit_code == 1 and "x.mp4 is not a video" in result.stderr


def test_nothing_to_do_is_said_before_any_work(weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "empty").mkdir()
    write_image(tmp_path / "a.png", picture())
    monkeypatch.delenv("DISPLAY", raising=False)
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    for arguments, message in (
        (["nothing*.png"], "no such file, folder or glob match"),
        ([tmp_path / "empty"], "holds no images or videos"),
        ([tmp_path / "a.png", "--show"], "--show needs a display"),
        ([tmp_path / "a.png", "--classes", "dgo"], "did you mean 'dog'"),
        ([tmp_path / "a.png", "--imgsz", "100"], "multiple of 32"),
        ([tmp_path / "a.png", "--names", tmp_path / "no.names"], "cannot be read"),
    ):
        result = run(weights, *arguments, "--output", tmp_path / "out")
        assert isinstance(result.exception, YolomishError) and message in str(result.exception), arguments
    assert not (tmp_path / "out").exists()
    code = "import sys; from yolomish.commands import main; sys.argv = ['yolomish', 'detect', 'nothing.jpg']; main()"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path, check=False)
    assert done.returncode == 2 and done.stderr == "yolomish: no such file, folder or glob match: nothing.jpg\n"


def test_a_pipe_that_closes_early_is_no_error(weights: Path, tmp_path: Path) -> None:
    write_video(tmp_path / "v.mp4", 40)
    command = (
        f"{sys.executable} -m yolomish detect v.mp4 --no-save --json --weights {weights} | head -n 1; echo ${{PIPESTATUS[0]}}"
    )
    done = subprocess.run(
        ["bash", "-c", command], capture_output=True, text=True, cwd=tmp_path, check=False, env={"PYTHONPATH": str(ROOT)}
    )
    assert done.stderr == "" and done.stdout.splitlines()[-1] == "0"


def same(a: Detections, b: Detections) -> bool:
    return all(torch.equal(getattr(a, k), getattr(b, k)) for k in ("boxes", "scores", "labels"))


def test_the_python_api_takes_paths_arrays_and_pil_alike(weights: Path, tmp_path: Path) -> None:
    detector = yolomish.Detector(weights, conf=0.1, device="cpu")
    image = picture()
    write_image(tmp_path / "a.png", image)
    found = detector.detect(image)
    assert len(found) and isinstance(found, yolomish.Detections) and detector.names == ("cat", "dog")
    rgba = np.dstack((image, np.full(image.shape[:2], 9, np.uint8)))
    for same_image in (tmp_path / "a.png", str(tmp_path / "a.png"), Image.fromarray(image), rgba, Image.fromarray(rgba)):
        assert same(detector.detect(same_image), found)
    grey = image[..., 0]
    assert same(detector.detect(grey), detector.detect(np.repeat(grey[..., None], 3, 2)))
    for bad in (image.astype(np.float32), np.zeros((0, 4, 3), np.uint8), np.zeros((3, 4, 5), np.uint8), 7):
        with pytest.raises(YolomishError, match="image"):
            detector.detect(bad)  # type: ignore[arg-type]


def test_a_batch_of_different_sizes_equals_its_images_one_by_one(weights: Path) -> None:
    detector = yolomish.Detector(weights, conf=0.1, device="cpu")
    images = [picture(0), picture(1, (200, 33)), picture(2, (1, 1)), picture(3, (3, 20_000))]
    assert detector.detect_batch([]) == []
    for image, together in zip(images, detector.detect_batch(images), strict=True):
        alone, (h, w) = detector.detect(image), image.shape[:2]
        assert len(alone) == len(together)
        torch.testing.assert_close(alone.boxes / max(h, w), together.boxes / max(h, w), atol=1e-4, rtol=1e-4)
        assert (together.boxes >= 0).all() and (together.boxes <= torch.tensor([w, h, w, h])).all()


def scored_boxes(network: Network, canvas: np.ndarray, scale_xy: tuple, pad_xy: tuple, size_hw: tuple) -> tuple:
    """Boxes (M, 4) in image px and scores (M, K) of all that a network sees in an image already at its size, by hand."""
    with torch.no_grad():
        decoded = decode(network(torch.from_numpy(canvas).permute(2, 0, 1)[None].float() / 255), network.heads)
    boxes = (decoded.boxes[0] - torch.tensor(pad_xy * 2)) / torch.tensor(scale_xy * 2)
    boxes = boxes.clamp(min=0).minimum(torch.tensor([*size_hw[::-1]] * 2))
    return boxes, decoded.objectness[0][:, None] * decoded.classes[0]


def assert_found_there(found: Detections, boxes: torch.Tensor, scores: torch.Tensor) -> None:
    assert len(found) > 20 and found.scores[0].item() == pytest.approx(scores.max().item(), abs=1e-4)
    for box, score, label in zip(found.boxes, found.scores, found.labels, strict=True):
        apart = torch.maximum((boxes - box).abs().amax(1) / 0.02, (scores[:, label] - score).abs() / 1e-4)
        assert apart.min() < 1


@pytest.mark.parametrize("size_hw", [(64, 96), (128, 32)])
def test_an_oblong_network_finds_things_where_its_maps_show_them(weights: Path, tmp_path: Path, size_hw: tuple[int, int]) -> None:
    image, (height, width) = picture(0, (50, 81)), size_hw
    write_image(tmp_path / "a.png", image)
    done = run(weights, tmp_path / "a.png", "--imgsz", f"{height}x{width}", "--no-save", "--json")
    assert done.exit_code == 0, done.output
    rows = json.loads(done.stdout)["detections"]
    found = Detections(
        **{f: torch.tensor([r[k] for r in rows]) for f, k in (("boxes", "box"), ("scores", "score"), ("labels", "label"))}
    )
    network = load_network(str(weights)).network
    stretched = cv2.resize(image, (width, height))
    assert_found_there(found, *scored_boxes(network, stretched, (width / 81, height / 50), (0, 0), (50, 81)))


def test_an_oblong_letterbox_is_undone_on_the_axis_that_it_pads(weights: Path) -> None:
    image = picture(0, (24, 48))
    for size_hw, factor in (((96, 64), 4 / 3), ((32, 96), 4 / 3), ((64, 96), 2)):
        loaded = loaded_from(load_network(str(weights)).network, ("cat", "dog"), resize="letterbox")
        h, w = round(24 * factor), round(48 * factor)
        top, left = (size_hw[0] - h) // 2, (size_hw[1] - w) // 2
        canvas = np.full((*size_hw, 3), 114, np.uint8)
        canvas[top : top + h, left : left + w] = cv2.resize(image, (w, h))
        found = yolomish.Detector(loaded, conf=0.1, device="cpu", image_size=size_hw).detect(image)
        assert_found_there(found, *scored_boxes(loaded.network, canvas, (factor, factor), (left, top), (24, 48)))


def test_a_protocol_means_to_detect_what_it_means_to_eval(weights: Path, tmp_path: Path) -> None:
    loaded, image = load_network(str(weights)), picture(0, (60, 81))
    write_image(tmp_path / "a.png", image)
    for name in PROTOCOLS:
        there = Pipeline(runner=loaded.network, protocol=PROTOCOLS[name], size_hw=(64, 64))
        (wanted,) = there.detect([image])
        detector = yolomish.Detector(loaded, protocol=name, engine="torch", device="cpu")
        found = detector.detect(image)
        assert detector.pipeline.protocol == there.protocol and len(found) == len(wanted) > 20, name
        torch.testing.assert_close(found.boxes, wanted.boxes, atol=1e-3, rtol=1e-4)
        torch.testing.assert_close(found.scores, wanted.scores, atol=1e-4, rtol=1e-4)
    options = ["--weights", str(weights), "--no-save", "--json", "--device", "cpu"]
    done = CliRunner().invoke(app, ["detect", str(tmp_path / "a.png"), *options, "--protocol", "ultralytics", "--max-det", "7"])
    best = yolomish.Detector(loaded, protocol="ultralytics", device="cpu").detect(image).scores[:7]
    assert [r["score"] for r in json.loads(done.stdout)["detections"]] == pytest.approx(best.tolist(), abs=1e-4)
    plain = yolomish.Detector(loaded, device="cpu").pipeline.protocol
    assert (plain.name, plain.conf, plain.iou, plain.max_det, plain.interpolation) == ("detect", 0.25, 0.45, 300, "linear")
    assert yolomish.Detector(loaded, conf=0.3, device="cpu").pipeline.protocol.name == "detect, changed"
    wrong = CliRunner().invoke(app, ["detect", str(tmp_path / "a.png"), *options, "--protocol", "darknet-tset"])
    assert isinstance(wrong.exception, YolomishError) and "did you mean 'darknet-test'" in str(wrong.exception)


@pytest.mark.parametrize(("resize", "name"), [("stretch", "darknet-test"), ("letterbox", "darknet-test-letterbox")])
def test_a_darknet_file_is_shown_as_darknet_shows_it(tmp_path: Path, resize: ResizeMode, name: str) -> None:
    network = loaded_from(build_network(ModelConfig(num_classes=2, width=0.125, depth=0.1)), (), size=64, resize=resize).network
    write_cfg(tmp_path / "n.cfg", network)
    write_weights(tmp_path / "n.weights", network)
    detector = yolomish.Detector(tmp_path / "n.weights", cfg=str(tmp_path / "n.cfg"), device="cpu")
    assert detector.pipeline.protocol == dataclasses.replace(PROTOCOLS[name], nms="greedy-diou")
    changed = yolomish.Detector(tmp_path / "n.weights", cfg=str(tmp_path / "n.cfg"), device="cpu", conf=0.1)
    assert changed.pipeline.protocol.name == f"{name}, changed" and changed.pipeline.protocol.conf == 0.1


@pytest.mark.parametrize("device", ["meta", "xpu", "mps", "gpu", "cuda:99"])
def test_a_device_that_is_not_here_is_one_line(
    weights: Path, tmp_path: Path, device: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    if device == "mps" and torch.backends.mps.is_available():
        pytest.skip("this machine has an Apple GPU")
    write_image(tmp_path / "a.png", picture())
    for command in (["detect", str(tmp_path / "a.png")], ["eval"], ["bench"]):
        monkeypatch.setattr(sys, "argv", ["yolomish", *command, "--weights", str(weights), "--device", device])
        with pytest.raises(SystemExit) as done:
            main()
        assert done.value.code == 2
        out, err = capsys.readouterr()
        assert out == "" and err.startswith("yolomish: ") and err.count("\n") == 1 and f"device '{device}'" in err, command


@pytest.mark.parametrize("engine", ["torch", "auto"])
def test_many_threads_get_what_one_gets(weights: Path, engine: str) -> None:
    detector = yolomish.Detector(weights, conf=0.1, device="cpu", engine=engine)
    images = [picture(i, (40 + 7 * i, 90 - 5 * i)) for i in range(8)]
    expected = [detector.detect(image) for image in images]
    wrong: list[int] = []

    def work() -> None:
        for i in list(range(8)) * 3:
            if not same(detector.detect(images[i]), expected[i]):
                wrong.append(i)

    threads = [threading.Thread(target=work) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


@pytest.mark.skipif(bool(native.native_missing()), reason=native.native_missing() or "-")
def test_kernels_choose_what_runs_mish(weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_image(tmp_path / "a.png", picture())
    options = [tmp_path / "a.png", "--engine", "torch", "--no-save", "--json"]
    found = [json.loads(run(weights, *options, "--kernels", kind).stdout)["detections"] for kind in ("auto", "eager")]
    assert [d["class"] for d in found[0]] == [d["class"] for d in found[1]] and found[0]
    wrong = run(weights, *options, "--kernels", "eagre")
    assert isinstance(wrong.exception, YolomishError) and "did you mean 'eager'" in str(wrong.exception)

    def fail(*_: object) -> None:
        raise AssertionError("the loop ran")

    monkeypatch.setattr(native, "value", fail)
    assert run(weights, *options, "--kernels", "eager").exit_code == 0
    assert "the loop ran" in str(run(weights, *options).exception)


def test_importing_the_package_imports_no_torch() -> None:
    code = "import sys, yolomish; assert 'Detector' in dir(yolomish); sys.exit(any(m in sys.modules for m in ('torch', 'cv2')))"
    assert subprocess.run([sys.executable, "-c", code], check=False, cwd=ROOT).returncode == 0
    with pytest.raises(AttributeError, match="Detecter"):
        yolomish.Detecter  # noqa: B018


def test_drawing_changes_a_copy_near_the_boxes() -> None:
    image = np.zeros((80, 90, 3), np.uint8)
    found = Detections(boxes=torch.tensor([[10.0, 30, 40, 60]]), scores=torch.ones(1), labels=torch.zeros(1).long())
    drawn = draw_detections(image, found, ["cat"])
    assert not image.any() and drawn.any() and not drawn[:, 75:].any() and not drawn[66:].any()


@pytest.mark.parametrize("size_hw", [(1, 1), (15, 20), (60, 90), (600, 20), (500, 700), (4000, 6000)])
def test_any_box_on_any_size_is_drawn_inside_it(size_hw: tuple[int, int]) -> None:
    h, w = size_hw
    boxes = torch.tensor([[0.0, 0, w, h], [w * 0.9, h * 0.9, w, h], [w / 2, h / 2, w / 2, h / 2], [-5, -5, w + 9, h + 9]])
    found = Detections(boxes=boxes, scores=torch.full((4,), 0.5), labels=torch.arange(4))
    drawn = draw_detections(np.full((h, w, 3), 128, np.uint8), found, ["größe", "x" * 99, "图", ""])
    assert drawn.shape == (h, w, 3) and (drawn != 128).any()
    assert (drawn[0, 0] != 128).any() and (drawn[-1, -1] != 128).any()


def test_a_letter_that_the_own_font_lacks_comes_from_one_that_has_it(monkeypatch: pytest.MonkeyPatch) -> None:
    def label(letter: str, fonts: tuple[str, ...]) -> np.ndarray:
        monkeypatch.setattr(draw, "SYSTEM_FONTS", fonts)
        draw._text_mask.cache_clear()
        draw._font_with.cache_clear()
        return draw._text_mask(f"a{letter} 0.5", 20)

    missing, there = "图", "\u2312"
    other = str(Path(draw._own_font()).with_name("STIXGeneral.ttf"))
    boxes = [label(letter, fonts) for letter, fonts in ((missing, ()), (there, ()), (missing, (other,)), (there, (other,)))]
    assert np.array_equal(boxes[0], boxes[1]) and np.array_equal(boxes[0], boxes[2])
    assert boxes[3].shape != boxes[0].shape or not np.array_equal(boxes[3], boxes[0])
    assert label("\n", ()).any()
    draw._text_mask.cache_clear()
    draw._font_with.cache_clear()


@pytest.mark.parametrize("colour", [(0, 0, 0), (255, 255, 255), (255, 0, 0), (0, 255, 0), (0, 0, 255), (128, 128, 128)])
def test_every_class_shows_on_every_background(colour: tuple[int, int, int]) -> None:
    background = np.full((200, 200, 3), colour, np.uint8)
    for label in range(80):
        found = Detections(boxes=torch.tensor([[60.0, 90, 140, 150]]), scores=torch.ones(1), labels=torch.tensor([label]))
        drawn = draw_detections(background, found, ["name"] * 80).astype(float)
        luminance = drawn @ (0.299, 0.587, 0.114)
        edge = luminance[120, 55:66]  # across the left line
        assert np.ptp(edge) > 60, (label, edge)
        text = luminance[90 - 2 * SMALLEST_TEXT : 89, 60:90]
        assert np.ptp(text) > 60, label
