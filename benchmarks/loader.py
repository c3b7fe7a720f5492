"""How many augmented images per second one core makes, beside a plain PyTorch Dataset and ultralytics' loader?

All three make mosaics of four on a canvas of twice the size, cut back to the size by an affine map, with HSV and flip.

    python benchmarks/loader.py            # ultralytics is left out where it is not installed
"""

from __future__ import annotations

import argparse
import importlib.util
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from common import interleaved, ratio, report, spread
from PIL import Image
from torchvision import tv_tensors
from torchvision.transforms import v2

from yolomish.config import DataConfig, ModelConfig, load_recipe
from yolomish.data.datasets import open_data
from yolomish.data.loader import AugmentedData, collate
from yolomish.types import GREY

BATCH = 16


def write_images(folder: Path, count: int) -> DataConfig:
    """JPEGs of 640 x 480 px with the spectrum of photographs, and YOLO labels, eight boxes each."""
    rng = np.random.default_rng(0)
    for split in ("train", "val"):
        (folder / "images" / split).mkdir(parents=True)
        (folder / "labels" / split).mkdir(parents=True)
        for i in range(count if split == "train" else 1):
            image = np.zeros((480, 640, 3), np.float32)
            for octave in range(1, 8):
                noise = rng.normal(0, 2.0**-octave, (2**octave * 3 // 4 + 1, 2**octave, 3)).astype(np.float32)
                image += cv2.resize(noise, (640, 480), interpolation=cv2.INTER_CUBIC)
            image = (128 + 90 * image + rng.normal(0, 4, image.shape)).clip(0, 255).astype(np.uint8)
            cv2.imwrite(str(folder / "images" / split / f"{i:04}.jpg"), image, [cv2.IMWRITE_JPEG_QUALITY, 90])
            boxes = np.concatenate((rng.uniform(0.2, 0.8, (8, 2)), rng.uniform(0.05, 0.35, (8, 2))), 1)
            lines = [f"{rng.integers(2)} " + " ".join(f"{v:.5f}" for v in box) for box in boxes]
            (folder / "labels" / split / f"{i:04}.txt").write_text("\n".join(lines))
    return DataConfig(format="yolo", root=str(folder), train="images/train", val="images/val", names=("a", "b"))


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


def ours(data: DataConfig, size: int, cache: str) -> Callable[[], object]:
    """Batches of uint8 images, as the trainer gets them."""
    config = replace(load_recipe("scaled", ModelConfig(num_classes=2)), data=data, image_size=(size, size), scale=0.5)
    source = open_data(data, "train")
    if cache:
        {"ram": source.keep_in_memory, "disk": source.keep_on_disk}[cache]()
    dataset = AugmentedData(source, config, 0, GREY)
    starts = range(0, len(source), BATCH)
    return lambda: [collate([dataset[i, (size, size)] for i in range(start, start + BATCH)]) for start in starts]


def ultralytics_loader(folder: Path, size: int, cache: bool) -> Callable[[], object]:
    """Its dataset and collation with the same augmentations; it keeps the last 128 images and takes partners from them."""
    from ultralytics.cfg import get_cfg
    from ultralytics.data.dataset import YOLODataset

    changes = {"degrees": 0.0, "translate": 0.1, "scale": 0.5, "mosaic": 1.0, "mixup": 0.0, "copy_paste": 0.0}
    dataset = YOLODataset(
        img_path=str(folder / "images" / "train"),
        imgsz=size,
        cache="ram" if cache else False,
        augment=True,
        hyp=get_cfg(overrides=changes),
        batch_size=BATCH,
        data={"names": {0: "a", 1: "b"}, "channels": 3, "nc": 2},
        task="detect",
    )
    starts = range(0, len(dataset), BATCH)
    return lambda: [dataset.collate_fn([dataset[i] for i in range(start, start + BATCH)]) for start in starts]


def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=256, help="a multiple of 16")
    parser.add_argument("--imgsz", type=int, default=640, help="px")
    parser.add_argument("--rounds", type=int, default=7)
    options = parser.parse_args()
    torch.set_num_threads(1)
    cv2.setNumThreads(0)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        data = write_images(folder, options.images)
        plain = PlainDataset(folder, options.imgsz)
        variants: dict[str, Callable[[], object]] = {
            "yolomish": ours(data, options.imgsz, ""),
            "yolomish, --cache disk": ours(data, options.imgsz, "disk"),
            "yolomish, --cache ram": ours(data, options.imgsz, "ram"),
            "plain PyTorch Dataset": lambda: [plain[i]["image"] for i in range(len(plain))],
        }
        versions = ""
        if importlib.util.find_spec("ultralytics"):
            import ultralytics

            cv2.setNumThreads(0)
            variants["ultralytics"] = ultralytics_loader(folder, options.imgsz, False)
            variants["ultralytics, cache=ram"] = ultralytics_loader(folder, options.imgsz, True)
            versions = f" ultralytics {ultralytics.__version__}."
        torch.set_num_threads(1)
        for run in variants.values():
            run()
        times = interleaved(variants, options.rounds, torch.device("cpu"))
    rate = {key: [options.images / s for s in seconds] for key, seconds in times.items()}
    rows = [(key, spread(rate[key]), ratio(rate[key], rate["plain PyTorch Dataset"])) for key in times]
    report(
        f"Augmented images a second of one process, {options.imgsz} px",
        ("loader", "images/s", "x plain"),
        rows,
        torch.device("cpu"),
        f"{options.images} JPEGs of 640 x 480 px, every sample a mosaic of four.{versions}",
    )


if __name__ == "__main__":
    main()
