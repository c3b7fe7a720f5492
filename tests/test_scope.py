"""Which activations a scope means, for a network of ours and one of a cfg, and what a swap leaves as it was."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from yolomish.commands import app
from yolomish.comparison.arms import build_arms, scope_of
from yolomish.config import ModelConfig, TrainConfig, load_model_config
from yolomish.darknet.summary import summarise
from yolomish.darknet.write import network_cfg
from yolomish.errors import YolomishError
from yolomish.networks import build_network, find_model
from yolomish.networks.registry import outline
from yolomish.networks.scope import find_slots
from yolomish.weights.checkpoint import save_checkpoint
from yolomish.weights.load import load_network

SMALL = ModelConfig(name="small", width=0.125, depth=0.1, num_classes=3, image_size=64)


def test_a_scope_means_the_same_sections_in_a_network_of_ours_and_in_its_cfg(tmp_path: Path) -> None:
    ours = outline(load_model_config("yolov4"))
    assert len(find_slots(ours, "0-104")) == 72 and find_slots(ours, "0-104").keys() == ours.slots("backbone").keys()
    assert find_slots(ours, "mish").keys() == ours.slots("backbone").keys() and len(find_slots(ours, "all")) == 107
    assert list(find_slots(ours, "137")) == ["head_layers.0.conv"]
    (tmp_path / "y.cfg").write_text(network_cfg(ours))
    theirs = outline(find_model(str(tmp_path / "y.cfg")))
    for scope in ("0-104", "106-116,137", "mish", "leaky", "backbone", "all"):
        one, other = ([b.conv.weight.shape for b in find_slots(n, scope).values()] for n in (ours, theirs))
        assert sorted(one) == sorted(other), scope
    assert list(find_slots(theirs, "layers.3,layers.4".split(",")[1])) == ["layers.4"]


@pytest.mark.parametrize("scope", ["spine", "999", "silu", "stem", "", "3-"])
def test_a_scope_that_means_nothing_is_one_line(scope: str) -> None:
    with pytest.raises(YolomishError, match=f"scope '{scope}' names no activation of small: name all, a part"):
        find_slots(outline(SMALL), scope)


def test_a_scope_of_endless_digits_is_one_short_line() -> None:
    with pytest.raises(YolomishError, match=r"scope '9+\.\.\.9+' names no activation of small") as caught:
        find_slots(outline(SMALL), "9" * 5000)  # beyond what Python makes a number of
    assert len(str(caught.value)) < 500


def test_swaps_follow_one_another_and_leave_the_weights(tmp_path: Path) -> None:
    torch.manual_seed(0)
    plain = build_network(SMALL)
    torch.manual_seed(0)
    swapped = build_network(replace(SMALL, swap=("leaky_relu=mish", "all=relu", "head=silu")))
    assert all(torch.equal(a, b) for a, b in zip(plain.parameters(), swapped.parameters(), strict=True))
    assert swapped.activations("backbone") == ("relu",) and swapped.activations("head") == ("silu",)
    file = tmp_path / "w.pt"
    save_checkpoint(file, config=TrainConfig(model=SMALL, image_size=64), model=plain, names=("a", "b", "c"))
    loaded = load_network(str(file), swap=["leaky_relu=mish"])
    assert loaded.network.activations() == ("mish",) and "other activations" in loaded.notes[0]
    x = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        assert not torch.equal(loaded.network(x)[0], load_network(str(file)).network(x)[0])
        again = build_network(loaded.network.config).eval()
        again.load_state_dict(loaded.network.state_dict())
        assert torch.equal(loaded.network(x)[0], again(x)[0])


def test_arms_of_any_scope_differ_in_it_alone() -> None:
    base = TrainConfig(model=SMALL, image_size=64)
    arms = build_arms(base, ["relu", "silu"], scope="leaky_relu")
    networks = [build_network(arm.config.model) for arm in arms]
    assert [n.activations("neck") for n in networks] == [("relu",), ("silu",)]
    assert {n.activations("backbone") for n in networks} == {("mish",)}
    assert scope_of({"model.swap": tuple(arm.config.model.swap for arm in arms)}) == "leaky_relu"
    with pytest.raises(YolomishError, match="scope 'spine'"):
        build_arms(base, ["relu", "silu"], scope="spine")


def test_the_commands_swap_and_say_so(tmp_path: Path) -> None:
    told = CliRunner().invoke(app, ["info", "yolov4", "--swap", "leaky_relu=mish", "--no-layers"])
    assert told.exit_code == 0 and "(107 mish, 3 linear)" in told.output
    file = tmp_path / "w.pt"
    save_checkpoint(file, config=TrainConfig(model=SMALL, image_size=64), model=build_network(SMALL), names=("a", "b", "c"))
    done = CliRunner().invoke(app, ["export", "--weights", str(file), "--swap", "mish=relu", "--format", "darknet"])
    assert done.exit_code == 0 and "trained with other activations than it runs with here: mish=relu" in done.output
    assert "activation=mish" not in (tmp_path / "w.cfg").read_text()
    wrong = CliRunner().invoke(app, ["info", "yolov4", "--swap", "leaky_relu"])
    assert wrong.exit_code != 0 and isinstance(wrong.exception, YolomishError)


BLURRED = """[net]
height=64
width=64
channels=3
[convolutional]
filters=4
size=3
pad=1
activation=leaky
[convolutional]
filters=4
size=3
stride=2
pad=1
antialiasing=1
activation=leaky
[convolutional]
filters=21
size=1
activation=linear
[yolo]
mask=0,1,2
anchors=8,8, 16,16, 32,32
num=3
classes=2
"""


def test_a_blurred_convolution_is_meant_by_its_sections_number(tmp_path: Path) -> None:
    (tmp_path / "n.cfg").write_text(BLURRED)
    config = find_model(str(tmp_path / "n.cfg"))
    assert [layer.number for layer in summarise(config, config.image_size).layers] == [0, 1, 2]
    swapped = outline(replace(config, swap=("1=relu",)))
    assert [block.activation_name for block in swapped.slots().values()] == ["leaky_relu", "relu"]


def test_a_part_without_activations_is_no_scope(tmp_path: Path) -> None:
    text = BLURRED.partition("[convolutional]\nfilters=21")[0]
    text += "[convolutional]\nfilters=3\nsize=1\nactivation=linear\n[avgpool]\n[softmax]\n"
    (tmp_path / "n.cfg").write_text(text)
    network = outline(find_model(str(tmp_path / "n.cfg")))
    with pytest.raises(YolomishError, match="scope 'head' names no activation"):
        find_slots(network, "head")
