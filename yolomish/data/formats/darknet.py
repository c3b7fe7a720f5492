"""Darknet's .data file, which CVAT's YOLO 1.1 has too; its lists and labels are YOLO txt."""

from __future__ import annotations

from pathlib import Path

from yolomish.config import DataConfig
from yolomish.darknet.names import read_names
from yolomish.data.formats.record import DataFormat, Folders, Split, laid_out, whole
from yolomish.data.formats.writing import WholeSet, Writer
from yolomish.data.formats.yolo import TXT_KEEPS, label_lines, look_along, read_yolo
from yolomish.errors import YolomishError
from yolomish.files import read_text


def recognise_darknet(path: Path) -> DataConfig | None:
    """A .data file, or the folder that holds one."""
    if path.is_file() and path.suffix.lower() == ".data":
        return data_file(path)
    files = sorted(path.glob("*.data")) if path.is_dir() else []
    return data_file(files[0]) if len(files) == 1 else None


def data_file(path: Path) -> DataConfig:
    """What a .data file says: ``train``, ``valid``, ``test``, ``names``; without ``valid``, train is validated on too.

    YolomishError where the names are missing or are not as many as ``classes``.
    """
    values: dict[str, str] = {}
    for line in read_text(path, other="latin-1").splitlines():
        key, equals, value = line.partition("=")
        if equals and not line.lstrip().startswith("#"):
            values[key.strip()] = value.strip()
    root, folders = path.parent, Folders()
    if not values.get("names"):
        raise YolomishError(f"{path} names no file of class names: add names = obj.names")
    file = look_along(root, values["names"], folders)
    if not folders.has(file):
        raise YolomishError(f"{path} names {values['names'][:200]}, which is not there")
    names = read_names(file)
    try:
        count = whole(values.get("classes", len(names)))
    except ValueError as error:
        raise YolomishError(f"{path}: classes {error}") from None
    if count != len(names):
        raise YolomishError(f"{path}: classes is {count}, but {file} has {len(names)} names")
    lists: dict[Split, str | None]
    lists = {"train": values.get("train"), "val": values.get("valid") or values.get("train"), "test": values.get("test")}
    splits = {split: str(look_along(root, value, folders)) for split, value in lists.items() if value}
    return laid_out("darknet", root, splits, names=names)


def write_darknet(folder: Path, whole: WholeSet) -> None:
    """obj.data, obj.names and SPLIT.txt, labels beside the pictures; Darknet is to be run in this folder."""
    for split, records in whole.splits.items():
        for record in records:
            (folder / split / f"{record.path.stem}.txt").write_text(label_lines(record), encoding="utf-8")
        lines = "".join(f"{split}/{record.path.name}\n" for record in records)
        (folder / f"{split}.txt").write_text(lines, encoding="utf-8")
    first = next(iter(whole.splits))
    lists = {"train": "train" if "train" in whole.splits else first, "valid": "val" if "val" in whole.splits else first}
    lists |= {"test": "test"} if "test" in whole.splits else {}
    lines = "".join(f"{key} = {name}.txt\n" for key, name in lists.items())
    text = f"classes = {len(whole.names)}\n{lines}names = obj.names\nbackup = backup/\n"
    (folder / "obj.data").write_text(text, encoding="utf-8")
    (folder / "obj.names").write_text("".join(f"{name}\n" for name in whole.names), encoding="utf-8")


DARKNET = DataFormat(
    name="darknet",
    read=read_yolo,
    recognise=recognise_darknet,
    writer=Writer(pictures=str, write=write_darknet, keeps=TXT_KEEPS, clips=True, least=0.0),
)
