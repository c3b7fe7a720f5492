"""Configurations by name or path: the models, data sets and recipes that come with the package, and the user's YAML."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any, TypeVar

from yolomish.config.data_yaml import data_values
from yolomish.config.schema import from_dict, to_dict
from yolomish.config.settings import DataConfig, ModelConfig, TrainConfig, check_model
from yolomish.config.text import load_yaml
from yolomish.errors import YolomishError, shown, unknown_name
from yolomish.files import is_there

T = TypeVar("T")


def shipped(group: str) -> dict[str, Path]:
    """The YAMLs, and cfgs among models, that come with the package, by name: ``group`` is ``models``, ``data`` or ``recipes``."""
    package = Path(__file__).resolve().parents[1]
    for folder in (package / "configs" / group, package.parent / "configs" / group):
        if folder.is_dir():
            return {p.stem: p for p in sorted(folder.iterdir()) if p.suffix in (".yaml", ".cfg")}
    raise YolomishError(f"the package's configs/{group} is missing: reinstall yolomish")


def load_model_config(name: str) -> ModelConfig:
    """A model by shipped name (``yolov4``, ``yolov4-s``, ``yolov4-n``) or path to a YAML."""
    config = _load(ModelConfig, "models", name, "model")
    check_model(config)
    return config


def load_data_config(name: str) -> DataConfig:
    """A data set by shipped name (``shapes``), by a YAML of ours or ultralytics', or by the file or folder itself.

    A YAML's paths start at its folder, or at its ``root`` (see ``data_values``). Any other file and a folder are told by what
    they hold when they are opened, and tar shards may be a pattern. YolomishError for what is not there.
    """
    known = shipped("data")
    if name in known:
        return from_dict(DataConfig, load_yaml(known[name]), name)
    path = Path(name)
    if path.suffix.lower() in (".yaml", ".yml"):
        return from_dict(DataConfig, data_values(load_yaml(path), path.resolve()), name)
    if path.suffix == ".tar" and not is_there(path) and is_there(path.parent):  # a pattern of shards, such as train-{00..09}.tar
        return DataConfig(format="auto", root=str(path.parent.resolve() / path.name))
    found = bool(name) and is_there(path)
    if not found and path.name != name:
        raise YolomishError(f"no such file or folder: {name[:200]}")
    if not found:
        raise unknown_name("data set", name, known)
    return DataConfig(format="auto", root=str(path.resolve()))


def _load(kind: type[T], group: str, name: str, what: str) -> T:
    known = shipped(group)
    if name in known:
        return from_dict(kind, load_yaml(known[name]), name)
    if Path(name).suffix in (".yaml", ".yml"):
        return from_dict(kind, load_yaml(name), name)
    raise unknown_name(what, name, known)


def load_recipe(name: str, model: ModelConfig) -> TrainConfig:
    """A training recipe for ``model`` by shipped name (``darknet``, ``scaled``) or path to a YAML of ``TrainConfig`` keys.

    Its ``model`` may hold what the recipe needs of the network, such as ``box_form``; the rest stays as it is. Or it names the
    shipped model that the recipe is for, see ``recipe_model``. Its ``base`` may name a shipped recipe from which it differs
    in what it states.
    """
    recipe = _read_recipe(name)
    changed = from_dict(ModelConfig, to_dict(model) | recipe.changes, f"{name}.model")
    return dataclasses.replace(from_dict(TrainConfig, recipe.values, name), model=changed)


def recipe_model(name: str) -> str:
    """The shipped model that a recipe is for, empty where it names none (or is no YAML)."""
    if name not in shipped("recipes") and Path(name).suffix not in (".yaml", ".yml"):
        return ""
    return _read_recipe(name).model


def recipe_task(name: str) -> str:
    """The task that a recipe is for; ``detect`` where it names none (or is no YAML)."""
    if name not in shipped("recipes") and Path(name).suffix not in (".yaml", ".yml"):
        return "detect"
    return str(_read_recipe(name).values.get("task", "detect"))


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Recipe:
    """A recipe with all that it is based on: training settings, what it changes in the network, the model it is for."""

    values: dict[str, Any]
    changes: dict[str, Any]
    model: str


def _read_recipe(name: str) -> _Recipe:
    known = shipped("recipes")
    if name not in known and Path(name).suffix not in (".yaml", ".yml"):
        raise unknown_name("recipe", name, known)
    values = load_yaml(known.get(name, Path(name)))
    base, model = values.pop("base", None), values.pop("model", None) or {}
    if not isinstance(model, dict | str):
        raise YolomishError(f"{name}.model must be a mapping or a shipped model's name, not {shown(model)}")
    below = _Recipe(values={}, changes={}, model="")
    if base is not None:
        if not isinstance(base, str) or base not in known:
            raise unknown_name("recipe", base, known)
        below = _read_recipe(base)
    values = below.values | values
    if isinstance(model, str):
        return _Recipe(values=values, changes=below.changes, model=model)
    return _Recipe(values=values, changes=below.changes | model, model=below.model)
