"""CSPDarknet: a stem and a stage for each halving of the size; CSPDarknet53 is cfg/yolov4.cfg sections 0 to 104."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from torch import Tensor, nn

from yolomish.nn.blocks import ConvBlock, CSPStage

RESIDUALS = (1, 2, 8, 8, 4)
CHANNELS = (64, 128, 256, 512, 1024)
STEM_CHANNELS = 32
FIRST_FEATURE = 2  # the third stage's, at stride 8


def scaled_channels(channels: int, width: float) -> int:
    """Channels times ``width``, rounded to a multiple of 8, at least 8."""
    return max(8, round(channels * width / 8) * 8)


class CSPDarknet(nn.Module):
    """(B, 3, H, W) -> the stages' features from stride 8 on, with ``out_channels``; ``channels`` are those of all stages."""

    def __init__(self, stem: ConvBlock, stages: Iterable[nn.Module], channels: Sequence[int]) -> None:
        super().__init__()
        self.stem = stem
        self.stages = nn.ModuleList(stages)
        self.out_channels = tuple(channels[FIRST_FEATURE:])

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        x = self.stem(x)
        features = []
        for stage in self.stages:
            x = stage(x)
            features.append(x)
        return tuple(features[FIRST_FEATURE:])


def cspdarknet53(*, width: float, depth: float, activation: str) -> CSPDarknet:
    """Five CSP stages of 1, 2, 8, 8, 4 residual units times ``depth``: 256, 512, 1024 channels out at ``width`` 1."""
    stem = scaled_channels(STEM_CHANNELS, width)
    channels = [scaled_channels(c, width) for c in CHANNELS]
    first = ConvBlock(3, stem, 3, activation=activation)
    stages = [
        CSPStage(c_in, c_out, max(1, round(n * depth)), full=i == 0, activation=activation)
        for i, (c_in, c_out, n) in enumerate(zip([stem, *channels[:-1]], channels, RESIDUALS, strict=True))
    ]
    return CSPDarknet(first, stages, channels)
