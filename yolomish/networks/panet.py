"""Necks with SPP and concatenation, heads left out: YOLOv4's PANet and the cross-stage-partial one of Scaled-YOLOv4."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from yolomish.nn.blocks import SPP, ConvBlock, CSPRun, concatenate, conv_run, upsample


class PANet(nn.Module):
    """cfg/yolov4.cfg sections 105 to 161, top-down then bottom-up: features (P3, P4, P5) -> (N3, N4, N5), half as wide."""

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


class TopDown(nn.Module):
    """A coarser neck map, up to a feature's size and beside it, merged: (B, c_coarse, h, w), (B, c, 2h, 2w) -> (B, n, 2h, 2w)."""

    def __init__(self, c_coarse: int, c_feature: int, n: int, pairs: int, *, activation: str) -> None:
        super().__init__()
        self.up = ConvBlock(c_coarse, n, 1, activation=activation)
        self.lateral = ConvBlock(c_feature, n, 1, activation=activation)
        self.merge = reversed_csp(2 * n, n, pairs, activation=activation)

    def forward(self, coarse: Tensor, feature: Tensor) -> Tensor:
        up = upsample(self.up(coarse))
        return self.merge(concatenate(self.lateral(feature), up))


class BottomUp(nn.Module):
    """A finer neck map, down to a coarser one's size and beside it, merged: (B, c_fine, 2h, 2w), (B, n, h, w) -> (B, n, h, w)."""

    def __init__(self, c_fine: int, n: int, pairs: int, *, activation: str) -> None:
        super().__init__()
        self.down = ConvBlock(c_fine, n, 3, stride=2, activation=activation)
        self.merge = reversed_csp(2 * n, n, pairs, activation=activation)

    def forward(self, fine: Tensor, coarse: Tensor) -> Tensor:
        return self.merge(concatenate(self.down(fine), coarse))


def reversed_csp(c_in: int, n: int, pairs: int, *, activation: str) -> nn.Sequential:
    """The neck's cross-stage-partial block (arXiv:2011.08036): 1x1, then ``pairs`` of 1x1 and 3x3 beside a bypass."""
    run = conv_run(n, n, 2 * pairs, wide=n, activation=activation)
    return nn.Sequential(ConvBlock(c_in, n, 1, activation=activation), CSPRun(n, n, run, activation=activation))


class CSPPAN(nn.Module):
    """The cross-stage-partial SPP and PAN of Scaled-YOLOv4 (arXiv:2011.08036): features, fine to coarse -> as many, half as wide.

    Args:
        channels: The features' channels, fine to coarse.
        before: Convolutions 1x1, 3x3, ... before the pools.
        after: The same behind them.
        pairs: Pairs of 1x1 and 3x3 in each merge.
        activation: A name or ``file.py:name``.
    """

    def __init__(self, channels: Sequence[int], *, before: int, after: int, pairs: int, activation: str) -> None:
        super().__init__()
        n = tuple(c // 2 for c in channels)
        self.out_channels = n
        last, levels = n[-1], range(len(n) - 1)
        first = conv_run(channels[-1], last, before, wide=last, activation=activation)
        pooled = nn.Sequential(first, SPP(), conv_run(4 * last, last, after, wide=last, activation=activation))
        self.spp = CSPRun(channels[-1], last, pooled, activation=activation)
        self.top_down = nn.ModuleList(
            TopDown(n[i + 1], channels[i], n[i], pairs, activation=activation) for i in reversed(levels)
        )
        self.bottom_up = nn.ModuleList(BottomUp(n[i], n[i + 1], pairs, activation=activation) for i in levels)

    def forward(self, *features: Tensor) -> tuple[Tensor, ...]:
        maps = [self.spp(features[-1])]
        for step, feature in zip(self.top_down, features[-2::-1], strict=True):
            maps.insert(0, step(maps[0], feature))
        found = [maps[0]]
        for step, coarse in zip(self.bottom_up, maps[1:], strict=True):
            found.append(step(found[-1], coarse))
        return tuple(found)
