"""CSPDarknet53 (cfg/yolov4.cfg sections 0 to 104): a stem and five CSP stages of 1, 2, 8, 8, 4 residual units."""

from __future__ import annotations

from torch import Tensor, nn

from yolomish.nn.blocks import ConvBlock, CSPStage

RESIDUALS = (1, 2, 8, 8, 4)
CHANNELS = (64, 128, 256, 512, 1024)
STEM_CHANNELS = 32


def scaled_channels(channels: int, width: float) -> int:
    """Channels times ``width``, rounded to a multiple of 8, at least 8."""
    return max(8, round(channels * width / 8) * 8)


class CSPDarknet53(nn.Module):
    """(B, 3, H, W) -> features at strides 8, 16, 32 with ``out_channels`` (256, 512, 1024 at width 1)."""

    def __init__(self, *, width: float, depth: float, activation: str) -> None:
        super().__init__()
        stem = scaled_channels(STEM_CHANNELS, width)
        channels = [scaled_channels(c, width) for c in CHANNELS]
        self.stem = ConvBlock(3, stem, 3, activation=activation)
        self.stages = nn.ModuleList(
            CSPStage(c_in, c_out, max(1, round(n * depth)), full=i == 0, activation=activation)
            for i, (c_in, c_out, n) in enumerate(zip([stem, *channels[:-1]], channels, RESIDUALS, strict=True))
        )
        self.out_channels = (channels[2], channels[3], channels[4])

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        x = self.stem(x)
        features = []
        for stage in self.stages:
            x = stage(x)
            features.append(x)
        return features[2], features[3], features[4]
