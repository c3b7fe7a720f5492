"""What an exported model says of itself: class names, resize, size and heads, as JSON inside the file."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path

from yolomish.errors import YolomishError
from yolomish.types import HeadSpec, ResizeMode
from yolomish.weights.load import LoadedNetwork

KEY = "yolomish"


@dataclass(frozen=True, kw_only=True)
class Description:
    """All that turns raw maps into named boxes. ``dynamic``: whether other sizes and batches than 1 x ``image_size`` go
    in; ``nms``: whether boxes instead of raw maps come out."""

    name: str
    names: tuple[str, ...]
    resize: ResizeMode
    image_size: int
    heads: tuple[HeadSpec, ...]
    dynamic: bool = True
    nms: bool = False


def describe(network: LoadedNetwork, *, image_size: int, dynamic: bool, nms: bool = False) -> Description:
    """The description of ``network`` exported at ``image_size`` px."""
    return Description(
        name=network.model.config.name,
        names=network.names,
        resize=network.resize,
        image_size=image_size,
        heads=network.model.heads,
        dynamic=dynamic,
        nms=nms,
    )


def to_json(description: Description) -> str:
    """One line of JSON."""
    return json.dumps(dataclasses.asdict(description), ensure_ascii=False)


def from_json(text: str | None, path: str | Path) -> Description:
    """What ``to_json`` wrote; YolomishError naming ``path`` where that is not there."""
    if not text:
        raise YolomishError(f"{path} carries no description of its classes and heads: write it with `yolomish export`")
    try:
        values = json.loads(text)
        heads = [head | {"anchors": tuple((float(w), float(h)) for w, h in head["anchors"])} for head in values.pop("heads")]
        return Description(
            names=tuple(values.pop("names")),
            heads=tuple(HeadSpec(**head) for head in heads),
            **values,
        )
    except (KeyError, TypeError, ValueError) as error:
        raise YolomishError(f"{path} has a description that this version of yolomish cannot read: {error}") from None
