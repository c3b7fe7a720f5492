"""SPP and PANet with concatenation (cfg/yolov4.cfg sections 105 to 161), heads left out."""

from __future__ import annotations

from torch import Tensor, nn

from yolomish.nn.blocks import SPP, ConvBlock, concatenate, conv_run, upsample


class PANet(nn.Module):
    """Top-down then bottom-up; features (P3, P4, P5) -> (N3, N4, N5) with c3/2, c4/2, c5/2 channels."""

    def __init__(self, c3: int, c4: int, c5: int, *, activation: str) -> None:
        super().__init__()
        n3, n4, n5 = c3 // 2, c4 // 2, c5 // 2
        self.out_channels = (n3, n4, n5)
        self.before_spp = conv_run(c5, n5, 3, activation=activation)
        self.spp = SPP()
        self.after_spp = conv_run(4 * n5, n5, 3, activation=activation)
        self.up5 = ConvBlock(n5, n4, 1, activation=activation)
        self.lateral4 = ConvBlock(c4, n4, 1, activation=activation)
        self.top_down4 = conv_run(2 * n4, n4, 5, activation=activation)
        self.up4 = ConvBlock(n4, n3, 1, activation=activation)
        self.lateral3 = ConvBlock(c3, n3, 1, activation=activation)
        self.top_down3 = conv_run(2 * n3, n3, 5, activation=activation)
        self.down3 = ConvBlock(n3, n4, 3, stride=2, activation=activation)
        self.bottom_up4 = conv_run(2 * n4, n4, 5, activation=activation)
        self.down4 = ConvBlock(n4, n5, 3, stride=2, activation=activation)
        self.bottom_up5 = conv_run(2 * n5, n5, 5, activation=activation)

    def forward(self, p3: Tensor, p4: Tensor, p5: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        t5 = self.after_spp(self.spp(self.before_spp(p5)))
        t4 = self.top_down4(concatenate(self.lateral4(p4), upsample(self.up5(t5))))
        n3 = self.top_down3(concatenate(self.lateral3(p3), upsample(self.up4(t4))))
        n4 = self.bottom_up4(concatenate(self.down3(n3), t4))
        n5 = self.bottom_up5(concatenate(self.down4(n4), t5))
        return n3, n4, n5
