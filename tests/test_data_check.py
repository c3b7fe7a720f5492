"""The data doctor finds each planted fault, shows it, and calls nothing alike that is not."""

import base64
import contextlib
import io
import json
import re
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image
from pycocotools.coco import COCO
from scipy.fft import dct
from typer.testing import CliRunner

from yolomish.commands import app
from yolomish.config import DataConfig, load_data_config
from yolomish.data.check import CHECKS, check_data, counts, examine
from yolomish.data.datasets import open_data
from yolomish.data.formats import read_listing
from yolomish.data.images import read_image
from yolomish.data.near import NEAR, alike, distances, perceptual_hash
from yolomish.data.report import WHY
from yolomish.data.shapes import generate
from yolomish.errors import YolomishError

AREAS = {"small": [0, 32**2 - 1e-6], "medium": [32**2, 96**2 - 1e-6], "large": [96**2, 1e10]}


def picture(path: Path, seed: int, *, size_wh: tuple[int, int] = (60, 40), orientation: int = 1) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 255, (size_wh[1], size_wh[0], 3), dtype=np.uint8)
    image = Image.fromarray(pixels)
    exif = image.getexif()
    exif[0x0112] = orientation
    image.save(path, exif=exif)


def coco_set(root: Path, faults: bool) -> DataConfig:
    """Three training pictures and two for validation; with ``faults``, one of every kind."""
    for split, numbers in (("train", (1, 2, 3)), ("val", (11, 12))):
        for n in numbers:
            picture(root / split / f"{n}.jpg", n, orientation=6 if faults and n == 2 else 1)
        images = [{"id": n, "file_name": f"{n}.jpg", "width": 60, "height": 40} for n in numbers]
        annotations = [
            {"id": n, "image_id": n, "category_id": 1 + n % 2, "bbox": [5, 5, 20, 20], "area": 400, "iscrowd": 0} for n in numbers
        ]
        content = {"images": images, "annotations": annotations, "categories": [{"id": i, "name": f"c{i}"} for i in (1, 2)]}
        if faults and split == "train":
            boxes = [[5, 5, 0, 10], [30, 20, 50, 10], [100, 5, 10, 10], [5, 5, 20, 20]]
            annotations += [{"id": 50 + i, "image_id": 1, "category_id": 2, "bbox": b} for i, b in enumerate(boxes)]
            annotations += [{"id": 60, "image_id": 1, "category_id": 9, "bbox": [1, 1, 5, 5]}]
            annotations += [{"id": 61, "image_id": 1, "category_id": 1, "bbox": [1, 1, 5]}]
            images += [{"id": i, "file_name": f"{i}.jpg", "width": 60, "height": 40} for i in (4, 5, 6)]
            (root / "train" / "5.jpg").write_bytes((root / "train" / "1.jpg").read_bytes()[:400])
            shutil.copy(root / "train" / "3.jpg", root / "train" / "6.jpg")
            content["categories"].append({"id": 3, "name": "never"})
        if faults and split == "val":
            images += [{"id": 3, "file_name": "3.jpg"}]
            shutil.copy(root / "train" / "3.jpg", root / "val" / "3.jpg")
        (root / f"{split}.json").write_text(json.dumps(content))
    lines = "format: coco\ntrain: train.json\ntrain_images: train\nval: val.json\nval_images: val\n"
    (root / "data.yaml").write_text(lines)
    return load_data_config(str(root / "data.yaml"))


def test_a_sound_data_set_has_no_findings(tmp_path: Path) -> None:
    assert check_data(coco_set(tmp_path, faults=False)) == []


def test_every_planted_fault_is_found_and_nothing_else(tmp_path: Path) -> None:
    findings = check_data(coco_set(tmp_path, faults=True))
    found = {check: [f.message for f in findings if f.check == check] for check in CHECKS}
    expected = {
        "annotation-malformed": ["annotation 61"],
        "image-missing": ["4.jpg"],
        "image-unreadable": ["5.jpg"],
        "size-differs": ["2.jpg"],
        "label-unknown": ["annotation 60"],
        "box-outside": ["annotation 52"],
        "classes-reordered": ["val.json does not number its classes as"],
        "split-overlap-content": ["3.jpg"],
        "box-degenerate": ["annotation 50"],
        "box-clipped": ["annotation 51"],
        "box-duplicate": ["1.jpg: 2 times"],
        "image-duplicate": ["6.jpg equals"],
        "exif-rotated": ["2.jpg"],
        "class-empty": ["never"],
    }
    for check, parts in expected.items():
        assert len(found[check]) == len(parts), (check, found[check])
        assert all(part in message for part, message in zip(parts, found[check], strict=True)), (check, found[check])
    assert "swapped" in found["size-differs"][0] and not found["split-unreadable"] and len(found["image-empty"]) == 2
    assert [f.check for f in findings] == sorted((f.check for f in findings), key=list(CHECKS).index)
    assert counts(findings)["error"] == 7


def test_equal_ids_in_two_files_are_no_overlap(tmp_path: Path) -> None:
    config = coco_set(tmp_path, faults=False)
    content = json.loads((tmp_path / "val.json").read_text())
    for key, field in (("images", "id"), ("annotations", "image_id")):
        for item in content[key]:
            item[field] -= 10
    (tmp_path / "val.json").write_text(json.dumps(content))
    assert open_data(config, "val").image_ids == (1, 2) and check_data(config) == []


def test_opening_raises_the_first_error_that_check_lists(tmp_path: Path) -> None:
    config = coco_set(tmp_path, faults=True)
    for split in ("train", "val"):
        errors = [f.message for f in read_listing(config, split).findings if f.severity == "error"]
        assert errors == [f.message for f in check_data(config) if f.severity == "error" and f.message in errors]
        if errors:
            with pytest.raises(YolomishError, match=re.escape(errors[0])):
                open_data(config, split)
        else:
            assert len(open_data(config, split)) == 3


def test_fast_reads_no_pixels_but_finds_sizes(tmp_path: Path) -> None:
    checks = {f.check for f in check_data(coco_set(tmp_path, faults=True), fast=True)}
    assert "size-differs" in checks and "image-duplicate" not in checks and "split-overlap-content" not in checks


def test_yolo_lines_are_named(tmp_path: Path) -> None:
    for n in (1, 2):
        picture(tmp_path / "images" / f"{n}.png", n)
        (tmp_path / "labels").mkdir(exist_ok=True)
    (tmp_path / "labels" / "1.txt").write_text("0 .5 .5 .2 .2\n7 .5 .5 .2 .2\nzero .5 .5 .2 .2\n0 .9 .5 .4 .2\n")
    findings = check_data(DataConfig(format="yolo", root=str(tmp_path), train="images", val="images", names=("a",)))
    train = {f.check: f.message for f in findings if f.split == "train"}
    assert "1.txt:2: class '7'" in train["label-unknown"] and "1.txt:3" in train["annotation-malformed"]
    assert "1.txt:4" in train["box-clipped"]
    assert [f.message[:10] for f in findings if f.check == "split-overlap-file"] == ["all 2 imag"]
    assert not any("equals" in f.message for f in findings)


def test_all_three_splits_are_held_against_each_other(tmp_path: Path) -> None:
    for split, seeds in (("train", (1, 2)), ("val", (3, 4)), ("test", (5, 2))):
        for i, seed in enumerate(seeds):
            picture(tmp_path / split / f"{split}{i}.png", seed)
            (tmp_path / split / f"{split}{i}.txt").write_text("0 .5 .5 .2 .2\n")
    config = DataConfig(format="yolo", root=str(tmp_path), train="train", val="val", test="test", names=("a",))
    (leak,) = check_data(config)
    assert (leak.check, leak.split) == ("split-overlap-content", "train, test")
    assert leak.image == tmp_path / "test" / "test1.png" and leak.other == tmp_path / "train" / "train1.png"


def photo(rng: np.random.Generator, size_wh: tuple[int, int] = (320, 240)) -> np.ndarray:
    """(H, W, 3) uint8 with the spectrum of photographs."""
    image = np.zeros((size_wh[1], size_wh[0], 3))
    for octave in range(1, 7):
        image += cv2.resize(rng.normal(0, 2.0**-octave, (2**octave, 2**octave, 3)), size_wh, interpolation=cv2.INTER_CUBIC)
    return (128 + 90 * image).clip(0, 255).astype(np.uint8)


def test_the_hash_is_the_dct_of_a_small_grey_picture() -> None:
    image = photo(np.random.default_rng(0), (32, 32))
    grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY).astype(np.float64)
    low = dct(dct(grey, axis=0, norm="ortho"), axis=1, norm="ortho")[:16, :16]
    hashed = perceptual_hash(image)
    assert hashed is not None
    np.testing.assert_array_equal(np.unpackbits(hashed.view(np.uint8)).reshape(16, 16), low > np.median(low))
    assert perceptual_hash(np.full((40, 50, 3), 130, np.uint8)) is None  # nothing to recognise


def test_the_search_finds_what_comparing_all_finds() -> None:
    rng = np.random.default_rng(0)
    hashes = rng.integers(0, 2**63, (600, 4), dtype=np.uint64)
    for i in range(300, 600):  # an earlier one with 10 to 40 bits turned over
        bits = np.unpackbits(hashes[i - 300].view(np.uint8))
        bits[rng.choice(256, rng.integers(10, 41), replace=False)] ^= 1
        hashes[i] = np.packbits(bits).view(np.uint64)
    differ = np.unpackbits((hashes[:, None] ^ hashes[None]).view(np.uint8), axis=2).sum(2)
    near = np.tril(differ <= NEAR, -1)
    found = alike(hashes)
    np.testing.assert_array_equal(found >= 0, near.any(1))
    assert all(near[i, j] for i, j in enumerate(found) if j >= 0) and 100 < (found >= 0).sum() < 200
    other = alike(hashes[300:], hashes[:300])
    np.testing.assert_array_equal(other >= 0, (differ[300:, :300] <= NEAR).any(1))
    np.testing.assert_array_equal(distances(hashes[5], hashes), differ[5])
    assert not len(alike(hashes[:0])) and (alike(hashes[:3], hashes[:0]) == -1).all()


def test_a_picture_is_known_again_after_what_happens_to_pictures(tmp_path: Path) -> None:
    original = photo(np.random.default_rng(1))
    changed = {
        "smaller": cv2.resize(original, (160, 120), interpolation=cv2.INTER_AREA),
        "brighter": (original * 1.15 + 10).clip(0, 255).astype(np.uint8),
        "noisy": (original + np.random.default_rng(2).normal(0, 8, original.shape)).clip(0, 255).astype(np.uint8),
    }
    Image.fromarray(original).save(tmp_path / "train.png")
    Image.fromarray(original).save(tmp_path / "jpeg.jpg", quality=50)
    for name, image in changed.items():
        Image.fromarray(image).save(tmp_path / f"{name}.png")
    names = ("jpeg.jpg", *(f"{name}.png" for name in changed))
    (tmp_path / "train.txt").write_text("train.png\n")
    (tmp_path / "val.txt").write_text("\n".join(names))
    Image.fromarray(photo(np.random.default_rng(3))).save(tmp_path / "other.png")
    (tmp_path / "other.txt").write_text("other.png\n")
    config = DataConfig(format="yolo", root=str(tmp_path), train="train.txt", val="val.txt", test="other.txt", names=("a",))
    found = [f for f in check_data(config) if f.check == "split-overlap-near"]
    assert {f.image.name for f in found if f.image} == set(names) and {f.split for f in found} == {"train, val"}


def test_different_pictures_are_not_called_alike(tmp_path: Path, shared_data: Path) -> None:
    generate(tmp_path)
    for folder, count in ((tmp_path, 500), (shared_data / "coco-mini", 159)):
        files = sorted(folder.rglob("*.jpg"))
        hashes = np.array([perceptual_hash(read_image(file)) for file in files])
        assert len(files) == count and (alike(hashes) == -1).all()


def test_bccds_two_splits_share_one_field_of_view(shared_data: Path) -> None:
    """Two photographs of the same cells, one a little later: which a person sees too."""
    found = check_data(DataConfig(format="voc", root=str(shared_data / "bccd")))
    (leak,) = [f for f in found if f.check == "split-overlap-near"]
    assert leak.image and leak.other and (leak.image.stem, leak.other.stem) == ("BloodImage_00037", "BloodImage_00038")


def test_tiny_boxes_are_found_at_the_networks_size(tmp_path: Path) -> None:
    config = coco_set(tmp_path, faults=False)
    content = json.loads((tmp_path / "val.json").read_text())
    content["annotations"] += [
        {"id": 90 + i, "image_id": 11, "category_id": 1, "bbox": [30, 20, w, h]} for i, (w, h) in enumerate([(4, 8), (3, 9)])
    ]
    (tmp_path / "val.json").write_text(json.dumps(content))
    tiny = lambda size, **more: [f for f in examine(config, size_hw=size, **more).findings if f.check == "box-tiny"]  # noqa: E731
    (found,) = tiny((40, 40))  # 60 x 40 px: widths become 2.67 and 2 px
    assert "annotation 91: c0 of 2.0x9.0 px at 40 px, the smallest of 2" in found.message.replace("c1", "c0")
    assert found.box == (30, 20, 33, 29) and found.image == tmp_path / "val" / "11.jpg"
    assert not tiny((60, 60)) and len(tiny((40, 60), keep_aspect=True)) == 0 and len(tiny((20, 60), keep_aspect=True)) == 1


def test_a_summary_counts_what_pycocotools_counts(shared_data: Path) -> None:
    root = shared_data / "coco-mini"
    config = DataConfig(format="coco", root=str(root), train="", val="annotations/instances_val2017.json", val_images="val2017")
    summary = examine(config, fast=True).summaries["val"]
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO(str(root / "annotations" / "instances_val2017.json"))
    boxes = [a for a in truth.loadAnns(truth.getAnnIds()) if not a["iscrowd"]]
    by_name = {c["name"]: c["id"] for c in truth.loadCats(truth.getCatIds())}
    for item in summary.classes:
        assert item.boxes == sum(a["category_id"] == by_name[item.name] for a in boxes)
        assert item.images == len({a["image_id"] for a in boxes if a["category_id"] == by_name[item.name]})
    areas = {name: len(truth.getAnnIds(areaRng=r, iscrowd=False)) for name, r in AREAS.items()}
    assert summary.by_area == areas and summary.boxes == len(boxes) and summary.images == 79
    assert summary.crowds == len(truth.getAnnIds(iscrowd=True)) and sum(n for *_, n in summary.image_sizes) == 79


def test_bccds_two_degenerate_boxes_are_found(shared_data: Path) -> None:
    findings = check_data(DataConfig(format="voc", root=str(shared_data / "bccd")), fast=True)
    assert sorted((f.check, f.split) for f in findings) == [("box-degenerate", "train"), ("box-degenerate", "val")]


def test_the_report_holds_a_picture_of_each_finding(tmp_path: Path) -> None:
    coco_set(tmp_path / "<bad>", faults=True)
    out = tmp_path / "out"
    command = ["data", "check", str(tmp_path / "<bad>" / "data.yaml"), "--output", str(out)]
    result = CliRunner().invoke(app, command, catch_exceptions=False)
    assert result.exit_code == 1 and result.output.splitlines()[-1] == f"wrote {out}: report.html, report.json"
    page = (out / "report.html").read_text()
    assert "http" not in page and "<bad>" not in page and "&lt;bad&gt;" in page  # fetches nothing, escapes names
    content = json.loads((out / "report.json").read_text())
    assert set(content["checks"]) == set(re.findall(r'<h2 id="([^"]+)"', page)) <= set(WHY)
    outside = next(f for f in content["findings"] if f["check"] == "box-outside")
    assert outside["image"].endswith("1.jpg") and outside["box"] == [100, 5, 110, 15]
    assert content["splits"]["train"]["images"] == 6 and content["splits"]["train"]["classes"][2]["boxes"] == 0
    section = page.split('id="box-outside"')[1].split("<h2")[0]
    raw = np.frombuffer(base64.b64decode(section.split("base64,")[1].split('"')[0]), np.uint8)
    shown = cv2.cvtColor(cv2.imdecode(raw, cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB).astype(int)
    red = np.argwhere((shown[..., 0] > 150) & (shown[..., 1:] < 90).all(2))
    grey = (np.abs(shown - 114) < 12).all(2).mean()
    assert len(red) > 20 and red[:, 1].min() > shown.shape[1] / 3 and grey > 0.2  # drawn, right of the picture
    assert set(WHY) == set(CHECKS)
    again = CliRunner().invoke(app, command, catch_exceptions=False)
    assert f"wrote {out}-2" in again.output


def test_check_exits_by_severity(tmp_path: Path) -> None:
    coco_set(tmp_path / "bad", faults=True)
    coco_set(tmp_path / "good", faults=False)
    run = lambda *options: CliRunner().invoke(app, ["data", "check", *options, "--output", ""])  # noqa: E731
    bad = str(tmp_path / "bad" / "data.yaml")
    assert run(str(tmp_path / "good" / "data.yaml"), "--strict").exit_code == 0
    assert run(bad).exit_code == 1
    assert run(bad, "--only", "exif-rotated").exit_code == 0 and run(bad, "--only", "exif-rotated", "--strict").exit_code == 1
    content = json.loads(run(bad, "--json").output)
    assert content["counts"]["error"] == 7 and content["findings"][0]["severity"] == "error"
    assert "did you mean" in str(run(bad, "--only", "exif-rotate").exception)
