"""The network against the published counts (Darknet cfg/yolov4.cfg and README)."""

import json

import pytest
import torch
from typer.testing import CliRunner

from yolomish.commands import app
from yolomish.config import ModelConfig, load_model_config
from yolomish.darknet.summary import summarise
from yolomish.errors import YolomishError
from yolomish.networks import build_network


@pytest.mark.parametrize(("size", "bflops"), [(416, 60.1), (512, 91.1), (608, 128.5)])
def test_yolov4_has_the_published_size_and_cost(size: int, bflops: float) -> None:
    summary = summarise(ModelConfig(), (size, size))
    assert summary.parameters == 64_363_101
    assert summary.activations == {"mish": 72, "leaky_relu": 35, "linear": 3}
    assert len(summary.layers) == 110
    assert round(summary.bflops, 1) == bflops


def test_info_counts_a_wide_network_by_its_cells_height_before_width() -> None:
    def told(size: str) -> dict:
        done = CliRunner().invoke(app, ["info", "yolov4", "--imgsz", size, "--json"])
        assert done.exit_code == 0, done.output
        return json.loads(done.stdout)

    wide, square = told("416x608"), told("416")
    assert (wide["image_size_hw"], square["image_size_hw"]) == ([416, 608], [416, 416])
    assert wide["layers"][0]["output_chw"] == [32, 416, 608] and wide["layers"][-1]["output_chw"] == [255, 13, 19]
    for one, other in ((wide, square), *zip(wide["layers"], square["layers"], strict=True)):
        assert one["bflops"] / other["bflops"] == pytest.approx(608 / 416)
        assert one["parameters"] == other["parameters"]
    line = CliRunner().invoke(app, ["info", "yolov4", "--imgsz", "416x608", "--no-layers"]).stdout
    assert f"{wide['bflops']:.1f} BFLOPs at 416x608 px" in line
    wrong = CliRunner().invoke(app, ["info", "yolov4", "--imgsz", "416x600"])
    assert isinstance(wrong.exception, YolomishError) and "not 416x600: try 416x608" in str(wrong.exception)


@pytest.mark.parametrize("name", ["yolov4-s", "yolov4-n"])
def test_small_members_give_three_maps_and_any_class_count(name: str) -> None:
    import dataclasses

    config = dataclasses.replace(load_model_config(name), num_classes=3)
    model = build_network(config)
    maps = model(torch.rand(1, 3, 96, 64))
    assert [tuple(m.shape) for m in maps] == [(1, 24, 12, 8), (1, 24, 6, 4), (1, 24, 3, 2)]


def test_batch_of_two_equals_two_batches_of_one() -> None:
    model = build_network(load_model_config("yolov4-n")).eval()
    images = torch.rand(2, 3, 64, 64)
    with torch.no_grad():
        both = model(images)
        for i in range(2):
            for a, b in zip(both, model(images[i : i + 1]), strict=True):
                torch.testing.assert_close(a[i : i + 1], b, rtol=1e-4, atol=1e-5)


def test_one_seed_gives_equal_kernels_whatever_the_activation() -> None:
    states = []
    for act in ("mish", "leaky_relu"):
        torch.manual_seed(3)
        states.append(build_network(ModelConfig(width=0.25, depth=0.25, activation=act)).state_dict())
    assert states[0].keys() == states[1].keys()
    assert all(torch.equal(states[0][k], states[1][k]) for k in states[0])


def test_unknown_activation_and_bad_values_are_refused() -> None:
    with pytest.raises(YolomishError, match="did you mean 'mish'"):
        build_network(ModelConfig(activation="mihs", width=0.25, depth=0.25))
    with pytest.raises(YolomishError, match="num_classes"):
        build_network(ModelConfig(num_classes=0))
