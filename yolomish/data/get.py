"""Published data sets by name: fetched, checked, unpacked, and a data YAML written that train, eval and compare take."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from yolomish.coco_names import COCO_NAMES
from yolomish.config import DataConfig, save_yaml
from yolomish.data.unpack import unpack
from yolomish.download import Download, check_content, fetch, pin_path
from yolomish.errors import YolomishError, unknown_name


@dataclass(frozen=True, kw_only=True)
class Archive(Download):
    """A zip archive whose files all lie in ``folder``."""

    ELSEWHERE: ClassVar[str] = "name another folder by --output"
    INSTEAD: ClassVar[str] = "the data set 'shapes' needs no download"
    folder: str


@dataclass(frozen=True, kw_only=True)
class PublishedData:
    """A data set made of archives; ``config`` is its YAML, whose root is where they are unpacked."""

    about: str
    archives: tuple[Archive, ...]
    config: DataConfig

    @property
    def size(self) -> int:
        """Bytes to fetch, as far as they are known; 0: not."""
        return sum(archive.size for archive in self.archives)


# Sizes: what images.cocodataset.org answers; SHA-1: GluonCV's scripts/datasets/mscoco.py
COCO = "http://images.cocodataset.org"  # its certificate is for another name, so that the checksums have to answer for it
ANNOTATIONS = Archive(
    file="annotations_trainval2017.zip",
    url=f"{COCO}/annotations/annotations_trainval2017.zip",
    size=252_907_541,
    sha1="8551ee4bb5860311e79dace7e79cb91e432e78b3",
    folder="annotations",
)
VAL2017 = Archive(
    file="val2017.zip",
    url=f"{COCO}/zips/val2017.zip",
    size=815_585_330,
    sha1="4950dc9d00dbe1c933ee0170f5797584351d2a41",
    folder="val2017",
)
TRAIN2017 = Archive(
    file="train2017.zip",
    url=f"{COCO}/zips/train2017.zip",
    size=19_336_861_798,
    sha1="10ad623668ab00c62c096f0ed636d6aff41faca5",
    folder="train2017",
)
ULTRALYTICS = "https://github.com/ultralytics/assets/releases/download/v0.0.0"  # states neither size nor checksum


def _coco(train: str, train_images: str = "") -> DataConfig:
    val = "annotations/instances_val2017.json"
    return DataConfig(format="coco", root="coco", train=train, train_images=train_images, val=val, val_images="val2017")


def _first_images(name: str, train: str, val: str, count: int) -> PublishedData:
    """The first images of COCO's train2017 with YOLO labels, as ultralytics publishes them."""
    return PublishedData(
        about=f"the first {count} images of COCO's train2017, YOLO labels, to try things out",
        archives=(Archive(file=f"{name}.zip", url=f"{ULTRALYTICS}/{name}.zip", folder=name),),
        config=DataConfig(format="yolo", root=name, train=train, val=val, names=COCO_NAMES),
    )


PUBLISHED = {
    "coco": PublishedData(
        about="COCO 2017: 118,287 training and 5,000 validation images",
        archives=(ANNOTATIONS, VAL2017, TRAIN2017),
        config=_coco("annotations/instances_train2017.json", "train2017"),
    ),
    "coco-val": PublishedData(
        about="COCO 2017's 5,000 validation images, to evaluate on", archives=(ANNOTATIONS, VAL2017), config=_coco("")
    ),
    "coco128": _first_images("coco128", "images/train2017", "images/train2017", 128),
    "coco8": _first_images("coco8", "images/train", "images/val", 8),
}


def get_data(name: str, root: Path, *, keep: bool = False) -> Path:
    """Fetch a published data set into a folder of ``root`` and return the path of its data YAML.

    An interrupted download goes on where it stopped; an archive that is unpacked already is not fetched again, and once
    unpacked is removed unless ``keep``. A file without a published checksum must have the length that its server states and
    the CRCs that the archive holds. YolomishError, saying what to do, on anything else.
    """
    if name not in PUBLISHED:
        raise unknown_name("published data set", name, PUBLISHED)
    wanted = PUBLISHED[name]
    folder = root / wanted.config.root
    for archive in wanted.archives:
        target = (folder if archive.folder != wanted.config.root else root) / archive.folder
        if target.is_dir():
            print(f"{target} is here already", file=sys.stderr)
            continue
        file = target.with_name(archive.file)
        if file.is_file():
            if archive.size:
                check_content(file, archive, keep=True)
        else:
            fetch(archive, file)
        print(f"unpacking {file}", file=sys.stderr)
        unpack(file, target)
        if not keep:
            file.unlink()
            pin_path(file).unlink(missing_ok=True)
    yaml = root / f"{name}.yaml"
    try:
        save_yaml(wanted.config, yaml)
    except OSError as error:
        raise YolomishError(f"{yaml} cannot be written: {error.strerror}") from None
    return yaml
