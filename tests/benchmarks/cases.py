"""What the benchmark measures; each function runs in a process of its own."""

import importlib.util
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from measure import Measured, Peak, interleaved_seconds, measure, timed
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode, bmm_flop

from bioattn.config import ModelConfig, StemConfig
from bioattn.explain.tracks import head_tracks
from bioattn.models import SequenceModel, build_model
from bioattn.nn import taps
from bioattn.nn.backends import make_backend
from bioattn.nn.encoder import Encoder
from bioattn.nn.masks import Dilated, Global, Mask, Window
from bioattn.nn.multihead import MultiHeadAttention
from bioattn.nn.observe import attention_blocks, attention_sums

D_MODEL, N_LAYERS, N_HEADS, D_FEEDFORWARD = 64, 2, 4, 128
#: Length of the step that warms a process up.
SMALL = 256

#: Backend and mask of each kind of attention.
KINDS: dict[str, tuple[str, Mask | None]] = {
    "sdpa": ("sdpa", None),
    "reference": ("reference", None),
    "local, window 256": ("local", Window(256)),
    "local, window 128": ("local", Window(128)),
    "local, window 256 + 4 global": ("local", Window(256) | Global(4)),
    "local, window 128 + dilated 8 x 32": ("local", Window(128) | Dilated(8, 32)),
}

# -------------------------------------------------------------- growth with length


def operation(kind: str, length: int, *, backward: bool) -> Measured:
    """Attention alone, from queries, keys and values to values."""
    backend = make_backend(*KINDS[kind])

    def prepare(length: int) -> Callable[[], object]:
        shape = (1, N_HEADS, length, D_MODEL // N_HEADS)
        query, key, value, grad = (torch.randn(shape) for _ in range(4))
        inputs = [x.requires_grad_(backward) for x in (query, key, value)]

        def step() -> None:
            with torch.set_grad_enabled(backward):
                values = backend(*inputs)
                if backward:
                    torch.autograd.grad(values, inputs, grad)

        return step

    return measure(prepare, length, small=min(SMALL, length))


def layer(kind: str, length: int, *, backward: bool = True) -> Measured:
    """An attention layer with its projections."""

    def prepare(length: int) -> Callable[[], object]:
        module = MultiHeadAttention(D_MODEL, N_HEADS, backend=make_backend(*KINDS[kind]))
        return _step(module, length, backward=backward)

    return measure(prepare, length, small=min(SMALL, length))


def encoder(
    kind: str,
    length: int,
    *,
    backward: bool,
    checkpointing: bool = False,
    optimizer: bool = False,
    n_layers: int = N_LAYERS,
) -> Measured:
    """An encoder: forward, with its gradient, or with the optimizer's step too."""

    def prepare(length: int) -> Callable[[], object]:
        name, mask = KINDS[kind]
        model = Encoder(
            D_MODEL,
            n_layers,
            N_HEADS,
            D_FEEDFORWARD,
            positions="rope",
            backend=name,
            mask=mask,
            checkpointing=checkpointing,
        )
        return _step(model, length, backward=backward, optimizer=optimizer)

    return measure(prepare, length, small=min(SMALL, length))


def _step(model: nn.Module, length: int, *, backward: bool, optimizer: bool = False) -> Callable[[], object]:
    x_BLD = torch.randn(1, length, D_MODEL, requires_grad=backward and not optimizer)
    grad = torch.randn(1, length, D_MODEL)
    optimiser = torch.optim.AdamW(model.parameters()) if optimizer else None

    def step() -> None:
        model.zero_grad(set_to_none=True)
        with torch.set_grad_enabled(backward):
            out = model(x_BLD)
        if backward:
            out.backward(grad)
        if optimiser is not None:
            optimiser.step()

    return step


# ------------------------------------------------------------------------ capture

DENSE = "dense patterns by taps"
RECEIVED, TRACKS = "head_tracks, received attention alone", "head_tracks, all three tracks"
WAYS = ["plain forward pass", "attention_blocks", "attention_sums", RECEIVED, TRACKS, DENSE]
CAPTURE = {"length": 600, "n_layers": 4, "n_heads": 8, "d_model": 128, "n_hits": 20, "batch": 16}
#: Sequences timed at a time, so that the ways can take turns.
GROUP = CAPTURE["batch"]
#: Ways that sum up whole patterns, and the number of groups they are timed on; they are slower.
SUMMED, GROUPS_SUMMED = ("attention_sums", RECEIVED, TRACKS), 7


def _model() -> SequenceModel:
    config = ModelConfig(
        stem=StemConfig(kind="none", pool=1),
        d_model=CAPTURE["d_model"],
        n_layers=CAPTURE["n_layers"],
        n_heads=CAPTURE["n_heads"],
        d_feedforward=2 * CAPTURE["d_model"],
        positions="rope",
    )
    return build_model(config, n_readouts=1).eval()


def _sequences(n: int) -> tuple[Tensor, Tensor]:
    """Bases (n, L) and ascending positions of hits (n, hits)."""
    torch.manual_seed(0)
    tokens = torch.randint(4, (n, CAPTURE["length"]))
    hits = torch.stack([torch.randperm(CAPTURE["length"])[: CAPTURE["n_hits"]].sort().values for _ in range(n)])
    return tokens, hits


def _ways(model: SequenceModel) -> dict[str, Callable[[Tensor, Tensor], object]]:
    """What is done with sequences and their hits."""
    size = CAPTURE["batch"]

    @torch.inference_mode()
    def forward(tokens: Tensor, hits: Tensor) -> Tensor:
        return torch.cat([model.one_strand(part) for part in tokens.split(size)])

    @torch.inference_mode()
    def dense(tokens: Tensor, hits: Tensor) -> Tensor:
        names = [f"layer.{i}.attn.pattern" for i in range(model.n_layers)]
        found = []
        for part, hit in zip(tokens.split(size), hits.split(size), strict=True):
            with taps.record(model, names) as store:
                model.one_strand(part)
            stacked = torch.stack([store[name] for name in names], dim=1)
            index = hit[:, None, None, :, None].expand(-1, *stacked.shape[1:3], -1, stacked.shape[-1])
            rows = stacked.gather(3, index)
            found.append(rows.gather(4, hit[:, None, None, None].expand(*rows.shape[:4], -1)))
        return torch.cat(found)

    def blocks(tokens: Tensor, hits: Tensor) -> Tensor:
        return attention_blocks(model, tokens, None, None, hits, hits, batch_size=size)

    def sums(tokens: Tensor, hits: Tensor) -> object:
        return attention_sums(model, tokens, batch_size=size)

    def tracks(gradients: bool) -> Callable[[Tensor, Tensor], object]:
        return lambda tokens, hits: head_tracks(model, tokens.numpy().astype(np.uint8), gradients=gradients)

    return dict(zip(WAYS, (forward, blocks, sums, tracks(False), tracks(True), dense), strict=True))


def capture_seconds(n: int) -> dict[str, list[float]]:
    """Seconds of each way but the dense one for the groups that make up n sequences, taken in turns."""
    ways = _ways(_model())
    tokens, hits = _sequences(n)
    seconds: dict[str, list[float]] = {name: [] for name in WAYS if name != DENSE}
    for name in seconds:
        ways[name](tokens[:2], hits[:2])
    for i, (some, at) in enumerate(zip(tokens.split(GROUP), hits.split(GROUP), strict=True)):
        for name, each in list(seconds.items())[:: 1 if i % 2 == 0 else -1]:
            if name not in SUMMED or i < GROUPS_SUMMED:
                each.append(timed(lambda name=name, some=some, at=at: ways[name](some, at)))
    return seconds


def capture_peak(way: str, n: int) -> float:
    """Peak memory in MiB of one way over n sequences, what it returns included."""
    do = _ways(_model())[way]
    tokens, hits = _sequences(n)
    do(tokens[:2], hits[:2])
    with Peak() as peak:
        do(tokens, hits)
    return peak.mib


def capture_agrees(n: int = 4) -> float:
    """Largest difference between `attention_blocks` and the same entries of dense patterns."""
    ways = _ways(_model())
    tokens, hits = _sequences(n)
    few, dense = (ways[name](tokens, hits) for name in ("attention_blocks", DENSE))
    return float((few - dense).abs().max())


# --------------------------------------------------------- other implementations

#: One training step: batch, length, width, layers, heads, feed-forward width.
SIZES: dict[str, tuple[int, int, int, int, int, int]] = {
    "small (32 x 128 tokens, d_model 64, 2 layers, 4 heads)": (32, 128, 64, 2, 4, 128),
    "larger (4 x 512 tokens, d_model 256, 4 layers, 8 heads)": (4, 512, 256, 4, 8, 1024),
}
OURS, TORCH, X_TRANSFORMERS = "bioattn Encoder", "torch.nn.TransformerEncoder", "x_transformers.Encoder"


class _Torch(nn.Module):
    def __init__(self, d_model: int, n_layers: int, n_heads: int, d_feedforward: int, dropout: float) -> None:
        super().__init__()
        block = nn.TransformerEncoderLayer(
            d_model, n_heads, d_feedforward, dropout, "gelu", batch_first=True, norm_first=True
        )
        self.encoder = nn.TransformerEncoder(block, n_layers, norm=nn.LayerNorm(d_model), enable_nested_tensor=False)

    def forward(self, x_BLD: Tensor, *, keep: Tensor | None = None) -> Tensor:
        return self.encoder(x_BLD, src_key_padding_mask=None if keep is None else ~keep)


class _XTransformers(nn.Module):
    def __init__(self, d_model: int, n_layers: int, n_heads: int, d_feedforward: int, dropout: float) -> None:
        super().__init__()
        from x_transformers import Encoder as Theirs

        self.encoder = Theirs(
            dim=d_model,
            depth=n_layers,
            heads=n_heads,
            attn_dim_head=d_model // n_heads,
            attn_flash=True,
            attn_dropout=dropout,
            ff_mult=d_feedforward / d_model,
            ff_dropout=dropout,
        )

    def forward(self, x_BLD: Tensor, *, keep: Tensor | None = None) -> Tensor:
        return self.encoder(x_BLD, mask=keep)


def _ours(d_model: int, n_layers: int, n_heads: int, d_feedforward: int, dropout: float) -> nn.Module:
    return Encoder(d_model, n_layers, n_heads, d_feedforward, positions="none", dropout=dropout)


def training_steps(size: str, *, padded: bool, dropout: float, repetitions: int) -> dict[str, list[float]]:
    """Seconds of training steps of equally large encoders without positions, in turns."""
    n_batch, length, *widths = SIZES[size]
    torch.manual_seed(0)
    x_BLD, grad = torch.randn(2, n_batch, length, widths[0])
    keep = None
    if padded:
        keep = torch.arange(length) < torch.linspace(length // 2, length, n_batch).long()[:, None]
    makers: dict[str, Any] = {OURS: _ours, TORCH: _Torch}
    if importlib.util.find_spec("x_transformers"):
        makers[X_TRANSFORMERS] = _XTransformers
    steps = {name: training_step(make(*widths, dropout), x_BLD, grad, keep) for name, make in makers.items()}
    return interleaved_seconds(steps, repetitions=repetitions)


def training_step(model: nn.Module, x_BLD: Tensor, grad: Tensor, keep: Tensor | None) -> Callable[[], object]:
    """Forward, backward and AdamW step."""
    model.train()
    optimizer = torch.optim.AdamW(model.parameters())
    options = {} if keep is None else {"keep": keep}

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        model(x_BLD, **options).backward(grad)
        optimizer.step()

    return step


# ------------------------------------------------------------- use of the machine


def attention_flop(query: tuple, key: tuple, value: tuple, *_: Any, out_shape: Any = None, **__: Any) -> int:
    """Operations of the fused CPU kernel: two matrix products."""
    n, length, width = query[0] * query[1], query[2], query[3]
    return bmm_flop((n, length, width), (n, width, key[2])) + bmm_flop((n, length, key[2]), (n, key[2], value[3]))


def attention_backward_flop(grad: tuple, query: tuple, key: tuple, value: tuple, *_: Any, **__: Any) -> int:
    """Operations of its gradient: five matrix products, the scores being computed again."""
    return attention_flop(query, key, value) * 5 // 2


FORMULAS = {
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: attention_flop,
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward: attention_backward_flop,
}


def utilisation(size: str, *, kind: str = "sdpa", length: int | None = None) -> dict[str, float]:
    """Seconds and operations of a training step and of a matrix product, taken in turns."""
    n_batch, own_length, *widths = SIZES[size]
    if length is not None:
        n_batch, own_length = max(1, n_batch * own_length // length), length
    name, mask = KINDS[kind]
    model = Encoder(*widths, positions="rope", dropout=0.1, backend=name, mask=mask)
    x_BLD, grad = torch.randn(2, n_batch, own_length, widths[0])
    step = training_step(model, x_BLD, grad, None)
    counter = FlopCounterMode(display=False, custom_mapping=FORMULAS)
    with counter:
        step()
    left, right = torch.randn(2, 2048, 2048)
    seconds = interleaved_seconds({"step": step, "product": lambda: left @ right}, repetitions=5)
    return {
        "step seconds": min(seconds["step"]),
        "step flop": float(counter.get_total_flops()),
        "product seconds": min(seconds["product"]),
        "product flop": 2.0 * 2048**3,
    }
