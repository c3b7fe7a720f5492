"""A classifier: a stem, stages and a head; and that of CSPDarknet-53, Darknet's csdarknet53-omega.cfg."""

from __future__ import annotations

from torch import Tensor, nn

from yolomish.config import ModelConfig
from yolomish.networks.base import Network
from yolomish.networks.cspdarknet import cspdarknet53
from yolomish.nn.blocks import ConvBlock
from yolomish.nn.sections import Average, Logits
from yolomish.types import InputSpec


class Classifier(Network):
    """Images (B, 3, H, W) -> a tuple of one, the logits (B, K): it has no ``heads``. Any size does.

    The head is the mean of each channel and a 1x1 convolution, as Darknet has it: the same numbers as a linear layer's.
    """

    def __init__(
        self,
        stem: nn.Module,
        stages: nn.ModuleList,
        channels: int,
        config: ModelConfig,
        *,
        mean: tuple[float, ...] = (),
        std: tuple[float, ...] = (),
    ) -> None:
        super().__init__()
        linear = ConvBlock(channels, config.num_classes, 1, norm=False, activation="linear")
        linear.fixed = True
        self.stem, self.stages = stem, stages
        self.head = nn.Sequential(Average(), linear, Logits())
        self.config, self.heads = config, ()
        self.parts = {"stem": ("stem",), "stages": ("stages",), "head": ("head",)}
        self.input = InputSpec(size_hw=config.image_size, stride=1, resize=config.resize, mean=mean, std=std)

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        x = self.stem(images)
        for stage in self.stages:
            x = stage(x)
        return (self.head(x),)


def build_cspdarknet53(config: ModelConfig) -> Classifier:
    """The classifier of YOLOv4's backbone (cfg/csdarknet53-omega.cfg), with initial weights."""
    backbone = cspdarknet53(width=config.width, depth=config.depth, activation=config.activation)
    return Classifier(backbone.stem, backbone.stages, backbone.out_channels[-1], config)
