"""The U-Net of DDPM (Ho et al. 2020, App. B), from 8×8 digits to the paper's CIFAR-10 network.

channels 128, multipliers (1, 2, 2, 2), 2 residual blocks, attention at 16 and dropout 0.1 are the paper's: 35.7 M.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn import functional as F

from trilemma_bench.errors import UsageError
from trilemma_bench.nn.embedding import Conditioning, TimestepEmbedding
from trilemma_bench.nn.layers import group_norm, init_fan_average, init_zero, joined
from trilemma_bench.nn.resample import NearestUpsample


class UNet(nn.Module):
    """Noisy images N×C×H×W and their steps → a prediction of the same shape; 0 at the start.

    size: H = W, divisible by 2 to the power of (levels − 1). multipliers: width of each level in units of `channels`;
    every level halves the size. attention_resolutions: sizes that get self-attention, as the middle always does.
    times: how many times a sample has. classes: of labels, 0 for none. augmentation: how many numbers tell what was
    done to an image in training. Raises ValueError for a size that cannot be halved so often.
    """

    def __init__(
        self,
        image_channels: int,
        size: int,
        *,
        channels: int = 64,
        multipliers: Sequence[int] = (1, 2, 2),
        res_blocks: int = 2,
        attention_resolutions: Sequence[int] = (16,),
        dropout: float = 0.0,
        times: int = 1,
        classes: int = 0,
        augmentation: int = 0,
    ) -> None:
        super().__init__()
        check_levels(size, len(multipliers), res_blocks)
        widths = [channels * multiplier for multiplier in multipliers]
        attends = [size >> level in attention_resolutions for level in range(len(widths))]
        block = _BlockFactory(4 * channels, dropout)
        embedding = TimestepEmbedding(channels, 4 * channels, times=times, augmentation=augmentation)
        self.time = Conditioning(embedding, 4 * channels, classes)
        self.first = nn.Conv2d(image_channels, channels, 3, padding=1)
        self.down, skips = _down_path(block, channels, widths, attends, res_blocks)
        self.middle = nn.ModuleList([block(widths[-1], widths[-1], True), block(widths[-1], widths[-1], False)])
        self.up = _up_path(block, skips, widths, attends, res_blocks)
        last = nn.Conv2d(channels * multipliers[0], image_channels, 3, padding=1)
        self.last = nn.Sequential(group_norm(widths[0]), nn.SiLU(), last)
        self.apply(_init_ddpm)
        init_zero(last)

    def forward(
        self, x: Tensor, steps: Tensor, labels: Tensor | None = None, *, augmentation: Tensor | None = None
    ) -> Tensor:
        """steps: times of shape (N,), N×times if several, with N = 1 where all are alike; labels: int64 N;
        augmentation: N×numbers, None where nothing was done to the images.
        """
        time = self.time(steps, labels, augmentation)
        skips = [self.first(x)]
        for level in self.down:
            skips += level(skips[-1], time)
        h = skips[-1]
        for block in self.middle:
            h = block(h, time)
        for level in self.up:
            h = level(h, time, skips)
        return self.last(h)


class ResBlock(nn.Module):
    """Two 3×3 convolutions around the time embedding, the sum with the input, then attention if asked for."""

    def __init__(self, inputs: int, outputs: int, time_dim: int, dropout: float, attention: bool) -> None:
        super().__init__()
        self.before = nn.Sequential(group_norm(inputs), nn.SiLU(), nn.Conv2d(inputs, outputs, 3, padding=1))
        self.time = nn.Linear(time_dim, outputs)
        self.after = nn.Sequential(group_norm(outputs), nn.SiLU(), nn.Dropout(dropout))
        self.last = nn.Conv2d(outputs, outputs, 3, padding=1)
        self.shortcut = nn.Conv2d(inputs, outputs, 1) if inputs != outputs else nn.Identity()
        self.attention = Attention(outputs) if attention else nn.Identity()

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        h = self.before(x) + self.time(time)[:, :, None, None]
        return self.attention(self.shortcut(x) + self.last(self.after(h)))


class Attention(nn.Module):
    """Self-attention between all pixels of N×C×H×W, one head, added to the input."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = group_norm(channels)
        self.qkv = nn.Conv2d(channels, 3 * channels, 1)
        self.last = nn.Conv2d(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        query, key, value = self.qkv(self.norm(x)).flatten(2).transpose(1, 2).unsqueeze(1).chunk(3, dim=3)
        mixed = F.scaled_dot_product_attention(query, key, value)
        return x + self.last(mixed.squeeze(1).transpose(1, 2).reshape(x.shape))


class _DownLevel(nn.Module):
    """Residual blocks of one size, then a halving: returns every step of the way, for the skip connections."""

    def __init__(self, blocks: Sequence[ResBlock], halve: nn.Module | None) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(blocks)
        self.halve = halve

    def forward(self, h: Tensor, time: Tensor) -> list[Tensor]:
        skips: list[Tensor] = []
        for block in self.blocks:
            h = block(h, time)
            skips.append(h)
        return skips if self.halve is None else [*skips, self.halve(h)]


class _UpLevel(nn.Module):
    """Residual blocks of one size, each of which takes the last of the `skips`, then a doubling."""

    def __init__(self, blocks: Sequence[ResBlock], enlarge: nn.Module | None) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(blocks)
        self.enlarge = enlarge

    def forward(self, h: Tensor, time: Tensor, skips: list[Tensor]) -> Tensor:
        for block in self.blocks:
            h = block(joined(h, skips.pop()), time)
        return h if self.enlarge is None else self.enlarge(h)


class _BlockFactory:
    """What all residual blocks of one network have in common."""

    def __init__(self, time_dim: int, dropout: float) -> None:
        self.time_dim, self.dropout = time_dim, dropout

    def __call__(self, inputs: int, outputs: int, attention: bool) -> ResBlock:
        return ResBlock(inputs, outputs, self.time_dim, self.dropout, attention)


def check_levels(size: int, levels: int, res_blocks: int) -> None:
    """Raises UsageError unless there are levels of an image of `size` pixels, with residual blocks in each."""
    if size % 2 ** (levels - 1):
        raise UsageError(f"{size} pixels cannot be halved {levels - 1} times: use fewer than {levels} multipliers")
    if res_blocks < 1:
        raise UsageError(f"res_blocks = {res_blocks}: choose at least 1")


def _down_path(
    block: _BlockFactory, width: int, widths: Sequence[int], attends: Sequence[bool], res_blocks: int
) -> tuple[nn.ModuleList, list[int]]:
    """The levels from fine to coarse, and the widths of all skip connections in their order."""
    levels, skips = nn.ModuleList(), [width]
    for index, (target, attention) in enumerate(zip(widths, attends, strict=True)):
        inputs = [width] + [target] * (res_blocks - 1)
        is_last = index == len(widths) - 1
        halve = None if is_last else nn.Conv2d(target, target, 3, stride=2, padding=1)
        levels.append(_DownLevel([block(each, target, attention) for each in inputs], halve))
        skips += [target] * (res_blocks + (not is_last))
        width = target
    return levels, skips


def _up_path(
    block: _BlockFactory, skips: Sequence[int], widths: Sequence[int], attends: Sequence[bool], res_blocks: int
) -> nn.ModuleList:
    """The levels from coarse to fine; each block takes one skip connection, the last one first."""
    levels, skips, width = nn.ModuleList(), list(skips), widths[-1]
    for index in reversed(range(len(widths))):
        blocks = []
        for _ in range(res_blocks + 1):
            blocks.append(block(width + skips.pop(), widths[index], attends[index]))
            width = widths[index]
        enlarge = nn.Sequential(NearestUpsample(), nn.Conv2d(width, width, 3, padding=1)) if index else None
        levels.append(_UpLevel(blocks, enlarge))
    return levels


def _init_ddpm(module: nn.Module) -> None:
    """Weights of Glorot's uniform kind, biases 0; a residual branch starts as 0."""
    init_fan_average(module)
    if isinstance(module, Attention):
        bound = (3 / module.last.in_channels) ** 0.5  # Glorot's of queries, keys and values each, not of all in one
        nn.init.uniform_(module.qkv.weight, -bound, bound)
    if isinstance(module, ResBlock | Attention):
        init_zero(module.last)
