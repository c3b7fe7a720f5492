"""A data YAML as it is written for this package or by ultralytics, Roboflow and FiftyOne, made one mapping of settings."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from yolomish.config.schema import MOST_CLASSES, ODD
from yolomish.errors import YolomishError
from yolomish.files import is_there

Split = Literal["train", "val", "test"]
SPLITS: tuple[Split, ...] = ("train", "val", "test")
# keys of other tools' data YAMLs that change nothing here: where to download, how the set is shown, other tasks' settings
FOREIGN = frozenset({"download", "roboflow", "yaml_file", "description", "author", "license", "version", "date", "channels"})
YOLO_KEYS = frozenset({"path", "nc", *FOREIGN})


def data_values(raw: dict[str, Any], file: Path) -> dict[str, Any]:
    """The ``DataConfig`` values of a data YAML's content, ``root`` absolute.

    ``path`` is another name for ``root``; ``names`` may be a mapping from 0, and ``nc`` must be their number; ``valid`` is
    ``val``. Without ``format`` a file that names splits is ``yolo``'s, one that does not is told by what lies in its root.
    YolomishError where the file contradicts itself, or its labels are keypoints.
    """
    values = {key: value for key, value in raw.items() if key not in FOREIGN}
    for other, own in (("path", "root"), ("valid", "val")):
        if other in values:
            if own in values:
                raise YolomishError(f"{file} has both {other} and {own}: leave one out")
            values[own] = values.pop(other)
    if "kpt_shape" in values:
        raise YolomishError(f"{file} has kpt_shape: its label lines hold keypoints, which are not read as boxes or polygons")
    foreign = bool(YOLO_KEYS & raw.keys()) or "format" not in raw
    if "format" not in values:
        values["format"] = "yolo" if any(split in values for split in SPLITS) else "auto"
    values |= _names(values, file)
    splits: dict[str, Any] = {split: values[split] for split in SPLITS if split in values}
    if splits and values["format"] != "voc":  # whose lists have their names
        values |= {split: values.get(split, "") for split in SPLITS}
    root = values.get("root")
    if isinstance(root, list) or not all(_can_be_a_path(value) for value in (root, *splits.values())):
        return values  # refused by the schema
    if foreign and values["format"] == "yolo":
        values["root"] = str(_root(root or "", file, splits))
        values |= {split: _inside(value, Path(values["root"])) for split, value in splits.items()}
    else:
        values["root"] = str((file.parent / (root or "")).resolve())
    return values


def _can_be_a_path(value: Any) -> bool:
    """Whether a value is none, or text (or a list of it) that a file system can be asked for."""
    if isinstance(value, list):
        return all(_can_be_a_path(item) for item in value)
    return value is None or (isinstance(value, str) and not ODD.search(value))


def _names(values: dict[str, Any], file: Path) -> dict[str, Any]:
    """``names`` as a list; ``nc`` is taken out of ``values``."""
    names, count = values.get("names"), values.pop("nc", None)
    if isinstance(names, dict):
        try:
            numbered = {int(key): name for key, name in names.items()}
        except (TypeError, ValueError):
            numbered = {}
        if sorted(numbered) != list(range(len(names))):
            raise YolomishError(f"{file}: names must be numbered 0, 1, 2, ... without a gap")
        names = [numbered[i] for i in range(len(names))]
    if any(isinstance(name, bool) for name in (names if isinstance(names, list) else ())):
        raise YolomishError(f"{file}: YAML reads a class name among yes, no, on, off, true and false as none: quote it")
    if count is None:
        return {"names": names} if names is not None else {}
    if isinstance(count, bool) or not isinstance(count, int) or not 1 <= count <= MOST_CLASSES:
        raise YolomishError(f"{file}: nc must be the number of classes, not {str(count)[:60]!r}")
    if names is None:
        return {"names": [f"class_{i}" for i in range(count)]}  # as ultralytics calls them
    if isinstance(names, list) and len(names) != count:
        raise YolomishError(f"{file}: nc is {count}, but there are {len(names)} names")
    return {"names": names}


def _root(text: str, file: Path, splits: dict[str, Any]) -> Path:
    """The folder that a YAML's paths start from: what it says, or where ultralytics would look, or the YAML's own folder;
    the first of them in which a split is found."""
    home = file.parent
    places = [home / text, home.parent / "datasets" / text, home.parent / text, home] if text else [home]
    paths = [path for value in splits.values() for path in (value if isinstance(value, list) else [value])]
    for place in places:
        if any(isinstance(path, str) and path and is_there(place / _inside(path, place)) for path in paths):
            return place.resolve()
    return places[0].resolve()


def _inside(value: Any, root: Path) -> Any:
    """A split's path, or list of paths, without the ``../`` that Roboflow writes where the folder is in ``root``."""
    if isinstance(value, list):
        return [_inside(item, root) for item in value]
    if isinstance(value, str) and value.startswith("../") and not is_there(root / value) and is_there(root / value[3:]):
        return value[3:]
    return value
