"""Values and bytes made odd: parts replaced, left out, doubled, nested or cut."""

import copy
import random
from collections.abc import Callable
from typing import Any

from hypothesis import strategies as st

ODD: tuple[Any, ...] = (
    None, True, -1, 0, 10**30, 2**63, 1e308, float("nan"), float("inf"), -0.0, 1.5, "", "x", "a" * 300, "a\0b", "\ud800",
    "$x^{", "<script>", "../..", "..", [], [[]], {}, {"x": 1}, [1, "a", None], "1e5", "nan", "0x10", "9" * 4500,
)  # fmt: skip


def _places(value: Any, place: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    pairs = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list | tuple) else ()
    return [place, *(found for key, part in pairs for found in _places(part, (*place, key)))]


def mutated(value: Any, chance: random.Random) -> Any:
    """Plain values with one to three parts replaced by odd ones, left out, doubled or nested."""
    holder = {"all": copy.deepcopy(value)}
    for _ in range(chance.randint(1, 3)):
        *way, key = chance.choice(_places(holder)[1:])
        parent: Any = holder
        for step in way:
            parent = parent[step]
        if isinstance(parent, tuple):
            continue
        what = chance.randrange(5)
        if what == 0 and way:
            del parent[key]
        elif what == 1 and isinstance(parent, list):
            parent.append(parent[key])
        elif what == 2:
            parent[key] = [parent[key]]
        else:
            parent[key] = copy.deepcopy(chance.choice(ODD))
    return holder["all"]


def scarred(content: bytes, chance: random.Random) -> bytes:
    """Bytes of which some are changed, cut off, doubled or put in."""
    data = bytearray(content)
    for _ in range(chance.randint(1, 4)):
        at = chance.randrange(len(data) + 1)
        what = chance.randrange(4)
        if what == 0:
            data[at : at + 1] = bytes([chance.randrange(256)])
        elif what == 1:
            data[at : at + chance.randint(1, 64)] = b""
        elif what == 2:
            data[at:at] = data[at : at + chance.randint(1, 64)]
        else:
            data[at:at] = chance.choice((b"\0", b"\xff\xfe", b"nan", b"9" * 50, b"-1", b"[" * 60, b"&a *a", b"!!int x", b"\n="))
    return bytes(data)


def from_seed(make: Callable[[random.Random], bytes]) -> st.SearchStrategy[bytes]:
    return st.integers(0, 2**32 - 1).map(lambda seed: make(random.Random(seed)))


def text_of(value: Any, dump: Callable[[Any], str]) -> Callable[[random.Random], bytes]:
    def make(chance: random.Random) -> bytes:
        text = dump(mutated(value, chance)).encode("utf-8", "surrogatepass")
        return scarred(text, chance) if chance.random() < 0.3 else text

    return make
