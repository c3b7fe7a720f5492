"""ResNets as torchvision has them (torchvision/models/resnet.py; arXiv:1512.03385, stride in the 3x3), with activation slots."""

from __future__ import annotations

import re
from dataclasses import dataclass

from torch import Tensor, nn

from yolomish.config import ModelConfig
from yolomish.errors import YolomishError
from yolomish.networks.classifier import Classifier
from yolomish.networks.cspdarknet import scaled_channels
from yolomish.nn.blocks import ConvBlock
from yolomish.nn.sections import Pool, Shortcut

STAGE_CHANNELS = (64, 128, 256, 512)
# What ImageNet's pictures are less and over, RGB in 0..1: torchvision/transforms/_presets.py ImageClassification
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@dataclass(frozen=True, kw_only=True)
class Member:
    """``units`` in each of the four stages; with a ``bottleneck`` a unit returns four times its channels. ``groups`` of
    ``group_width`` channels at the first stage's 64 make a ResNeXt (arXiv:1611.05431)."""

    units: tuple[int, ...]
    bottleneck: bool = True
    groups: int = 1
    group_width: int = 64


MEMBERS = {
    "resnet18": Member(units=(2, 2, 2, 2), bottleneck=False),
    "resnet34": Member(units=(3, 4, 6, 3), bottleneck=False),
    "resnet50": Member(units=(3, 4, 6, 3)),
    "resnet101": Member(units=(3, 4, 23, 3)),
    "resnet152": Member(units=(3, 8, 36, 3)),
    "resnext50": Member(units=(3, 4, 6, 3), groups=32, group_width=4),
}


def _linear(c_in: int, c_out: int, kernel: int, stride: int = 1) -> ConvBlock:
    """A convolution whose result is summed: no activation may be put there."""
    block = ConvBlock(c_in, c_out, kernel, stride=stride, activation="linear")
    block.fixed = True
    return block


class ResidualUnit(nn.Module):
    """activation(x + convolutions(x)): (B, C_in, H, W) -> (B, C_out, H/stride, W/stride). The last convolution and the
    projection of x, where its shape changes, are linear."""

    def __init__(self, c_in: int, c: int, stride: int, member: Member, *, activation: str) -> None:
        super().__init__()
        c_out = 4 * c if member.bottleneck else c
        if member.bottleneck:
            inner = c * member.group_width // 64 * member.groups
            first = ConvBlock(c_in, inner, 1, activation=activation)
            second = ConvBlock(inner, inner, 3, stride=stride, groups=member.groups, activation=activation)
            self.convs = nn.ModuleList((first, second, _linear(inner, c_out, 1)))
        else:
            self.convs = nn.ModuleList((ConvBlock(c_in, c, 3, stride=stride, activation=activation), _linear(c, c, 3)))
        self.project = _linear(c_in, c_out, 1, stride) if stride > 1 or c_in != c_out else None
        self.join = Shortcut((c_out, c_out), (1, 1), activation=activation)
        self.out_channels = c_out

    def forward(self, x: Tensor) -> Tensor:
        kept = x if self.project is None else self.project(x)
        for conv in self.convs:
            x = conv(x)
        joined: Tensor = self.join(x, kept)
        return joined


def build_resnet(config: ModelConfig) -> Classifier:
    """The member that ``config.architecture`` names, with initial weights; ``width`` multiplies all channels, ``depth`` the
    units of each stage. YolomishError on a bad value."""
    member = MEMBERS[config.architecture]
    if config.width != 1 and member.groups > 1:
        raise YolomishError(f"{config.architecture}'s groups have their own width: leave out width, not {config.width:g}")
    activation = config.activation
    stem = scaled_channels(STAGE_CHANNELS[0], config.width)
    c_in, stages = stem, []
    for i, (base, units) in enumerate(zip(STAGE_CHANNELS, member.units, strict=True)):
        stage = []
        for j in range(max(1, round(units * config.depth))):
            stride = 2 if i and not j else 1
            stage.append(ResidualUnit(c_in, scaled_channels(base, config.width), stride, member, activation=activation))
            c_in = stage[-1].out_channels
        stages.append(nn.Sequential(*stage))
    first = nn.Sequential(ConvBlock(3, stem, 7, stride=2, activation=activation), Pool(3, (2, 2), 2))
    return Classifier(first, nn.ModuleList(stages), c_in, config, mean=MEAN, std=STD)


def of_torchvision(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """A state dict of torchvision's (or timm's) ResNets by our names; what is no ResNet's is left out."""
    found = {}
    for name, value in state.items():
        name = re.sub(r"^conv1\.", "stem.0.conv.", re.sub(r"^bn1\.", "stem.0.bn.", name))
        if unit := re.fullmatch(r"layer(\d)\.(\d+)\.(conv|bn|downsample\.)(\d)\.(\w+)", name):
            stage, number, kind, place, tensor = unit.groups()
            if kind == "downsample.":
                module = f"project.{('conv', 'bn')[int(place)]}"
            else:
                module = f"convs.{int(place) - 1}.{kind}"
            name = f"stages.{int(stage) - 1}.{number}.{module}.{tensor}"
        elif name in ("fc.weight", "fc.bias"):
            name, value = f"head.1.conv.{name[3:]}", value[..., None, None] if name == "fc.weight" else value
        if name.startswith(("stem.", "stages.", "head.")):
            found[name] = value
    return found
