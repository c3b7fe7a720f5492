"""What lists images with their classes: a folder per class, tar shards, lists, CSV, or a published set."""

from __future__ import annotations

import csv
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from yolomish.config import DataConfig
from yolomish.data.classification.digits import digits_root
from yolomish.data.classification.listing import ClassListing
from yolomish.data.classification.published import SETS, of_published, published_format
from yolomish.data.classification.shards import TAR, holds_shards, of_shards
from yolomish.data.formats.record import Folders, Split, split_path
from yolomish.data.formats.subset import held_apart, part_text, source_split
from yolomish.data.images import SUFFIXES
from yolomish.errors import YolomishError, first_line, unknown_name
from yolomish.files import is_there, read_lines, shown_path

IMAGE_COLUMNS, CLASS_COLUMNS = ("image", "path", "file", "filename"), ("class", "label")


def read_classes(config: DataConfig, split: Split) -> ClassListing:
    """A split of a data set to classify; YolomishError, naming file and line, for what is missing or has no class, and for a
    part of the data, but for what is held out."""
    if part := part_text(replace(config, held_out=0.0)):
        raise YolomishError(f"data to classify is taken whole, not by{part[1:]}: leave that out, or make a smaller folder")
    if config.format == "auto":
        root = Path(config.root)
        shards = "webdataset" if root.suffix == TAR or holds_shards(root) else ""
        found = shards or published_format(root) or "imagefolder"
        config = DataConfig(format=found, root=config.root, held_out=config.held_out)
    if config.format not in FORMATS:
        raise unknown_name("data format to classify", config.format, FORMATS)
    listing = FORMATS[config.format](config, source_split(config, split))
    if not listing.paths:
        raise YolomishError(f"{listing.source} names no images")
    return listing.taken(held_apart(range(len(listing.paths)), listing.paths, config, split, listing.source))


def _of_folders(config: DataConfig, split: Split) -> ClassListing:
    """torchvision's ImageFolder: ROOT/SPLIT/CLASS/**/image; the classes are the folders of train, in order, or ``names``."""
    from torchvision.datasets.folder import make_dataset  # late: torchvision takes a second to import

    folder = Path(config.root) / split_path(config, split)
    names = config.names or _subfolders(Path(config.root) / split_path(config, "train"))
    if unknown := [name for name in _subfolders(folder) if name not in names]:
        raise YolomishError(f"{folder} holds a folder {first_line(unknown[0], 60)!r}, which is no class of train")
    places = {name: i for i, name in enumerate(names)}
    found = make_dataset(str(folder), places, extensions=tuple(SUFFIXES), allow_empty=True)
    paths = _present([Path(path) for path, _ in found], folder)
    return ClassListing(source=folder, names=names, paths=paths, labels=tuple(label for _, label in found))


def _subfolders(folder: Path) -> tuple[str, ...]:
    try:
        found = tuple(sorted(path.name for path in folder.iterdir() if path.is_dir()))
    except OSError as error:
        raise YolomishError(f"{folder} cannot be read: {error.strerror}; a folder per class belongs there") from None
    if not found:
        raise YolomishError(f"{folder} holds no folders: a folder per class belongs there")
    return found


def _of_digits(config: DataConfig, split: Split) -> ClassListing:
    if split == "test":
        raise YolomishError("the built-in digits have the splits train and val, no test")
    return _of_folders(DataConfig(format="imagefolder", root=str(digits_root())), split)


def _of_list(config: DataConfig, split: Split) -> ClassListing:
    """Darknet's: a file of paths, each with the name of its class in it (src/classifier.c, src/data.c fill_truth)."""
    file = Path(config.root) / split_path(config, split)
    if not config.names:
        raise YolomishError(f"{file}: the data YAML lists no names, by which Darknet's lists tell the classes of paths")
    paths, labels, places = [], [], {name: i for i, name in enumerate(config.names)}
    for number, line in enumerate(read_lines(file), 1):
        if text := line.strip():
            paths.append(Path(config.root) / text)
            labels.append(_class_in(text, places, f"{file}:{number}"))
    return ClassListing(source=file, names=config.names, paths=_present(paths, file), labels=tuple(labels))


def _class_in(path: str, places: dict[str, int], where: str) -> int:
    """The one class whose name stands in ``path``: as a word of it, else anywhere, as Darknet takes it.

    Where there are several, Darknet takes all in training and the first in validation; here that is an error.
    """
    words = set(re.split(r"[^0-9A-Za-z]+", path))
    found = [name for name in places if name in words] if len(places) < len(words) else [w for w in words if w in places]
    found = found or [name for name in places if name in path]
    if len(found) != 1:
        which = f"the names of {' and '.join(sorted(found)[:3])}" if found else "no class's name"
        raise YolomishError(f"{where}: {first_line(path, 100)!r} holds {which}: it must hold one")
    return places[found[0]]


def _of_csv(config: DataConfig, split: Split) -> ClassListing:
    """Rows with an image (image, path, file, filename) and its class (class, label); paths start at SPLIT_images in root."""
    file = Path(config.root) / split_path(config, split)
    folder = Path(config.root) / getattr(config, f"{split}_images")
    rows = _rows(file)
    names = config.names or tuple(sorted({name for _, name, _ in _rows(Path(config.root) / split_path(config, "train"))}))
    places = {name: i for i, name in enumerate(names)}
    for number, name, _ in rows:
        if name not in places:
            raise unknown_name(f"class in {file}:{number}", first_line(name, 60), places)
    return ClassListing(
        source=file,
        names=names,
        paths=_present([folder / image for _, _, image in rows], file),
        labels=tuple(places[name] for _, name, _ in rows),
    )


def _rows(file: Path) -> list[tuple[int, str, str]]:
    """The line, class and image of each row."""
    reader = csv.DictReader(read_lines(file))
    try:
        head = reader.fieldnames or ()
        image, name = (next((c for c in known if c in head), "") for known in (IMAGE_COLUMNS, CLASS_COLUMNS))
        if not (image and name):
            raise YolomishError(f"{file} has no columns image and class in its first line: {first_line(','.join(head), 80)!r}")
        return [(reader.line_num, (row[name] or "").strip(), (row[image] or "").strip()) for row in reader]
    except csv.Error as error:
        raise YolomishError(f"{file}:{reader.line_num}: {error}") from None


def _present(paths: list[Path], source: Path) -> tuple[Path, ...]:
    folders = Folders()
    for path in paths:
        if not folders.has(path):
            raise YolomishError(f"{source}: {shown_path(path)} {'is no file' if is_there(path) else 'does not exist'}")
    return tuple(paths)


FORMATS: dict[str, Callable[[DataConfig, Split], ClassListing]] = {
    "imagefolder": _of_folders,
    "darknet": _of_list,
    "csv": _of_csv,
    "webdataset": of_shards,
    **dict.fromkeys(SETS, of_published),
    "digits": _of_digits,
}
