"""The reproduction recipes differ from their bases in what they state, and the page's commands and numbers hold."""

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import typer
from typer.testing import CliRunner

from yolomish.commands import app
from yolomish.commands.options import choose_recipe
from yolomish.comparison.arms import build_arms
from yolomish.config import DataConfig, check_train, config_difference, load_model_config, load_recipe, recipe_model
from yolomish.darknet.summary import summarise
from yolomish.data.loader import step_size, steps_per_epoch
from yolomish.errors import YolomishError
from yolomish.networks.registry import outline

PAGE = (Path(__file__).parents[1] / "docs" / "reproduce.md").read_text(encoding="utf-8")
COCO_IMAGES = 118_287


SMALL_NETWORKS = {"objectness_gain", "class_gain", "translate", "scale"}  # what data/hyp.scratch.s.yaml has otherwise


@pytest.mark.parametrize(
    ("name", "base", "changed"),
    [
        ("paper-yolov4-512", "darknet", {"epochs"}),
        ("paper-scaled-640", "scaled", set()),
        ("paper-pacsp-s", "scaled", SMALL_NETWORKS),
    ],
)
def test_paper_recipes_differ_from_their_base_in_what_they_state(name: str, base: str, changed: set[str]) -> None:
    model = load_model_config("yolov4")
    recipe = load_recipe(name, model)
    check_train(recipe)
    assert set(config_difference(recipe, load_recipe(base, model))) == changed


def test_a_base_must_be_shipped_and_its_model_is_kept(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("base: scaled\nepochs: 7\nmodel:\n  bn_momentum: 0.5\n")
    recipe = load_recipe(str(file), load_model_config("yolov4"))
    assert (recipe.epochs, recipe.model.bn_momentum, recipe.model.box_form, recipe.loss) == (7, 0.5, "squared", "scaled")
    file.write_text("base: scald\n")
    with pytest.raises(YolomishError, match="did you mean 'scaled'"):
        load_recipe(str(file), load_model_config("yolov4"))


def test_the_claim_is_one_command_on_its_own_pair() -> None:
    assert recipe_model("paper-pacsp-s") == "pacsp-s" and not recipe_model("scaled") and not recipe_model("cfg")
    recipe = load_recipe("paper-pacsp-s", load_model_config("pacsp-s"))
    assert (recipe.model.name, recipe.model.box_form, recipe.model.bn_momentum) == ("pacsp-s", "squared", 0.03)
    arms = build_arms(recipe, ["mish", "leaky_relu"], scope="all")
    assert [outline(arm.config.model).activations() for arm in arms] == [("mish",), ("leaky_relu",)]
    assert [len(outline(arm.config.model).slots()) for arm in arms] == [66, 66]


def test_a_recipes_model_is_a_name_or_a_mapping(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("base: scaled\nmodel: [pacsp-s]\n")
    with pytest.raises(YolomishError, match="model must be a mapping or a shipped model's name"):
        load_recipe(str(file), load_model_config("yolov4"))


def test_the_pages_commands_exist_with_their_options() -> None:
    group = typer.main.get_command(app)
    lines = re.findall(r"^yolomish (\w+) (.*)$", PAGE, re.MULTILINE)
    assert len(lines) >= 7
    for command, rest in lines:
        known = {option for parameter in group.commands[command].params for option in parameter.opts}
        assert set(re.findall(r"--[a-z-]+", rest)) <= known, (command, rest)


def test_the_pages_arithmetic_follows_from_the_recipes() -> None:
    hours = []
    for name, of, size in (
        ("paper-yolov4-512", "yolov4", 512),
        ("paper-scaled-640", "pacsp", 640),
        ("paper-pacsp-s", "pacsp-s", 640),
    ):
        model = load_model_config(of)
        recipe = load_recipe(name, model)
        steps = steps_per_epoch(COCO_IMAGES, recipe) * recipe.epochs
        assert f"{steps:,}" in PAGE and recipe.image_size == (size, size)
        sizes = [step_size(step, steps, recipe, 32)[0] for step in range(0, steps, 10)]
        factor = float(np.mean(np.square(sizes)) / size**2)
        bflops = summarise(model, (size, size)).bflops
        assert f"{bflops:.1f}" in PAGE
        hours.append(steps * recipe.batch * 3 * bflops * 1e9 * factor / 1e12 / 3600)
    for rate in (15, 30, 60, 120):
        first, second, third = (round(h / rate) for h in hours)
        assert f"| {rate} | {first} | {second} | {third} | {round(10 * hours[2] / rate)} |" in PAGE


def test_a_recipe_may_be_based_on_one_that_is_based_on_another(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text("base: paper-pacsp-s\nepochs: 3\n")
    mine, paper = (load_recipe(name, load_model_config("pacsp-s")) for name in (str(tmp_path / "mine.yaml"), "paper-pacsp-s"))
    assert mine == replace(paper, epochs=3) and recipe_model(str(tmp_path / "mine.yaml")) == "pacsp-s"
    (tmp_path / "list.yaml").write_text("base: [scaled]\n")
    with pytest.raises(YolomishError, match="recipe"):
        load_recipe(str(tmp_path / "list.yaml"), load_model_config("pacsp-s"))


def test_a_batch_that_the_recipes_mini_batch_does_not_divide_is_taken_at_once() -> None:
    model = load_model_config("yolov4-n")
    config = choose_recipe("darknet", "yolov4-n", model, DataConfig(), {"batch": 4}, print)
    assert (load_recipe("darknet", model).mini_batch, config.batch, config.mini_batch) == (8, 4, 0)
    assert choose_recipe("darknet", "yolov4-n", model, DataConfig(), {"batch": 16}, print).mini_batch == 8


def test_options_are_refused_in_their_own_spelling(tmp_path: Path) -> None:
    refused = CliRunner().invoke(app, ["train", "--resume", str(tmp_path), "--compile", "--close-mosaic", "2"])
    assert str(refused.exception).endswith("leave out --close-mosaic, --compile")
    refused = CliRunner().invoke(app, ["compare", str(tmp_path), "--set", "mosaic=0", "--epochs", "2"])
    assert str(refused.exception).endswith("leave out --epochs, --set")
