"""COCO JSON, VOC XML, YOLO txt and the built-in shapes behind one interface; ids come from the annotations."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import shutil
import xml.etree.ElementTree as ET
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from pycocotools.coco import COCO

from yolomish.config import DataConfig
from yolomish.data.images import read_image
from yolomish.data.shapes import shapes_root
from yolomish.errors import YolomishError
from yolomish.files import cache_folder
from yolomish.types import Sample

Split = Literal["train", "val", "test"]
SPLITS: tuple[Split, ...] = ("train", "val", "test")
SUFFIXES = {".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff"}


@dataclass(frozen=True, kw_only=True)
class Record:
    """One image's annotation: boxes (N, 4) xyxy in image px, labels (N,), crowd flags (N,); size (height, width)."""

    path: Path
    image_id: int
    boxes: np.ndarray
    labels: np.ndarray
    crowd: np.ndarray
    size_hw: tuple[int, int] | None


class DetectionData:
    """A split of a data set: ``names``, ``category_ids`` (label index -> annotation id), ``image_ids``, samples."""

    def __init__(
        self,
        records: list[Record],
        names: tuple[str, ...],
        category_ids: tuple[int, ...],
        source: Path,
        truth: COCO | None = None,
    ) -> None:
        if not records:
            raise YolomishError(f"{source} names no images")
        self.names, self.category_ids, self.source = names, category_ids, source
        self.image_ids = tuple(r.image_id for r in records)
        self._records, self._truth = records, truth
        self._images: list[np.ndarray] = []

    def __len__(self) -> int:
        return len(self._records)

    @property
    def annotated(self) -> bool:
        """Whether there is a ground truth: false for COCO's test sets, whose annotations are kept by the server."""
        return self._truth is None or "annotations" in self._truth.dataset

    def first(self, count: int) -> DetectionData:
        """The first ``count`` images with their annotations."""
        records = self._records[:count]
        truth = None
        if self._truth is not None:
            kept, content = {r.image_id for r in records}, self._truth.dataset
            content = {**content, "images": [i for i in content["images"] if i["id"] in kept]}
            if self.annotated:
                content["annotations"] = [a for a in content["annotations"] if a["image_id"] in kept]
            truth = _index(content)
        return DetectionData(records, self.names, self.category_ids, self.source, truth)

    def path(self, index: int) -> Path:
        """The image file."""
        return self._records[index].path

    def size_hw(self, index: int) -> tuple[int, int]:
        """Height and width of an image in px, decoded where the annotation does not state them."""
        h, w = self._records[index].size_hw or read_image(self._records[index].path).shape[:2]
        return h, w

    def load(self, index: int) -> Sample:
        """The sample in image px: crowds and boxes without area left out; an empty image gives (0, 4) boxes."""
        record = self._records[index]
        image = self._images[index] if self._images else read_image(record.path)
        if record.size_hw is not None and record.size_hw != image.shape[:2]:
            h, w = record.size_hw
            raise YolomishError(
                f"{record.path} decodes to {image.shape[1]}x{image.shape[0]} px but {self.source} says {w}x{h}: "
                "re-save the image upright, or correct the annotation"
            )
        sides = record.boxes[:, 2:] - record.boxes[:, :2]
        keep = ~record.crowd & (sides > 0).all(1)
        return Sample(image=image, boxes=record.boxes[keep], labels=record.labels[keep], image_id=record.image_id)

    def keep_in_memory(self) -> int:
        """Decode every image once and hold it, shared with workers forked later; gives the bytes. YolomishError if too much.

        Augmentations never write into a sample's image, so the samples stay the same.
        """
        some = self._records[:: max(len(self) // 16, 1)]
        expected = sum(read_image(r.path).nbytes for r in some) // len(some) * len(self)
        free = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_AVPHYS_PAGES")
        if expected > 0.8 * free:
            raise YolomishError(
                f"--cache ram needs about {expected / 2**30:.1f} GiB for {len(self)} images of {self.source}, "
                f"{free / 2**30:.1f} GiB are free: leave it off"
            )
        self._images = [read_image(r.path) for r in self._records]
        return sum(image.nbytes for image in self._images)

    def keep_on_disk(self) -> int:
        """Decode every image once into one file in the cache folder and read from there; gives its bytes.

        The file is named by the images' paths, sizes and times, so that a later run finds it and a changed set does not.
        YolomishError where the disk has too little room.
        """
        facts = [(str(r.path.resolve()), (s := r.path.stat()).st_size, s.st_mtime_ns) for r in self._records]
        name = hashlib.sha1(json.dumps(facts).encode()).hexdigest()
        folder = cache_folder() / "images"
        file, index = folder / f"{name}.u8", folder / f"{name}.json"
        if not (file.is_file() and index.is_file()):
            self._write_pixels(folder, file, index)
        shapes = json.loads(index.read_text(encoding="utf-8"))
        pixels = np.memmap(file, np.uint8, "r")
        ends = np.cumsum([h * w * 3 for h, w in shapes]).tolist()
        parts = zip(shapes, [0, *ends[:-1]], ends, strict=True)
        self._images = [pixels[start:end].reshape(h, w, 3) for (h, w), start, end in parts]
        return pixels.nbytes

    def _write_pixels(self, folder: Path, file: Path, index: Path) -> None:
        some = self._records[:: max(len(self) // 16, 1)]
        expected = sum(read_image(r.path).nbytes for r in some) // len(some) * len(self)
        try:
            folder.mkdir(parents=True, exist_ok=True)
            free = shutil.disk_usage(folder).free
            if expected > 0.9 * free:
                raise YolomishError(
                    f"--cache disk needs about {expected / 2**30:.1f} GiB in {folder}, {free / 2**30:.1f} GiB are free: "
                    "leave it off, or name another folder in YOLOMISH_CACHE"
                )
            partial = file.with_suffix(f".{os.getpid()}.part")
            shapes = []
            with partial.open("wb") as out:
                for record in self._records:
                    image = read_image(record.path)
                    out.write(image.tobytes())
                    shapes.append(image.shape[:2])
            index.write_text(json.dumps(shapes), encoding="utf-8")
            os.replace(partial, file)
        except OSError as error:
            raise YolomishError(f"{folder} cannot be written: {error.strerror}; name another in YOLOMISH_CACHE") from None

    def boxes_at(self, size: int, *, keep_aspect: bool) -> tuple[np.ndarray, np.ndarray]:
        """Labels (N,) and box widths and heights (N, 2) of all images in px at a network size, from annotations alone.

        Images whose annotation does not state their size, crowds and boxes without area are left out.
        """
        labels: list[np.ndarray] = [np.empty(0, np.int64)]
        sizes: list[np.ndarray] = [np.empty((0, 2))]
        for record in self._records:
            if record.size_hw is None:
                continue
            h, w = record.size_hw
            scale = np.full(2, size / max(h, w)) if keep_aspect else np.array([size / w, size / h])
            sides = (record.boxes[:, 2:] - record.boxes[:, :2]) * scale
            keep = ~record.crowd & (sides > 0).all(1)
            labels.append(record.labels[keep])
            sizes.append(sides[keep])
        return np.concatenate(labels), np.concatenate(sizes)

    def coco(self) -> COCO:
        """The ground truth, crowds included, as pycocotools wants it."""
        if self._truth is None:
            images: list[dict] = []
            annotations: list[dict] = []
            for index, record in enumerate(self._records):
                h, w = self.size_hw(index)
                images.append({"id": record.image_id, "file_name": record.path.name, "width": w, "height": h})
                for box, label in zip(record.boxes, record.labels, strict=True):
                    x, y, w_box, h_box = (float(v) for v in (*box[:2], *(box[2:] - box[:2])))
                    if w_box <= 0 or h_box <= 0:
                        continue
                    annotations.append(
                        {
                            "id": len(annotations) + 1,
                            "image_id": record.image_id,
                            "category_id": self.category_ids[label],
                            "bbox": [x, y, w_box, h_box],
                            "area": w_box * h_box,
                            "iscrowd": 0,
                        }
                    )
            categories = [{"id": i, "name": n} for i, n in zip(self.category_ids, self.names, strict=True)]
            self._truth = _index({"images": images, "annotations": annotations, "categories": categories, "info": {}})
        return self._truth


def _index(content: dict) -> COCO:
    truth = COCO()
    truth.dataset = content
    with contextlib.redirect_stdout(io.StringIO()):
        truth.createIndex()
    return truth


def _arrays(boxes: list, labels: list, crowd: list | None = None) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    return (
        np.asarray(boxes, np.float32).reshape(-1, 4),
        np.asarray(labels, np.int64),
        np.asarray(crowd if crowd is not None else [False] * len(labels), bool),
    )


def open_data(config: DataConfig, split: Split) -> DetectionData:
    """Open a split; YolomishError naming file and line for missing files, malformed lines and labels out of range."""
    if config.format == "shapes":
        if split == "test":
            raise YolomishError("the built-in shapes have the splits train and val, no test")
        root = shapes_root()
        return _open_coco(root / f"{split}.json", root / split)
    root, name = Path(config.root), getattr(config, split)
    if not name:
        raise YolomishError(f"the data YAML names no {split} split: add {split}: ...")
    if config.format == "coco":
        return _open_coco(root / name, root / getattr(config, f"{split}_images"), need_labels=split != "test")
    if config.format == "voc":
        return _open_voc(root, name, config.names or _voc_names(root, (config.train, config.val)))
    return _open_yolo(root / name, config.names)


def _open_coco(file: Path, folder: Path, *, need_labels: bool = True) -> DetectionData:
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        categories = sorted(content["categories"], key=lambda c: c["id"])
        images = content["images"]
        content.setdefault("info", {})
        label_of = {c["id"]: i for i, c in enumerate(categories)}
        found: dict[int, tuple[list, list, list]] = {image["id"]: ([], [], []) for image in images}
        for annotation in content["annotations"] if need_labels else content.get("annotations", ()):
            if annotation["category_id"] not in label_of or annotation["image_id"] not in found:
                raise YolomishError(
                    f"{file}: annotation {annotation.get('id')} has category {annotation['category_id']} and image "
                    f"{annotation['image_id']}, of which one is not in the file"
                )
            x, y, w, h = annotation["bbox"]
            boxes, labels, crowd = found[annotation["image_id"]]
            boxes.append((x, y, x + w, y + h))
            labels.append(label_of[annotation["category_id"]])
            crowd.append(bool(annotation.get("iscrowd", 0)))
        records = []
        for image in images:
            arrays = _arrays(*found[image["id"]])
            size = (image["height"], image["width"]) if "height" in image and "width" in image else None
            path = folder / image["file_name"]
            records.append(
                Record(path=path, image_id=image["id"], boxes=arrays[0], labels=arrays[1], crowd=arrays[2], size_hw=size)
            )
    except OSError as error:
        raise YolomishError(f"{file} cannot be read: {error.strerror}") from None
    except (KeyError, TypeError, ValueError) as error:
        raise YolomishError(f"{file} is not a COCO annotation file: {type(error).__name__}: {error}") from None
    if records and not records[0].path.is_file():
        raise YolomishError(f"{records[0].path} does not exist: check the image folder of {file}")
    return DetectionData(records, tuple(c["name"] for c in categories), tuple(c["id"] for c in categories), file, _index(content))


def _split_list(root: Path, split: str) -> list[str]:
    for file in (root / "ImageSets" / f"{split}.txt", root / "ImageSets" / "Main" / f"{split}.txt"):
        if file.is_file():
            return [line.split()[0] for line in file.read_text().splitlines() if line.strip()]
    raise YolomishError(f"no ImageSets/{split}.txt or ImageSets/Main/{split}.txt under {root}")


def _voc_objects(file: Path) -> tuple[ET.Element, list[tuple[str, list[float], bool]]]:
    try:
        tree = ET.parse(file).getroot()
        objects = []
        for item in tree.iter("object"):
            box = item.find("bndbox")
            if box is None:
                raise ValueError("object without bndbox")
            x0, y0, x1, y1 = (float(box.findtext(k, "")) for k in ("xmin", "ymin", "xmax", "ymax"))
            # VOC pixels count from 1 and include the last one
            objects.append((item.findtext("name", ""), [x0 - 1, y0 - 1, x1, y1], item.findtext("difficult", "0") == "1"))
        return tree, objects
    except OSError as error:
        raise YolomishError(f"{file} cannot be read: {error.strerror}") from None
    except (ET.ParseError, ValueError) as error:
        raise YolomishError(f"{file} is not a VOC annotation: {error}") from None


def _voc_names(root: Path, splits: tuple[str, ...]) -> tuple[str, ...]:
    stems = {stem for split in splits for stem in _split_list(root, split)}
    return tuple(sorted({o[0] for stem in stems for o in _voc_objects(root / "Annotations" / f"{stem}.xml")[1]}))


def _open_voc(root: Path, split: str, names: tuple[str, ...]) -> DetectionData:
    records = []
    for number, stem in enumerate(_split_list(root, split), 1):
        file = root / "Annotations" / f"{stem}.xml"
        tree, objects = _voc_objects(file)
        for name, _, _ in objects:
            if name not in names:
                raise YolomishError(f"{file}: class {name!r} is not one of {', '.join(names)}")
        kept = [(n, b) for n, b, _ in objects if b[2] - b[0] > 1 and b[3] - b[1] > 1]
        boxes, labels, crowd = _arrays([b for _, b in kept], [names.index(n) for n, _ in kept])
        size = (int(tree.findtext("size/height", "0")), int(tree.findtext("size/width", "0")))
        path = root / "JPEGImages" / f"{stem}.jpg"
        if not path.is_file():
            path = next((p for s in SUFFIXES if (p := path.with_suffix(s)).is_file()), path)
        records.append(
            Record(path=path, image_id=number, boxes=boxes, labels=labels, crowd=crowd, size_hw=size if all(size) else None)
        )
    return DetectionData(records, names, tuple(range(1, len(names) + 1)), root / "ImageSets" / f"{split}.txt")


def _open_yolo(source: Path, names: tuple[str, ...]) -> DetectionData:
    if not names:
        raise YolomishError(f"YOLO txt data in {source} needs names: [...] in its YAML")
    if source.is_dir():
        paths = sorted(p for p in source.iterdir() if p.suffix.lower() in SUFFIXES)
    elif source.is_file():
        listed = (line.strip() for line in source.read_text().splitlines())
        paths = [source.parent / line for line in listed if line]
    else:
        raise YolomishError(f"{source} is neither a folder of images nor a list of them")
    records = []
    for number, path in enumerate(paths, 1):
        parts = ["labels" if part == "images" else part for part in path.parts]
        file = next((f for f in (Path(*parts).with_suffix(".txt"), path.with_suffix(".txt")) if f.is_file()), None)
        h, w = read_image(path).shape[:2]
        boxes, labels = [], []
        for line_number, line in enumerate(file.read_text().splitlines() if file else (), 1):
            if not line.strip():
                continue
            try:
                label, cx, cy, bw, bh = (float(v) for v in line.split())
            except ValueError:
                raise YolomishError(f"{file}:{line_number}: not 'class cx cy w h': {line!r}") from None
            if not (0 <= label < len(names) and label.is_integer()):
                raise YolomishError(f"{file}:{line_number}: class {label:g} is not in 0..{len(names) - 1}")
            if not all(0 <= v <= 1 for v in (cx, cy, bw, bh)):
                raise YolomishError(f"{file}:{line_number}: cx cy w h must be fractions of the image in 0..1: {line!r}")
            boxes.append(((cx - bw / 2) * w, (cy - bh / 2) * h, (cx + bw / 2) * w, (cy + bh / 2) * h))
            labels.append(int(label))
        arrays = _arrays(boxes, labels)
        records.append(Record(path=path, image_id=number, boxes=arrays[0], labels=arrays[1], crowd=arrays[2], size_hw=(h, w)))
    return DetectionData(records, names, tuple(range(1, len(names) + 1)), source)
