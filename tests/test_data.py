"""Data: frames, formats, augmentation and order."""

import dataclasses
import hashlib
import json
import os
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from reference.augment import darknet_mosaic

from yolomish.config import DataConfig, TrainConfig
from yolomish.data.augment import Place, affine, crop, cutmix, flip, hsv, join_tiles, mixup, mosaic, random_margins, tile_place
from yolomish.data.datasets import open_data
from yolomish.data.images import read_image, write_image
from yolomish.data.loader import eval_loader, largest_size, smallest_step, step_size, steps_per_epoch, train_loader
from yolomish.data.shapes import generate
from yolomish.data.streams import Use, stream
from yolomish.data.transforms import apply_resize, resize_image, undo_resize
from yolomish.errors import YolomishError
from yolomish.types import Detections, InputSpec, Sample

SPEC = InputSpec(size_hw=(96, 96), stride=32)
CONFIG = TrainConfig(image_size=(96, 96), batch=4, workers=0, epochs=2)


def red_square(x: int = 30, y: int = 40) -> Sample:
    image = np.full((100, 140, 3), 90, np.uint8)
    image[y : y + 30, x : x + 30] = (255, 0, 0)
    box = np.array([[x, y, x + 30, y + 30]], np.float32)
    return Sample(image=image, boxes=box, labels=np.zeros(1, np.int64), image_id=1)


def yolo_folder(root: Path, count: int = 6) -> DataConfig:
    for kind in ("images", "labels"):
        (root / kind).mkdir(parents=True, exist_ok=True)
    for i in range(count):
        sample = red_square(10 + 12 * i, 20 + 5 * i)
        write_image(root / "images" / f"{i}.png", sample.image)
        cx, cy = (10 + 12 * i + 15) / 140, (20 + 5 * i + 15) / 100
        (root / "labels" / f"{i}.txt").write_text(f"0 {cx} {cy} {30 / 140} {30 / 100}\n")
    return DataConfig(format="yolo", root=str(root), train="images", val="images", names=("square",))


@pytest.mark.parametrize("mode", ["stretch", "letterbox"])
@pytest.mark.parametrize("shape", [(37, 91), (200, 33), (64, 64)])
@pytest.mark.parametrize("size_hw", [(64, 64), (32, 96), (96, 64)])
def test_resize_round_trip_is_identity(mode: str, shape: tuple[int, int], size_hw: tuple[int, int]) -> None:
    h, w = shape
    boxes = np.array([[0, 0, w, h], [3, 5, 20, 30]], np.float32)
    image, resize = resize_image(np.zeros((h, w, 3), np.uint8), size_hw, mode, grey=114)
    assert image.shape == (*size_hw, 3)
    found = Detections(boxes=torch.from_numpy(apply_resize(boxes, resize)), scores=torch.ones(2), labels=torch.zeros(2).long())
    np.testing.assert_allclose(undo_resize(found, resize).boxes.numpy(), boxes, atol=1e-3)


def test_flipping_twice_is_identity() -> None:
    sample = red_square()
    twice = flip(flip(sample))
    assert np.array_equal(twice.image, sample.image) and np.array_equal(twice.boxes, sample.boxes)


@pytest.mark.parametrize("size_hw", [(96, 96), (64, 128), (128, 96)])
def test_boxes_follow_their_pixels_through_jitter_and_mosaic(size_hw: tuple[int, int]) -> None:
    for seed in range(20):
        rng = np.random.default_rng(seed)
        moved = crop(red_square(), random_margins(red_square(), rng, size_hw, CONFIG), size_hw)
        plain = dataclasses.replace(CONFIG, hue=0.0, saturation=1.0, exposure=1.0)
        tiles = mosaic(red_square(), red_square, rng, size_hw, plain, grey=114)
        bent = dataclasses.replace(plain, geometry="affine", degrees=5, translate=0.1, scale=0.3, shear=3, resize="letterbox")
        single = affine([red_square()], rng, size_hw, dataclasses.replace(bent, degrees=0, shear=0), grey=114)
        straight = dataclasses.replace(bent, degrees=0, shear=0, perspective=1e-4)
        four = mosaic(red_square(), red_square, rng, size_hw, straight, grey=114)
        pasted = cutmix(single, moved, rng)
        for sample in (moved, tiles, single, four, pasted):
            assert sample.image.shape == (*size_hw, 3)
            red = (sample.image[..., 0] > 200) & (sample.image[..., 1] < 60)
            covered = np.zeros_like(red)
            for x0, y0, x1, y1 in sample.boxes:
                covered[int(y0) : int(np.ceil(y1)), int(x0) : int(np.ceil(x1))] = True
                inside = red[round(y0) + 1 : round(y1) - 1, round(x0) + 1 : round(x1) - 1]
                assert sample is pasted or inside.size == 0 or inside.mean() > 0.8  # a pasted window hides
            assert red[~covered].sum() <= 0.12 * max(red.sum(), 1) + 60


@pytest.mark.parametrize("resize", ["stretch", "letterbox"])
def test_the_strongest_jitter_leaves_a_tenth_of_each_side_and_its_boxes(resize: str) -> None:
    config = dataclasses.replace(CONFIG, jitter=1.0, resize=resize)
    whole = Sample(
        image=np.full((100, 140, 3), 90, np.uint8),
        boxes=np.array([[0, 0, 140, 100]], np.float32),
        labels=np.zeros(1, np.int64),
        image_id=1,
    )
    least, seen = 1.0, 0
    for seed in range(300):
        margins = random_margins(whole, np.random.default_rng(seed), (64, 96), config)
        left = 1 - margins.reshape(2, 2).sum(1) / (140, 100)
        least = min(least, left.min())
        if resize == "letterbox":
            assert np.isclose(left[0] * 140 / (left[1] * 100), 96 / 64)
        shows_it = (margins[:2] < (1 - 0.02) * 140).all() and (margins[2:] < (1 - 0.02) * 100).all()
        seen += bool(shows_it)
        assert not shows_it or len(crop(whole, margins, (64, 96)).boxes) == 1
    assert np.isclose(least, 0.1) and seen > 250


@pytest.mark.parametrize("size_hw", [(7, 14), (1, 2), (30, 41), (1080, 1920)])
def test_added_margins_have_the_mean_colour_as_numpy_rounds_it(size_hw: tuple[int, int]) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (*size_hw, 3), dtype=np.uint8)
    halves = np.arange(size_hw[0] * size_hw[1] * 3).reshape(*size_hw, 3) // 3 % 2 + np.array([0, 1, 254])  # 0.5, 1.5, 254.5
    for image in (pixels, halves.astype(np.uint8), np.full_like(pixels, 255)):
        whole = Sample(image=image, boxes=np.zeros((0, 4), np.float32), labels=np.zeros(0, np.int64), image_id=1)
        added = crop(whole, np.array([-size_hw[1], 0.0, -size_hw[0], 0.0]), (64, 64)).image
        np.testing.assert_array_equal(added[0, 0], np.rint(image.mean((0, 1))))


@pytest.mark.parametrize("size_hw", [(416, 416), (320, 608), (72, 88)])
def test_a_mosaic_of_what_is_needed_equals_that_of_whole_tiles_to_the_bit(
    size_hw: tuple[int, int], shared_data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = open_data(DataConfig(format="voc", root=str(shared_data / "bccd")), "train")

    other = data.load(8)

    def mosaics() -> list[Sample]:
        return [mosaic(data.load(i), lambda: other, stream(Use.AUGMENT, i), size_hw, CONFIG, grey=0) for i in range(8)]

    def all_of_it(*given: Any) -> Place:
        return dataclasses.replace(tile_place(*given), needed=(0, 0, *size_hw[::-1]))

    fast = mosaics()
    monkeypatch.setattr("yolomish.data.augment.tile_place", all_of_it)
    for part, whole in zip(fast, mosaics(), strict=True):
        np.testing.assert_array_equal(part.image, whole.image)
        np.testing.assert_array_equal(part.boxes, whole.boxes)


@pytest.mark.parametrize(("zoom", "low", "high"), [(1.5, -0.25, 1 / 6), (0.5, -0.5, 0.0)])
def test_zoom_moves_left_with_top_and_right_with_bottom_in_darknets_bounds(zoom: float, low: float, high: float) -> None:
    # src/data.c load_data_detection: (1 - 1/resize_down)/2 to (1 - 1/resize_up)/2 of the sides, by resize_r1 and resize_r2
    config = dataclasses.replace(CONFIG, jitter=0.0, zoom=zoom, resize="stretch")
    draws = [random_margins(red_square(), np.random.default_rng(seed), (64, 96), config) for seed in range(400)]
    h, w = red_square().image.shape[:2]
    shares = np.array(draws) / (w, w, h, h)
    assert np.allclose(shares[:, :2], shares[:, 2:]) and not np.allclose(shares[:, 0], shares[:, 1])
    assert np.allclose((shares.min(), shares.max()), (low, high), atol=0.02) and low <= shares.min() and shares.max() <= high


def test_mosaic_tiles_meet_where_darknets_do() -> None:
    rng = np.random.default_rng(0)
    for _ in range(20):
        images = rng.integers(0, 255, (4, 32, 32, 3), np.uint8)
        corners = rng.integers(0, 22, (4, 5, 2))
        boxes = np.concatenate((corners, corners + rng.integers(1, 10, (4, 5, 2))), 2).astype(np.float32)
        paddings, cut = rng.integers(0, 20, (4, 2)), rng.integers(6, 26, 2)
        places = [tile_place(i, paddings[i], cut, (32, 32)) for i in range(4)]
        needed = [images[i, y0:y1, x0:x1] for i, (x0, y0, x1, y1) in enumerate(place.needed for place in places)]
        tiles = [Sample(image=needed[i], boxes=boxes[i], labels=np.arange(5), image_id=0) for i in range(4)]
        joined = join_tiles(tiles, places, (32, 32))
        slow = [(images[i, ..., 0], [(k, *b) for k, b in enumerate(boxes[i].tolist())], paddings[i].tolist()) for i in range(4)]
        image, expected = darknet_mosaic(slow, *cut.tolist())
        assert (joined.image[..., 0] == image).all()
        assert [(k, *b) for k, b in zip(joined.labels.tolist(), joined.boxes.tolist(), strict=True)] == expected


def test_a_turned_box_encloses_its_pixels() -> None:
    for seed in range(20):
        config = dataclasses.replace(CONFIG, geometry="affine", degrees=30.0, shear=10.0, scale=0.2, translate=0.0)
        sample = affine([red_square()], np.random.default_rng(seed), (96, 96), config, grey=114)
        rows, columns = np.nonzero((sample.image[..., 0] > 200) & (sample.image[..., 1] < 60))
        x0, y0, x1, y1 = sample.boxes[0]
        assert x0 - 1 <= columns.min() and columns.max() <= x1 and y0 - 1 <= rows.min() and rows.max() <= y1


def test_mixup_keeps_the_boxes_of_both() -> None:
    a, b = red_square(10, 10), red_square(60, 50)
    mixed = mixup(a, b, np.random.default_rng(0))
    assert len(mixed.boxes) == len(mixed.labels) == 2
    assert 90 < mixed.image[15, 15, 0] < 255 and 90 < mixed.image[55, 65, 0] < 255 and mixed.image[5, 5, 0] == 90


@pytest.mark.parametrize(("size", "low", "high"), [(512, 384, 736), (608, 480, 896)])
def test_multi_scale_has_darknets_range(size: int, low: int, high: int) -> None:
    config = dataclasses.replace(CONFIG, image_size=(size, size), multi_scale=1.4)
    sizes = [step_size(step, 20_000, config, 32) for step in range(10, 19_000, 10)]
    assert (min(sizes), max(sizes)) == ((low, low), (high, high)) and all(s % 32 == 0 for s, _ in sizes)
    assert step_size(0, 20_000, config, 32) == step_size(19_950, 20_000, config, 32) == (high, high)
    assert all(step_size(20 + i, 20_000, config, 32) == step_size(20, 20_000, config, 32) for i in range(10))


def test_multi_scale_draws_one_factor_for_both_sides_as_darknet_does() -> None:
    config = dataclasses.replace(CONFIG, image_size=(320, 512), multi_scale=1.5)
    for step in range(10, 3000, 10):
        factor = float(stream(Use.NETWORK_SIZE, config.seed, index=step // 10).uniform(1 / 1.5, 1.5))
        height, width = (int(factor * side / 64 + 1 + 0.5) * 64 for side in (320, 512))  # src/detector.c, roundl
        if factor < 1 and (height > 320 or width > 512):
            height, width = 320, 512
        assert step_size(step, 20_000, config, 64) == (height, width)
    assert largest_size(config, 64) == (int(1.5 * 320 / 64 + 1.5) * 64, int(1.5 * 512 / 64 + 1.5) * 64) == (576, 832)


def test_no_two_uses_of_chance_draw_the_same() -> None:
    keys = [(use, seed, epoch, index) for use in Use for seed in (0, 1, 2**32) for epoch in (0, 1) for index in (0, 1)]
    draws = [tuple(stream(*key).integers(0, 2**62, 2)) for key in keys]
    assert len(set(draws)) == len(keys) and tuple(stream(*keys[5]).integers(0, 2**62, 2)) == draws[5]


def test_mini_batches_and_processes_split_a_step_without_loss(tmp_path: Path) -> None:
    data = open_data(yolo_folder(tmp_path, 8), "train")
    config = dataclasses.replace(CONFIG, mini_batch=2)
    whole = [b.images for b in train_loader(data, CONFIG, SPEC, epoch=0)]
    minis = [b.images for b in train_loader(data, config, SPEC, epoch=0)]
    assert steps_per_epoch(8, config) == len(whole) == 2 and len(minis) == 4
    assert torch.equal(torch.cat(minis), torch.cat(whole))
    parts = [[b.images for b in train_loader(data, config, SPEC, epoch=0, rank=r, world_size=2)] for r in (0, 1)]
    assert all(torch.equal(torch.cat((a, b)), m) for a, b, m in zip(*parts, minis, strict=True))
    late = [b.images for b in train_loader(data, config, SPEC, epoch=0, first_step=1)]
    assert torch.equal(torch.cat(late), whole[1])


def test_a_batch_larger_than_the_data_is_one_smaller_step(tmp_path: Path) -> None:
    data = open_data(yolo_folder(tmp_path, 3), "train")
    assert [len(b.images) for b in train_loader(data, CONFIG, SPEC, epoch=0)] == [3]


@pytest.mark.parametrize(("count", "mini_batch"), [(3, 0), (7, 2), (5, 4)])
def test_every_process_gets_as_many_mini_batches_as_the_others(tmp_path: Path, count: int, mini_batch: int) -> None:
    data = open_data(yolo_folder(tmp_path, count), "train")
    config = dataclasses.replace(CONFIG, batch=8, mini_batch=mini_batch)
    parts = [[b.image_ids for b in train_loader(data, config, SPEC, epoch=0, rank=r, world_size=2)] for r in (0, 1)]
    sizes = [[len(ids) for ids in part] for part in parts]
    seen = [i for part in parts for ids in part for i in ids]
    assert sizes[0] == sizes[1] and 0 not in sizes[0] and len(set(seen)) == len(seen) == count - count % 2


def test_fewer_images_than_processes_are_refused_in_training_and_shared_out_in_evaluation(tmp_path: Path) -> None:
    data = open_data(yolo_folder(tmp_path, 2), "train")
    with pytest.raises(YolomishError, match="2 training images cannot be shared by 3 processes"):
        smallest_step(len(data), CONFIG, 32, world_size=3)
    resize = partial(resize_image, mode="stretch", grey=114)
    loaders = [eval_loader(data, size_hw=(64, 32), resize=resize, batch=1, rank=r, world_size=3) for r in range(3)]
    assert [[b.image_ids for b in loader] for loader in loaders] == [[(1,)], [(2,)], []]


def test_a_letterbox_stands_on_the_networks_own_grey(tmp_path: Path) -> None:
    data = open_data(yolo_folder(tmp_path), "train")
    plain = dataclasses.replace(
        CONFIG, geometry="affine", resize="letterbox", mosaic=0.0, translate=0.0, scale=0.0, hue=0.0, saturation=1.0, exposure=1.0
    )
    for grey in (17, 114):
        batch = next(iter(train_loader(data, plain, InputSpec(size_hw=(96, 96), stride=32, pad_value=grey), epoch=0)))
        canvas, _ = resize_image(data.load(0).image, (96, 96), "letterbox", grey=grey)
        assert (batch.images[:, :, 0] == grey).all() and (canvas[0] == grey).all()


def test_a_batchs_picture_leaves_the_batch_as_it_was(tmp_path: Path) -> None:
    from yolomish.drawing.boxes import draw_batch

    batch = next(iter(train_loader(open_data(yolo_folder(tmp_path), "train"), CONFIG, SPEC, epoch=0)))
    before = batch.images.clone()
    draw_batch(batch, ("a", "b"), tmp_path / "batch.jpg")
    assert torch.equal(batch.images, before) and read_image(tmp_path / "batch.jpg").shape == (192, 192, 3)


def test_hsv_without_limits_leaves_pixels_alone(tmp_path: Path) -> None:
    sample, rng = open_data(yolo_folder(tmp_path), "train").load(0), np.random.default_rng(0)
    for _ in range(4):
        np.testing.assert_array_equal(hsv(sample, rng, 0.0, 1.0, 1.0).image, sample.image)
    for limits in ((0.1, 1.0, 1.0), (0.0, 1.5, 1.0), (0.0, 1.0, 1.5)):
        assert (hsv(sample, rng, *limits).image != sample.image).any()


def test_workers_do_not_change_batches_but_epoch_and_seed_do(tmp_path: Path) -> None:
    data = open_data(yolo_folder(tmp_path), "train")

    def first(config: TrainConfig, epoch: int = 0) -> torch.Tensor:
        return next(iter(train_loader(data, config, SPEC, epoch=epoch))).images

    base = first(CONFIG)
    assert torch.equal(base, first(dataclasses.replace(CONFIG, workers=2)))
    assert not torch.equal(base, first(CONFIG, 1))
    assert not torch.equal(base, first(dataclasses.replace(CONFIG, seed=1)))


@pytest.mark.parametrize("geometry", ["jitter", "affine"])
def test_partners_of_a_batch_are_its_own_images_each_loaded_once(
    geometry: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = open_data(yolo_folder(tmp_path, 8), "train")
    config = dataclasses.replace(CONFIG, partners="batch", mosaic=1.0, mixup=0.5, cutmix=0.5, geometry=geometry)
    workers = [list(train_loader(data, dataclasses.replace(config, workers=n), SPEC, epoch=0)) for n in (0, 1, 2)]
    for batches in zip(*workers, strict=True):
        assert all(torch.equal(batches[0].images, b.images) and torch.equal(batches[0].targets, b.targets) for b in batches)
    later = list(train_loader(data, config, SPEC, epoch=0, first_step=1))
    assert torch.equal(later[0].images, workers[0][1].images)
    loaded: list[int] = []
    load = data.load
    monkeypatch.setattr(data, "load", lambda index: loaded.append(index) or load(index))
    for batch in train_loader(data, config, SPEC, epoch=0):
        assert sorted(data.image_ids[i] for i in loaded) == sorted(batch.image_ids)
        loaded.clear()
    list(train_loader(data, dataclasses.replace(config, partners="all"), SPEC, epoch=0))
    assert len(loaded) > 3 * len(data)


def test_shapes_are_deterministic_with_gaps_in_ids_and_all_sizes(tmp_path: Path) -> None:
    for name in ("a", "b"):
        generate(tmp_path / name)
    digests = [hashlib.sha256((tmp_path / n / "train" / "train-0007.jpg").read_bytes()).hexdigest() for n in ("a", "b")]
    assert digests[0] == digests[1]
    content = json.loads((tmp_path / "a" / "train.json").read_text())
    areas = np.array([a["area"] for a in content["annotations"]])
    assert (areas < 32**2).any() and (areas > 96**2).any() and ((areas > 32**2) & (areas < 96**2)).any()
    root = str(tmp_path / "a")
    config = DataConfig(format="coco", root=root, train="train.json", val="val.json", train_images="train", val_images="val")
    data = open_data(config, "train")
    assert data.category_ids == (1, 3, 7, 9) and data.image_ids[0] == 1000
    assert {a["category_id"] for a in data.coco().dataset["annotations"]} == {1, 3, 7, 9}


def test_voc_reads_real_photographs(shared_data: Path) -> None:
    config = DataConfig(format="voc", root=str(shared_data / "bccd"))
    train, val = open_data(config, "train"), open_data(config, "val")
    assert (len(train), len(val)) == (205, 87) and train.names == ("Platelets", "RBC", "WBC")
    assert all((s.boxes[:, 2:] > s.boxes[:, :2]).all() for s in (val.load(i) for i in range(5)))


def test_bad_label_names_file_and_line(tmp_path: Path) -> None:
    config = yolo_folder(tmp_path)
    (tmp_path / "labels" / "2.txt").write_text("0 .5 .5 .1 .1\n4 .5 .5 .1 .1\n")
    with pytest.raises(YolomishError, match=r"2\.txt:2: class '4'"):
        open_data(config, "train")


def test_systems_without_free_pages_or_sessions_load_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sysconf_names", {"SC_PAGE_SIZE": os.sysconf_names["SC_PAGE_SIZE"]})  # macOS
    monkeypatch.delattr(os, "setsid")  # Windows
    data = open_data(yolo_folder(tmp_path), "train")
    assert data.keep_in_memory() == 6 * 100 * 140 * 3
    assert len(list(train_loader(data, dataclasses.replace(CONFIG, workers=1), SPEC, epoch=0))) == 1


@pytest.mark.parametrize("workers", [0, 1])
def test_a_picture_lost_in_mid_run_is_one_line_from_any_worker(tmp_path: Path, workers: int) -> None:
    data = open_data(yolo_folder(tmp_path), "train")
    (tmp_path / "images" / "4.png").unlink()
    loaders = (
        train_loader(data, dataclasses.replace(CONFIG, workers=workers), SPEC, epoch=0),
        eval_loader(data, size_hw=(32, 64), resize=partial(resize_image, mode="stretch", grey=0), batch=2, workers=workers),
    )
    for loader in loaders:
        with pytest.raises(YolomishError, match=r"4\.png cannot be read: No such file or directory$") as error:
            list(loader)
        assert "\n" not in str(error.value)


@pytest.mark.parametrize("where", ["ram", "disk"])
def test_cached_images_give_the_same_batches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str) -> None:
    monkeypatch.setenv("YOLOMISH_CACHE", str(tmp_path / "cache"))
    config = yolo_folder(tmp_path / "data")
    plain = [b.images for b in train_loader(open_data(config, "train"), CONFIG, SPEC, epoch=1)]
    for _ in range(2):
        data = open_data(config, "train")
        size = data.keep_in_memory() if where == "ram" else data.keep_on_disk()
        assert size == 6 * 100 * 140 * 3
        monkeypatch.setattr("yolomish.data.kept.read_image", lambda path: pytest.fail("read again"))
        kept = [b.images for b in train_loader(data, CONFIG, SPEC, epoch=1)]
        assert all(torch.equal(a, b) for a, b in zip(plain, kept, strict=True))
        monkeypatch.undo()
        monkeypatch.setenv("YOLOMISH_CACHE", str(tmp_path / "cache"))
    files = [p for p in (tmp_path / "cache" / "images").glob("*.u8")] if where == "disk" else []
    assert len(files) == (where == "disk")
    if where == "disk":
        write_image(tmp_path / "data" / "images" / "0.png", np.zeros((100, 140, 3), np.uint8))
        changed = open_data(config, "train")
        changed.keep_on_disk()
        assert not changed.load(0).image.any()
