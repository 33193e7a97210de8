"""Patches are a strided convolution; without positions order is lost.

An image cut into patches, each flattened and put through one linear layer, is the same as a convolution whose stride
is its width. What follows treats patches as a set: without positions, patches in another order give the same outputs
in that order. So one model takes images of any shape. Asked whether two parts of an image match, wherever they are, a
head has to link them.

Source: Dosovitskiy et al. 2021, An image is worth 16x16 words.
"""

import sys

import pandas as pd
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bioattn.config import PrinciplesConfig
from bioattn.nn import taps
from bioattn.nn.encoder import Encoder
from bioattn.nn.patches import PatchEmbedding
from bioattn.principles.finding import Drawing, Finding, Verdict, finding_of
from bioattn.principles.training import accuracy, train_steps
from bioattn.rng import stream_seed

_PATCH, _WIDTH, _TEXTURES = 4, 32, 4
_SHAPES, _UNSEEN = ((8, 12), (12, 12)), (12, 20)


class Matcher(nn.Module):
    """Images to logits (B, 2): whether their two parts have one texture."""

    def __init__(self) -> None:
        super().__init__()
        self.patches = PatchEmbedding(1, _PATCH, _WIDTH)
        self.encoder = Encoder(_WIDTH, 2, 2, 2 * _WIDTH, positions="none", backend="reference")
        self.readout = nn.Linear(_WIDTH, 2)

    def forward(self, images: Tensor) -> Tensor:  # noqa: D102
        return self.readout(self.encoder(self.patches(images)).amax(1))


def examples(n: int, shape: tuple[int, int], generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
    """Noisy images with two textured patches, whether the textures are the same, and the places (n, 2)."""
    rows, columns = shape[0] // _PATCH, shape[1] // _PATCH
    textures = torch.randn(_TEXTURES, _PATCH, _PATCH, generator=torch.Generator().manual_seed(0))
    first = torch.randint(_TEXTURES, (n,), generator=generator)
    same = torch.randint(2, (n,), generator=generator)
    other = (first + 1 + torch.randint(_TEXTURES - 1, (n,), generator=generator)) % _TEXTURES
    second = torch.where(same == 1, first, other)
    place = torch.rand(n, rows * columns, generator=generator).argsort(1)[:, :2]
    grid = 0.2 * torch.randn(n, rows * columns, _PATCH, _PATCH, generator=generator)
    every = torch.arange(n)
    grid[every, place[:, 0]] += textures[first]
    grid[every, place[:, 1]] += textures[second]
    images = grid.view(n, rows, columns, _PATCH, _PATCH).transpose(2, 3).reshape(n, 1, *shape)
    return images, same, place


def run(settings: PrinciplesConfig) -> Finding:
    """Patches against convolution; a matcher on shapes it saw and one it did not; its head; order without positions."""
    torch.manual_seed(settings.seeds[0])
    embed = PatchEmbedding(3, _PATCH, 7).double().requires_grad_(False)
    images = torch.randn(2, 3, 12, 20, dtype=torch.float64)
    weight = embed.project.weight.view(7, 3, _PATCH, _PATCH)
    convolved = F.conv2d(images, weight, embed.project.bias, stride=_PATCH).flatten(2).transpose(1, 2)
    steps = 500 if settings.size == "fast" else 1500
    rows, links, moved = [], [], []
    for seed in settings.seeds:
        torch.manual_seed(stream_seed(seed, "principles", "patches"))
        generator = torch.Generator().manual_seed(seed)
        network = Matcher()

        def batch(generator: torch.Generator = generator) -> tuple[Tensor, Tensor]:
            shape = _SHAPES[int(torch.randint(len(_SHAPES), (), generator=generator))]
            return examples(128, shape, generator)[:2]

        train_steps(network, batch, steps=steps, learning_rate=3e-3)
        for shape in (*_SHAPES, _UNSEEN):
            found, same, place = examples(1000, shape, generator)
            rows.append([seed, f"{shape[0]} x {shape[1]}", accuracy(network, found, same)])
        links.append(_link(network, found, place))
        order = torch.randperm(15, generator=generator)
        tokens = torch.randn(1, 15, _WIDTH, generator=generator)
        with torch.no_grad():
            moved.append(float((network.encoder(tokens[:, order]) - network.encoder(tokens)[:, order]).abs().max()))
    table = pd.DataFrame(rows, columns=["seed", "shape", "accuracy"])
    by = table.set_index(["shape", "seed"])["accuracy"].unstack("shape")
    unseen = f"{_UNSEEN[0]} x {_UNSEEN[1]}"
    verdicts = [
        Verdict(
            "Patches through a linear layer are a strided convolution: largest difference.", "constructed", 0.0,
            (float((embed(images) - convolved).abs().max()),), 1e-13,
        ),
        Verdict(
            "Two shapes of images in one model: accuracy of the worse one.", "trained", 0.95,
            tuple(by.drop(columns=unseen).min(axis=1)), rule="at least",
        ),
        Verdict(
            f"A shape it never saw ({unseen}): accuracy.", "trained", 0.9, tuple(by[unseen]), rule="at least"
        ),
        Verdict(
            "A head links the two parts: attention from one to the other over that to any patch.", "trained", 2.0,
            tuple(links), rule="at least",
        ),
        Verdict(
            "Without positions patches in another order give the same in that order: largest difference.", "control",
            0.0, tuple(moved), 1e-4,
        ),
    ]  # fmt: skip
    drawing = Drawing("points", "seed", "accuracy", "shape", "seed", "accuracy")
    return finding_of(sys.modules[__name__], verdicts, table, drawing)


@torch.no_grad()
def _link(network: Matcher, images: Tensor, place: Tensor) -> float:
    """Largest mean attention over heads from one part to the other, in units of uniform attention."""
    names = [f"encoder.layer.{i}.attn.pattern" for i in (0, 1)]
    found = {name: module for name, module in network.named_modules() if name in names}
    assert len(found) == 2
    with taps.record(network.encoder, [name.removeprefix("encoder.") for name in names]) as store:
        network(images)
    every = torch.arange(len(images))
    best = 0.0
    for pattern in store.values():
        both = pattern[every, :, place[:, 0], place[:, 1]] + pattern[every, :, place[:, 1], place[:, 0]]
        best = max(best, float((0.5 * both * pattern.shape[-1]).mean(0).max()))
    return best
