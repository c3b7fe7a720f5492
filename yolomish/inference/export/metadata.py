"""What an exported model says of itself: class names, input and heads, as JSON inside the file."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from yolomish.config import check_fields, from_dict, parse_json, to_dict
from yolomish.errors import YolomishError, first_line, shown
from yolomish.types import HeadSpec, InputSpec, SizeHW
from yolomish.weights.load import LoadedNetwork

KEY = "yolomish"
OLD_STRIDE = 32  # of the networks exported before the description named its input


@dataclass(frozen=True, kw_only=True)
class EightBits:
    """What a file in 8 bits cost: by what it was made, of how many training ``images`` its ranges are (0: it is in fp32), and
    AP, AP50 and AP75 (0..1) of the fp32 network and of its own by ``protocol``."""

    by: str = ""
    images: int = 0
    protocol: str = ""
    fp32: tuple[float, ...] = ()
    int8: tuple[float, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Description:
    """All that turns raw maps into named boxes. ``dynamic``: whether other sizes and batches than one image of the input's
    size go in; ``nms``: whether boxes instead of raw maps come out; ``eight_bits``: what these cost; ``from_darknet``: whether
    the weights were Darknet's own."""

    name: str
    names: tuple[str, ...]
    input: InputSpec
    heads: tuple[HeadSpec, ...]
    dynamic: bool = True
    nms: bool = False
    eight_bits: EightBits = EightBits()
    from_darknet: bool = False


def describe(loaded: LoadedNetwork, *, size_hw: SizeHW, dynamic: bool, nms: bool = False) -> Description:
    """The description of a network exported at a size in px."""
    network = loaded.network
    spec = replace(network.input, size_hw=size_hw)
    return Description(
        name=network.name,
        names=loaded.names,
        input=spec,
        heads=network.heads,
        dynamic=dynamic,
        nms=nms,
        from_darknet=loaded.from_darknet,
    )


def to_json(description: Description) -> str:
    """One line of JSON."""
    values = to_dict(description)
    if not description.eight_bits.images:
        del values["eight_bits"]
    return json.dumps(values, ensure_ascii=False)


def from_json(text: str | None, path: str | Path) -> Description:
    """What ``to_json`` wrote; YolomishError naming ``path`` where that is not there."""
    if not text:
        raise YolomishError(f"{path} carries no description of its classes and heads: write it with `yolomish export`")
    try:
        values = parse_json(text, "the text")
        if not isinstance(values, dict):
            raise YolomishError(f"it must be a mapping, not {shown(values)}")
        found = from_dict(Description, values if "input" in values else _of_version_1(values), "description")
        check_fields(found)
        _check_heads(found)
        return found
    except (KeyError, TypeError, ValueError, AttributeError, YolomishError) as error:
        what = first_line(error) if isinstance(error, YolomishError) else f"{type(error).__name__} {first_line(error)}"
        raise YolomishError(f"{path} has a description that this version of yolomish cannot read: {what}") from None


def _check_heads(description: Description) -> None:
    if not description.names or not description.heads:
        raise YolomishError("it names no class, or no head")
    spec = description.input
    if not 1 <= spec.stride <= 1024 or not 1 <= spec.channels <= 64:
        raise YolomishError(f"its input has stride {shown(spec.stride)} and {shown(spec.channels)} channels")
    for head in description.heads:
        if head.num_classes != len(description.names):
            raise YolomishError(f"a head has {head.num_classes} classes, and there are {len(description.names)} names")
        if not 1 <= head.stride <= 1024 or not head.mask or any(not 0 <= i < len(head.all_anchors) for i in head.mask):
            raise YolomishError(f"a head has stride {head.stride} and mask {shown(head.mask)} of {len(head.all_anchors)} anchors")
    description.input.check_size(description.input.size_hw)


def _of_version_1(values: dict[str, Any]) -> dict[str, Any]:
    """Files written before named a square size and each head's own anchors."""
    heads = []
    for head in values.pop("heads"):
        anchors = head.pop("anchors")
        heads.append(head | {"all_anchors": anchors, "mask": list(range(len(anchors)))})
    spec = {"size_hw": [values["image_size"]] * 2, "stride": OLD_STRIDE, "resize": values["resize"]}
    return {k: v for k, v in values.items() if k not in ("image_size", "resize")} | {"heads": heads, "input": spec}
