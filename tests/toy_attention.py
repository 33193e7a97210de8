"""Masks, score biases and small models that the tests of attention share."""

from functools import partial

import pytest
import torch
from torch import Tensor, nn

from bioattn.config import ModelConfig, StemConfig
from bioattn.models import SequenceModel, build_model
from bioattn.nn import backends
from bioattn.nn.encoder import Encoder
from bioattn.nn.masks import BlockSparse, Causal, Dilated, Global, Mask, Window
from bioattn.nn.positions import AlibiBias, RelativeBias, ScoreBias

#: Longest sequence of the block masks below.
LONGEST = 41
#: Block 1 reads nothing and nothing reads it; the others read themselves, three of them one more.
LAYOUT = torch.eye(7, dtype=torch.bool)
LAYOUT[0, 3] = LAYOUT[4, 0] = LAYOUT[5, 6] = True
LAYOUT[1] = False

MASKS: dict[str, Mask | None] = {
    "none": None,
    "causal": Causal(),
    "window": Window(3),
    "dilated": Dilated(3, 2),
    "global": Global(2),
    "blocks": BlockSparse(LAYOUT, 7),
    "random": BlockSparse.random(LONGEST, block=3, per_block=2, seed=1),
    "window|dilated|global": Window(2) | Dilated(5, 3) | Global(1),
    "window&causal": Window(4) & Causal(),
    "(window|random)&causal": (Window(1) | BlockSparse.random(LONGEST, block=5, per_block=1, seed=2)) & Causal(),
}
SPARSE = [name for name, mask in MASKS.items() if mask is not None]
BACKENDS = ("reference", "sdpa", "local")
#: Every backend with every mask that it takes: local needs one.
KERNELS = [(b, m) for b in BACKENDS for m in MASKS if b != "local" or MASKS[m] is not None]


def small_blocks(monkeypatch: pytest.MonkeyPatch, block: int = 5) -> None:
    """Let the local backend take few queries at a time, so that short sequences have several blocks."""
    monkeypatch.setattr(backends, "make_layout", partial(backends.make_layout, block=block))


def randomised(module: nn.Module, seed: int = 0) -> nn.Module:
    """The module in float64 with all parameters drawn anew, so that none (a zero bias, a unit gain) is neutral."""
    generator = torch.Generator().manual_seed(seed)
    module = module.double()
    with torch.no_grad():
        for parameter in module.parameters():
            size = 1.0 if parameter.ndim < 2 else parameter.shape[-1] ** -0.5
            parameter.copy_(torch.randn(parameter.shape, generator=generator, dtype=torch.float64) * size)
    return module


def score_bias(kind: str, n_heads: int, seed: int = 0) -> ScoreBias | None:
    """Score bias in float64: "none", "relative" with a random table, or "alibi"."""
    if kind == "none":
        return None
    return randomised({"relative": RelativeBias, "alibi": AlibiBias}[kind](n_heads), seed)


def toy_encoder(backend: str = "sdpa", mask: str = "none", *, n_layers: int = 2, seed: int = 0, **more) -> Encoder:
    """Encoder in float64 of width 12 with 3 heads, in evaluation mode; its positions are relative unless said."""
    settings = {"positions": "relative", "max_length": LONGEST} | more
    encoder = Encoder(12, n_layers, 3, 17, backend=backend, mask=MASKS[mask], **settings)
    return randomised(encoder, seed).eval()


def toy_model(seed: int = 0, **more) -> SequenceModel:
    """Sequence model in float64 with 5 bp filters and tokens of 3 bp, in evaluation mode."""
    settings = {"d_model": 12, "n_layers": 2, "n_heads": 3, "d_feedforward": 17, "dropout": 0.0} | more
    settings.setdefault("stem", StemConfig(kind="conv", n_filters=5, width=5, pool=3))
    return randomised(build_model(ModelConfig(**settings), n_readouts=2), seed).eval()


def draw(*shape: int, seed: int = 0) -> Tensor:
    """Standard normal numbers in float64."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def real_tokens(*lengths: int, longest: int | None = None) -> Tensor:
    """Padding mask (B, L), True for the first `lengths` tokens."""
    return torch.arange(longest or max(lengths)) < torch.tensor(lengths)[:, None]


def hooks(model: nn.Module) -> int:
    """Hooks of all modules of a model."""
    return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) + len(m._backward_hooks) for m in model.modules())


def without_attention(model):
    """The same model with all attention outputs at zero: tokens never meet, and the readout is a sum over tokens."""
    with torch.no_grad():
        for block in model.encoder.layer:
            block.attn.project_out.weight.zero_()
            block.attn.project_out.bias.zero_()
    return model


def woken(module: nn.Module, seed: int = 0) -> nn.Module:
    """The module in float64 with random weights everywhere, also where it starts with zeros."""
    draw = torch.Generator().manual_seed(seed)
    module = module.double()
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=draw, dtype=torch.float64) * 0.5)
    return module
