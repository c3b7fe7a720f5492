"""Between our checkpoints and Darknet's files, and what a weights file says of itself."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from yolomish.config import ModelConfig
from yolomish.darknet.order import file_order
from yolomish.darknet.summary import summarise
from yolomish.darknet.weights import is_darknet_file, parse_header, write_weights
from yolomish.darknet.write import section_numbers, write_cfg
from yolomish.errors import YolomishError
from yolomish.files import Digest, digest, make_folder, refuse_existing, write_text
from yolomish.types import SizeHW
from yolomish.weights.catalogue import published_as
from yolomish.weights.checkpoint import config_of, read_checkpoint, save_checkpoint
from yolomish.weights.load import LoadedNetwork, load_network
from yolomish.weights.structure import structure_of

DARKNET_BATCH = 64  # images an iteration in every yolov4 cfg


@dataclass(frozen=True, kw_only=True)
class WeightsReport:
    """What is known of a weights file; ``provenance`` is by checksum or by what the file records."""

    path: str
    kind: str
    bytes: int
    sha256: str
    model: str
    num_classes: int
    convolutions: int
    parameters: int
    activations: dict[str, int]
    activations_from: str
    images_seen: int | None
    iterations: int | None
    provenance: str


def import_darknet(
    path: Path, target: Path, *, cfg: str = "", model: str = "", names: Sequence[str] = (), force: bool = False
) -> None:
    """Write the checkpoint ``target`` from a whole ``.weights`` file, with its origin in the checkpoint's ``progress``.

    Its structure is as in ``load_network``; ``names`` are its classes (empty: as ``load_network`` calls them).
    """
    if not is_darknet_file(path):
        raise YolomishError(f"{path} is not a Darknet .weights file: there is nothing to import")
    refuse_existing([target], force)
    loaded = load_network(str(path), cfg=cfg, model=model)
    if names and len(names) != len(loaded.names):
        raise YolomishError(f"{len(names)} class names were given, {path} has {len(loaded.names)} classes")
    origin = {"imported_from": path.name, "sha256": digest(path).sha256, "images_seen": loaded.images_seen}
    save_checkpoint(target, config=loaded.config, model=loaded.network, names=tuple(names) or loaded.names, progress=origin)


def write_darknet(
    loaded: LoadedNetwork, folder: Path, stem: str, *, size_hw: SizeHW | None = None, force: bool = False
) -> list[Path]:
    """Write a network as ``stem``.weights, .cfg and .names into ``folder``; returns the files written.

    ``size_hw`` px (None: the network's own) is the cfg's, which asks for a letterbox where the network was trained with one.
    YolomishError where a file is there already, unless by ``force``.
    """
    files = [folder / f"{stem}{suffix}" for suffix in (".weights", ".cfg", ".names")]
    refuse_existing(files, force)
    network = loaded.network
    make_folder(folder)
    write_cfg(files[1], network, size_hw)  # first: it refuses what Darknet lacks
    write_weights(files[0], network, loaded.images_seen)
    write_text(files[2], "".join(f"{name}\n" for name in loaded.names))
    return files


def cut_darknet(loaded: LoadedNetwork, folder: Path, stem: str, sections: int) -> Path:
    """Write the weights of the first ``sections`` after [net] as ``stem``.conv.N into ``folder``, as Darknet's ``partial`` does
    (src/darknet.c partial); returns the file. 105 of csdarknet53-omega make what yolov4 starts from."""
    numbers = section_numbers(loaded.network)
    stored = [stored.name.removesuffix(".conv") for stored in file_order(loaded.network)]
    count = sum(numbers[name] < sections for name in stored)
    if not count:
        raise YolomishError(f"the first {sections} sections of {loaded.network.name} hold no weights: cut behind more of them")
    make_folder(folder)
    target = folder / f"{stem}.conv.{sections}"
    write_weights(target, loaded.network, convolutions=count)
    return target


def describe_weights(path: Path, *, cfg: str = "", model: str = "") -> WeightsReport:
    """All that can be said of a ``.pt``, ``.weights`` or ``.conv.N`` file.

    A Darknet file's structure is that of ``cfg`` or ``model``, else what its name and length say (see ``structure_of``).
    """
    return _describe_darknet(path, cfg, model) if is_darknet_file(path) else _describe_checkpoint(path)


def _describe_checkpoint(path: Path) -> WeightsReport:
    saved = read_checkpoint(path)
    config = config_of(saved, path)
    progress: dict[str, Any] = saved["progress"]
    origin = "trained by yolomish"
    if "imported_from" in progress:
        origin = f"imported from {progress['imported_from']} (SHA-256 {progress['sha256']})"
    elif "epoch" in progress:
        origin += f", after epoch {progress['epoch']}"
    seen = progress.get("images_seen")
    return _report(path, "yolomish checkpoint", config.model, "recorded in the file", seen, origin, digest(path))


def _describe_darknet(path: Path, cfg: str, model: str) -> WeightsReport:
    with path.open("rb") as file:
        header = parse_header(file.read(20), path)
    config = structure_of(path, cfg, model)
    source = f"not in the file: {cfg or config.name} says so"
    content = digest(path)
    known = published_as(path, content)
    origin = f"{known.url}, by SHA-1: {known.about}" if known else "not a file that is known"
    return _report(path, f"Darknet {'.'.join(map(str, header.version))}", config, source, header.images_seen, origin, content)


def _report(
    path: Path, kind: str, config: ModelConfig, source: str, seen: int | None, origin: str, content: Digest
) -> WeightsReport:
    summary = summarise(config, config.image_size)
    return WeightsReport(
        path=str(path),
        kind=kind,
        bytes=content.size,
        sha256=content.sha256,
        model=config.name,
        num_classes=config.num_classes,
        convolutions=len(summary.layers),
        parameters=summary.parameters,
        activations=dict(summary.activations),
        activations_from=source,
        images_seen=seen,
        iterations=None if seen is None else seen // DARKNET_BATCH,
        provenance=origin,
    )
