"""What an exported model says of itself: class names, input and heads, as JSON inside the file."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from yolomish.config import from_dict, to_dict
from yolomish.errors import YolomishError
from yolomish.types import HeadSpec, InputSpec, SizeHW
from yolomish.weights.load import LoadedNetwork

KEY = "yolomish"
OLD_STRIDE = 32  # of the networks exported before the description named its input


@dataclass(frozen=True, kw_only=True)
class Description:
    """All that turns raw maps into named boxes. ``dynamic``: whether other sizes and batches than one image of the input's
    size go in; ``nms``: whether boxes instead of raw maps come out."""

    name: str
    names: tuple[str, ...]
    input: InputSpec
    heads: tuple[HeadSpec, ...]
    dynamic: bool = True
    nms: bool = False


def describe(loaded: LoadedNetwork, *, size_hw: SizeHW, dynamic: bool, nms: bool = False) -> Description:
    """The description of a network exported at a size in px."""
    network = loaded.network
    spec = replace(network.input, size_hw=size_hw)
    return Description(name=network.name, names=loaded.names, input=spec, heads=network.heads, dynamic=dynamic, nms=nms)


def to_json(description: Description) -> str:
    """One line of JSON."""
    return json.dumps(to_dict(description), ensure_ascii=False)


def from_json(text: str | None, path: str | Path) -> Description:
    """What ``to_json`` wrote; YolomishError naming ``path`` where that is not there."""
    if not text:
        raise YolomishError(f"{path} carries no description of its classes and heads: write it with `yolomish export`")
    try:
        values = json.loads(text)
        return from_dict(Description, values if "input" in values else _of_version_1(values), "description")
    except (KeyError, TypeError, ValueError, YolomishError) as error:
        raise YolomishError(f"{path} has a description that this version of yolomish cannot read: {error}") from None


def _of_version_1(values: dict[str, Any]) -> dict[str, Any]:
    """Files written before named a square size and each head's own anchors."""
    heads = []
    for head in values.pop("heads"):
        anchors = head.pop("anchors")
        heads.append(head | {"all_anchors": anchors, "mask": list(range(len(anchors)))})
    spec = {"size_hw": [values["image_size"]] * 2, "stride": OLD_STRIDE, "resize": values["resize"]}
    return {k: v for k, v in values.items() if k not in ("image_size", "resize")} | {"heads": heads, "input": spec}
