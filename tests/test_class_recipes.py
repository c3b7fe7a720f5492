"""Recipes of classification against the files and programs that they name, and the digits that they are tried on."""

import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import cv2
import numpy as np
import pytest

from yolomish.config import DataConfig, check_train, load_data_config, load_recipe, recipe_model, recipe_task, shipped
from yolomish.darknet.cfg import load_cfg
from yolomish.data.classification import open_classes
from yolomish.errors import YolomishError
from yolomish.networks import find_model
from yolomish.networks.registry import outline
from yolomish.tasks.registry import find_task

RECIPES = ("darknet-omega", "digits", "resnet50-paper")


def test_the_recipes_of_classification_are_whole() -> None:
    assert {name for name in shipped("recipes") if recipe_task(name) == "classify"} == set(RECIPES)
    assert recipe_task("cfg") == "detect"
    for name in RECIPES:
        config = load_recipe(name, find_model(recipe_model(name)))
        check_train(config)
        find_task("classify").check(config, outline(config.model))
        assert config.model.name == recipe_model(name)


def test_darknet_omega_is_its_cfg(shared_data: Path) -> None:
    net = load_cfg(shared_data / "darknet-cfg" / "classifiers" / "csdarknet53-omega.cfg").sections[0]
    config = load_recipe("darknet-omega", find_model("cspdarknet53"))
    number = net.number
    assert config.batch == number("batch", 0) and config.mini_batch == config.batch / number("subdivisions", 0)
    keys = {"peak_lr": "learning_rate", "poly_power": "power", "burn_in": "burn_in", "momentum": "momentum"}
    keys |= {"weight_decay": "decay", "label_smoothing": "label_smooth_eps", "degrees": "angle", "hue": "hue"}
    assert {ours: getattr(config, ours) for ours in keys} == {ours: number(theirs, 0) for ours, theirs in keys.items()}
    for ours, theirs in (("saturation", "saturation"), ("exposure", "exposure"), ("crop_aspect", "aspect")):
        assert getattr(config, ours) == pytest.approx(1 / number(theirs, 0))  # src/utils.c rand_scale takes both ways
    assert config.schedule == net.text("policy") and config.image_size == (number("height", 0), number("width", 0))
    assert config.crop_area == pytest.approx((256 / number("max_crop", 0)) ** 2, abs=0.005)
    assert config.epochs == round(number("max_batches", 0) * config.batch / 1_281_167)


def stub(monkeypatch: pytest.MonkeyPatch) -> np.ndarray:
    """scikit-learn's load_digits with twenty pictures; returns them."""
    images = np.random.default_rng(0).integers(0, 17, (20, 8, 8)).astype(float)
    datasets = ModuleType("sklearn.datasets")
    datasets.load_digits = lambda: SimpleNamespace(images=images, target=np.arange(20) % 10)  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "sklearn", ModuleType("sklearn"))
    monkeypatch.setitem(sys.modules, "sklearn.datasets", datasets)
    return images


def test_digits_are_written_once_and_split_in_half(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("YOLOMISH_CACHE", str(tmp_path))
    images = stub(monkeypatch)
    config = load_data_config("digits")
    train, val = open_classes(config, "train"), open_classes(config, "val")
    assert train.names == val.names == tuple("0123456789") and len(train) == len(val) == 10
    for data, first in ((train, 0), (val, 10)):
        for index in range(10):
            number = int(data.path(index).stem)
            assert number >= first and data.labels[index] == number % 10
            assert np.array_equal(data.image(index)[..., 0], np.rint(images[number] * 255 / 16).astype(np.uint8))
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    assert len(open_classes(config, "val")) == 10  # not asked again
    with pytest.raises(YolomishError, match="no test"):
        open_classes(config, "test")


def test_without_scikit_learn_digits_say_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("YOLOMISH_CACHE", str(tmp_path))
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    with pytest.raises(YolomishError, match=r"pip install 'yolomish\[digits\]'"):
        open_classes(DataConfig(format="digits"), "train")
    assert not list(tmp_path.iterdir())


def test_the_real_digits_are_1797(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("sklearn", reason="scikit-learn, whose package holds the digits, is not installed")
    monkeypatch.setenv("YOLOMISH_CACHE", str(tmp_path))
    config = load_data_config("digits")
    assert [len(open_classes(config, split)) for split in ("train", "val")] == [898, 899]
    assert cv2.imread(str(open_classes(config, "val").path(0))).shape == (8, 8, 3)
