"""How many augmented images per second does the loader make, beside a plain PyTorch Dataset and ultralytics' loader?

All make mosaics of four on a canvas of twice the size, or single images, cut to the size by an affine map, with HSV and flip.
Our recipes with Darknet's jitter stand beside them. An epoch starts its worker processes anew, whoever's loader it is.

    python benchmarks/loader.py                                      # pictures are generated
    python benchmarks/loader.py --pictures coco/train2017 --processor-time  # ultralytics is left out where it is not installed
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import itertools
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import cv2
import numpy as np
import torch
from common import interleaved, ratio, report, spread
from PIL import Image
from torchvision import tv_tensors
from torchvision.transforms import v2

from yolomish.config import DataConfig, ModelConfig, load_recipe
from yolomish.data.datasets import open_data
from yolomish.data.loader import AugmentedData, collate, ordered_loader
from yolomish.types import GREY

BATCH = 16
MOSAIC, SINGLE = "mosaic of four", "single image"
PLAIN = "plain PyTorch Dataset"


@dataclass(frozen=True, kw_only=True)
class Variant:
    """One line of the table."""

    augmentation: str
    loader: str
    cache: str = ""
    workers: int = 0
    partners: Literal["all", "batch"] = "all"


def write_images(folder: Path, count: int, pictures: str) -> DataConfig:
    """``count`` JPEGs, copied from a folder and from its start again where it has fewer, or 640 x 480 px with the spectrum of
    photographs; and YOLO labels, eight boxes each."""
    rng = np.random.default_rng(0)
    found = sorted(Path(pictures).glob("*.jpg")) if pictures else []
    given = itertools.cycle(found)
    for split, images in (("train", count), ("val", 1)):
        (folder / "images" / split).mkdir(parents=True)
        (folder / "labels" / split).mkdir(parents=True)
        for i in range(images):
            file = folder / "images" / split / f"{i:04}.jpg"
            if found:
                shutil.copyfile(next(given), file)
            else:
                cv2.imwrite(str(file), generated(rng), [cv2.IMWRITE_JPEG_QUALITY, 90])
            boxes = np.concatenate((rng.uniform(0.2, 0.8, (8, 2)), rng.uniform(0.05, 0.35, (8, 2))), 1)
            lines = [f"{rng.integers(2)} " + " ".join(f"{v:.5f}" for v in box) for box in boxes]
            (folder / "labels" / split / f"{i:04}.txt").write_text("\n".join(lines))
    return DataConfig(format="yolo", root=str(folder), train="images/train", val="images/val", names=("a", "b"))


def generated(rng: np.random.Generator) -> np.ndarray:
    """(480, 640, 3) uint8: noise in seven octaves, each half as strong as the one before."""
    image = np.zeros((480, 640, 3), np.float32)
    for octave in range(1, 8):
        noise = rng.normal(0, 2.0**-octave, (2**octave * 3 // 4 + 1, 2**octave, 3)).astype(np.float32)
        image += cv2.resize(noise, (640, 480), interpolation=cv2.INTER_CUBIC)
    return (128 + 90 * image + rng.normal(0, 4, image.shape)).clip(0, 255).astype(np.uint8)


class PlainDataset(torch.utils.data.Dataset):
    """What one writes first: PIL to decode, torchvision's transforms on float tensors."""

    def __init__(self, folder: Path, size: int) -> None:
        self.files, self.size = sorted((folder / "images" / "train").glob("*.jpg")), size
        self.after = v2.Compose(
            [
                v2.RandomAffine(0, translate=(0.1, 0.1), scale=(0.5, 1.5), fill=114),
                v2.CenterCrop(size),
                v2.ColorJitter(brightness=0.4, saturation=0.7, hue=0.015),
                v2.RandomHorizontalFlip(),
                v2.ClampBoundingBoxes(),
                v2.SanitizeBoundingBoxes(),
                v2.ToDtype(torch.float32, scale=True),
            ]
        )

    def __len__(self) -> int:
        return len(self.files)

    def one(self, index: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """An image (3, h, w) uint8 with its long side at the size, boxes (N, 4) xyxy in px and labels (N,)."""
        image = Image.open(self.files[index]).convert("RGB")
        factor = self.size / max(image.size)
        image = image.resize((round(image.width * factor), round(image.height * factor)), Image.Resampling.BILINEAR)
        label_file = self.files[index].parents[2] / "labels" / "train" / f"{self.files[index].stem}.txt"
        rows = torch.tensor([[float(v) for v in line.split()] for line in label_file.read_text().splitlines()])
        centre, half = rows[:, 1:3], rows[:, 3:] / 2
        boxes = torch.cat((centre - half, centre + half), 1) * torch.tensor([image.width, image.height] * 2)
        return v2.functional.pil_to_tensor(image), boxes, rows[:, 0].long()

    def __getitem__(self, index: int) -> Any:
        s = self.size
        canvas = torch.full((3, 2 * s, 2 * s), 114, dtype=torch.uint8)
        cx, cy = (int(v) for v in torch.randint(s // 2, s + s // 2, (2,)))
        all_boxes, all_labels = [], []
        others = torch.randint(len(self), (3,)).tolist()
        for quarter, other in enumerate([index, *others]):
            image, boxes, labels = self.one(other)
            _, h, w = image.shape
            left, top = (cx - w if quarter % 2 == 0 else cx), (cy - h if quarter < 2 else cy)
            x0, y0, x1, y1 = max(left, 0), max(top, 0), min(left + w, 2 * s), min(top + h, 2 * s)
            canvas[:, y0:y1, x0:x1] = image[:, y0 - top : y1 - top, x0 - left : x1 - left]
            all_boxes.append(boxes + torch.tensor([left, top] * 2))
            all_labels.append(labels)
        boxes = tv_tensors.BoundingBoxes(torch.cat(all_boxes), format="XYXY", canvas_size=(2 * s, 2 * s))  # type: ignore[call-overload]
        return self.after({"image": tv_tensors.Image(canvas), "boxes": boxes, "labels": torch.cat(all_labels)})


def ours(data: DataConfig, size: int, variant: Variant) -> Callable[[], object]:
    """Batches of uint8 images, as the trainer gets them: the augmentation is a recipe, or as the others have it."""
    recipe = variant.augmentation.removeprefix("recipe ")
    if recipe == variant.augmentation:
        config = load_recipe("scaled", ModelConfig(num_classes=2))
        config = replace(config, mosaic=float(variant.augmentation == MOSAIC), scale=0.5)
    else:
        config = load_recipe(recipe, ModelConfig(num_classes=2))
    config = replace(config, data=data, image_size=(size, size), partners=variant.partners)
    source = open_data(data, "train")
    if variant.cache:
        {"ram": source.keep_in_memory, "disk": source.keep_on_disk}[variant.cache]()
    keys = [[(i, (size, size)) for i in batch] for batch in batches(len(source))]
    loader = ordered_loader(AugmentedData(source, config, 0, GREY), keys, collate, variant.workers)
    return lambda: [None for _ in loader]


def batches(count: int) -> list[list[int]]:
    """All images in order, for every loader alike."""
    return [list(range(start, min(start + BATCH, count))) for start in range(0, count, BATCH)]


def plain(folder: Path, size: int) -> Callable[[], object]:
    """One batch, uncollated, of the first thing that one writes: it takes ten times as long."""
    dataset = PlainDataset(folder, size)
    return lambda: [dataset[i]["image"] for i in range(BATCH)]


def ultralytics_loader(folder: Path, size: int, variant: Variant) -> Callable[[], object]:
    """Its dataset and collation with the same augmentations; without a cache it keeps the last 128 images decoded, and takes
    a mosaic's partners from these alone."""
    from ultralytics.cfg import get_cfg
    from ultralytics.data.dataset import YOLODataset

    mosaic = float(variant.augmentation == MOSAIC)
    changes = {"degrees": 0.0, "translate": 0.1, "scale": 0.5, "mosaic": mosaic, "mixup": 0.0, "copy_paste": 0.0}
    dataset = YOLODataset(
        img_path=str(folder / "images" / "train"),
        imgsz=size,
        cache=variant.cache or False,
        augment=True,
        hyp=get_cfg(overrides=changes),
        batch_size=BATCH,
        data={"names": {0: "a", 1: "b"}, "channels": 3, "nc": 2},
        task="detect",
    )
    loader = torch.utils.data.DataLoader(
        dataset,
        batch_sampler=batches(len(dataset)),
        collate_fn=dataset.collate_fn,
        num_workers=variant.workers,
        worker_init_fn=lambda _: cv2.setNumThreads(0),
    )
    return lambda: [None for _ in loader]


def processor_seconds() -> float:
    """What this process and the workers that have ended took of all cores."""
    return sum(os.times()[:4])


def variants(with_ultralytics: bool, workers: list[int]) -> list[Variant]:
    """What is compared, ours without a cache first among those of one augmentation and one number of workers."""
    theirs = ("ultralytics",) if with_ultralytics else ()
    found = [
        Variant(augmentation=augmentation, loader=loader, cache=cache, workers=count)
        for augmentation in (MOSAIC, SINGLE)
        for count in workers
        for loader in ("yolomish", *theirs)
        for cache in ("", "ram")
    ]
    found += [Variant(augmentation=MOSAIC, loader="yolomish", workers=count, partners="batch") for count in workers]
    found.append(Variant(augmentation=MOSAIC, loader="yolomish", cache="disk"))
    found.append(Variant(augmentation=MOSAIC, loader=PLAIN))
    return found + [Variant(augmentation=f"recipe {name}", loader="yolomish") for name in ("darknet", "finetune", "small")]


def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=256, help="of an epoch, 16 at least")
    parser.add_argument("--imgsz", type=int, default=640, help="px")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--workers", type=int, nargs="+", default=[0, 2])
    parser.add_argument("--pictures", default="", help="a folder of JPEGs")
    parser.add_argument("--processor-time", action="store_true", help="count that of all processes: for a busy machine")
    options = parser.parse_args()
    theirs = bool(importlib.util.find_spec("ultralytics"))
    version = ""
    if theirs:
        os.environ["YOLO_VERBOSE"] = "false"
        import ultralytics

        version = f" ultralytics {ultralytics.__version__}."
    else:
        print("ultralytics is not installed: left out", file=sys.stderr)
    torch.set_num_threads(1)
    cv2.setNumThreads(0)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        os.environ["YOLOMISH_CACHE"] = str(folder / "cache")
        data = write_images(folder, options.images, options.pictures)
        runs: dict[Variant, Callable[[], object]] = {}
        for variant in variants(theirs, options.workers):
            if variant.loader == "yolomish":
                runs[variant] = ours(data, options.imgsz, variant)
            elif variant.loader == "ultralytics":
                with contextlib.redirect_stdout(sys.stderr):  # its progress
                    runs[variant] = ultralytics_loader(folder, options.imgsz, variant)
            else:
                runs[variant] = plain(folder, options.imgsz)
        torch.set_num_threads(1)  # ultralytics sets both
        cv2.setNumThreads(0)
        for run in runs.values():
            run()
        names = {str(variant): run for variant, run in runs.items()}
        clock = processor_seconds if options.processor_time else time.perf_counter
        times = interleaved(names, options.rounds, torch.device("cpu"), clock)
    images = {v: BATCH if v.loader == PLAIN else options.images for v in runs}
    rate = {v: [images[v] / s for s in times[str(v)]] for v in runs}
    rows = []
    for v, rates in rate.items():
        base = rate[replace(v, loader="yolomish", cache="", partners="all")]
        loader = ", ".join(filter(None, (v.loader, v.cache, "partners: batch" * (v.partners == "batch"))))
        rows.append((v.augmentation, str(v.workers), loader, spread(rates), ratio(rates, base)))
    report(
        f"Augmented images a second{' of processor time' * options.processor_time}, {options.imgsz} px",
        ("augmentation", "workers", "loader, cache", "images/s", "of yolomish without cache"),
        rows,
        torch.device("cpu"),
        f"Batches of {BATCH}, {options.images} JPEGs. OpenCV {cv2.__version__}.{version}",
    )


if __name__ == "__main__":
    main()
