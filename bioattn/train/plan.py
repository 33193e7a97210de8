"""What a training needs, before it starts: peak memory and arithmetic, from a dry run of one step.

The dry run makes the model, the batch, the gradients and the optimiser state as
shapes without numbers, so it allocates nothing, whatever the size. It follows the
code that trains, so a new layer needs no formula here.
"""

import itertools
import math
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
import torch
from pydantic import ValidationError
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

from bioattn.config import ModelConfig, RunConfig, TrainConfig
from bioattn.data import alphabet
from bioattn.data.motif import Motif
from bioattn.errors import ConfigError
from bioattn.models import SequenceModel, build_model
from bioattn.tokens import BpeTokenizer, KmerTokenizer
from bioattn.train.data import EVALUATION_BATCH
from bioattn.train.memory import (
    CUDA_BYTES,
    EXAMPLE_BYTES,
    FIRST_WORKER_BYTES,
    GIB,
    HEAP_GAPS,
    MIB,
    PROCESS_BYTES,
    SAFETY_SHARE,
    WORKER_BYTES,
    memory_limit,
    track_memory,
)
from bioattn.train.module import decay_groups, loss_sum

__all__ = ["Plan", "memory_limit", "plan", "track_memory"]

#: Window, in tokens to either side, that is tried where all-to-all attention does not fit.
_WINDOW = 128
#: Tokens and examples of the steps from which a recurrent network is extrapolated: it takes its tokens one by one,
#: so a dry run of all of them would take minutes.
_RECURRENT_TOKENS, _RECURRENT_SIZES = (32, 64), (4, 8)


@dataclass(frozen=True)
class Plan:
    """What a training needs.

    Attributes
    ----------
    n_parameters : int
    process_bytes : int
        Memory apart from tensors: on a CPU the process and those that prepare batches, on a GPU CUDA's own.
    data_bytes : int
        The encoded examples, which are held in the memory of the CPU.
    fixed_bytes : int
        Weights, gradients, optimiser state, and what else does not depend on the number of examples.
    bytes_per_example : int
        What each example of a step adds.
    batch_size : int
        Examples per optimisation step.
    micro_batch : int
        Examples that are computed together: `batch_size`, or one of the fewest equal parts of it that fit.
    evaluation_batch : int
        Examples that are computed together where no gradients are needed.
    peak_bytes : int
        Most that is needed at one time, with `micro_batch` and `evaluation_batch`: on a CPU by the whole process, on
        a GPU of its memory.
    limit_bytes : int
        What may be needed, see `memory_limit`.
    flops_per_step, flops_total : int
        Floating-point operations of one optimisation step, and of all `epochs` over the training examples.
    tight : bool
        Whether the peak is only kept if freed memory goes back to the system, see `freed_memory_returned`.
    """

    n_parameters: int
    process_bytes: int
    data_bytes: int
    fixed_bytes: int
    bytes_per_example: int
    batch_size: int
    micro_batch: int
    evaluation_batch: int
    peak_bytes: int
    limit_bytes: int
    flops_per_step: int
    flops_total: int
    tight: bool

    @property
    def n_parts(self) -> int:
        """Parts that each step is computed in."""
        return -(-self.batch_size // self.micro_batch)

    def __str__(self) -> str:
        parts = "" if self.n_parts == 1 else f" in {self.n_parts} parts of at most {self.micro_batch}"
        return (
            f"{self.n_parameters:,} parameters; memory {_size(self.peak_bytes)} of at most {_size(self.limit_bytes)}; "
            f"{self.batch_size} examples per step{parts}, {_size(self.bytes_per_example)} each; "
            f"{self.flops_per_step:.3g} FLOP per step, {self.flops_total:.3g} in all"
        )


def plan(
    n_examples: int,
    length: int,
    config: RunConfig,
    device: str = "auto",
    *,
    n_readouts: int | None = None,
    motifs: Sequence[Motif] = (),
    padded: bool = True,
    n_validation: int = EVALUATION_BATCH,
    n_test: int = 0,
    tokenizer: BpeTokenizer | None = None,
) -> Plan:
    """Predicted peak memory and arithmetic of training the model of a run.

    With a learned tokenizer every sequence is taken to have the tokens of the densest
    training sequences of its length, and 5 % more; others need less than predicted.

    Parameters
    ----------
    n_examples : int
        Training examples.
    length : int
        Bases of the longest sequence.
    config : RunConfig
        Its sections model, train and task are read.
    device : {"auto", "cpu", "cuda"}
        auto: as `config.train.device` says. For CUDA too, the kernels of a CPU are
        followed: what they store is about what those of CUDA store.
    n_readouts : int, optional
        Outputs of the model; by default those of the task.
    motifs : sequence of Motif
        For a stem of kind "pwm".
    padded : bool
        Whether sequences differ in length.
    n_validation : int
        Validation examples, which are predicted after each epoch.
    n_test : int
        Test examples, which the training only holds.
    tokenizer : BpeTokenizer, optional
        For a tokenizer of kind "bpe", that of the model.

    Returns
    -------
    Plan
        Steps are split into parts where a whole batch does not fit.

    Raises
    ------
    ConfigError
        If not even one example at a time fits; with the settings that would make it fit, each tried.
    """
    kind, precision = _device(device, config.train)
    dry = _DryRun(
        model=config.model,
        task=config.task.kind,
        n_readouts=config.task.n_readouts if n_readouts is None else n_readouts,
        motif_widths=tuple(motif.width for motif in motifs) if config.model.stem.kind == "pwm" else (),
        autocast=precision == "bf16-mixed",
        foreach=kind == "cuda",
        # Learned words differ in length, so their number does even where that of bases does not.
        padded=padded or tokenizer is not None,
        tokenizer=tokenizer,
    )
    room = _Room(
        memory_limit(kind, config.train.memory_gb),
        on_cuda=kind == "cuda",
        n_examples=n_examples + n_validation + n_test,
        workers=config.train.workers,
    )
    batch_size = config.train.batch_size
    found = _largest_part(dry, length, batch_size, room.left(dry, length))
    if found is None:
        raise _refusal(dry, length, room, config.train)
    micro_batch, needs = found
    together = min(max(batch_size, EVALUATION_BATCH), max(n_validation, 1))
    evaluation_batch = min(together, needs.evaluation.most(room.left(dry, length)))
    tensors = max(needs.training(micro_batch), needs.evaluation.at(evaluation_batch))
    per_example = needs.flops.per_example
    return Plan(
        n_parameters=needs.n_parameters,
        process_bytes=room.process,
        data_bytes=room.data(dry, length),
        fixed_bytes=needs.step.fixed,
        bytes_per_example=needs.step.per_example,
        batch_size=batch_size,
        micro_batch=micro_batch,
        evaluation_batch=evaluation_batch,
        peak_bytes=room.taken(dry, length) + tensors,
        limit_bytes=room.limit,
        flops_per_step=per_example * batch_size,
        flops_total=per_example * n_examples * config.train.epochs,
        tight=kind == "cpu" and HEAP_GAPS * tensors > room.left(dry, length),
    )


@dataclass(frozen=True)
class _Room:
    """Memory that a job may take, and what of it is taken whatever the batch."""

    limit: int
    on_cuda: bool
    n_examples: int
    workers: int

    @property
    def process(self) -> int:
        if self.on_cuda:
            return CUDA_BYTES
        return PROCESS_BYTES + (FIRST_WORKER_BYTES + self.workers * WORKER_BYTES if self.workers else 0)

    def data(self, dry: "_DryRun", length: int) -> int:
        """Codes in bytes, targets in float32, and what every example has beside them."""
        return self.n_examples * (length + 4 * dry.n_readouts + EXAMPLE_BYTES)

    def taken(self, dry: "_DryRun", length: int) -> int:
        return self.process + (0 if self.on_cuda else self.data(dry, length))

    def left(self, dry: "_DryRun", length: int) -> int:
        return self.limit - self.taken(dry, length)


def _device(device: str, config: TrainConfig) -> tuple[str, str]:
    """Kind of device and precision, as `resolve_device` would choose them, without its warnings."""
    device = config.device if device == "auto" else device
    available = torch.cuda.is_available()
    if device == "auto":
        device = "cuda" if available else "cpu"
    precision = config.precision
    if precision == "auto":
        with_bf16 = device == "cuda" and (not available or torch.cuda.is_bf16_supported())
        precision = "bf16-mixed" if with_bf16 else "32-true"
    return device, precision


def _largest_part(dry: "_DryRun", length: int, batch_size: int, room: int) -> "tuple[int, _Needs] | None":
    """Examples in the fewest equal parts of a batch that fit into `room` bytes, and the needs near that size."""
    size = batch_size
    while True:
        needs = _needs(dry, length, size)
        if needs.training(size) <= room:
            return size, needs
        if size == 1 or needs.optimizer > room:
            return None
        # Measured again at that size, because the line to it from a larger one is only near.
        fits = min(needs.step.most(room), size - 1)
        size = _equal_part(batch_size, max(fits, 1))


def _equal_part(batch_size: int, most: int) -> int:
    """Size of the fewest equal parts of a batch with at most `most` examples each; the last may be smaller."""
    return math.ceil(batch_size / math.ceil(batch_size / most))


# ----------------------------------------------------------------------- dry run


class _Line(NamedTuple):
    """Bytes, or operations, as a function of the number of examples."""

    fixed: int
    per_example: int

    def at(self, n: int) -> int:
        return self.fixed + n * self.per_example

    def most(self, room: int) -> int:
        """Examples that fit into `room` bytes; at least 1."""
        return max((room - self.fixed) // max(self.per_example, 1), 1)


class _Measured(NamedTuple):
    """Most bytes of the two passes of a step, and of predicting as many examples; operations of the passes."""

    step: int
    evaluation: int
    flops: int


class _Steps(NamedTuple):
    """A model, the most bytes while its optimiser works, and steps of several numbers of examples."""

    n_parameters: int
    optimizer: int
    measured: list[_Measured]


class _Needs(NamedTuple):
    """As `_Steps`, for any number of examples near the one measured."""

    n_parameters: int
    optimizer: int
    step: _Line
    evaluation: _Line
    flops: _Line

    def training(self, n: int) -> int:
        """Most bytes of a step of `n` examples."""
        return max(self.step.at(n), self.optimizer)


@dataclass(frozen=True)
class _DryRun:
    """All that decides what a step of one length and size needs."""

    model: ModelConfig
    task: str
    n_readouts: int
    motif_widths: tuple[int, ...]
    autocast: bool
    foreach: bool
    padded: bool
    tokenizer: BpeTokenizer | None

    @property
    def bases_per_token(self) -> float:
        """Bases from one token to the next."""
        config = self.model.tokenizer
        if config.kind == "kmer":
            return config.stride
        return self.model.stem.pool if self.tokenizer is None else self.tokenizer.fewest_bases_per_token

    def n_tokens(self, length: int) -> int:
        config = self.model.tokenizer
        if config.kind == "kmer":
            n = KmerTokenizer(config.k, config.stride).most_tokens(length)
        else:
            n = -(-length // self.model.stem.pool) if self.tokenizer is None else self.tokenizer.most_tokens(length)
        return n + (self.model.pooling == "cls")


@lru_cache(maxsize=256)
def _needs(dry: _DryRun, length: int, n: int) -> _Needs:
    """Needs of steps of about `n` examples, exact for `n` itself unless the network is recurrent."""
    if dry.model.has_attention:
        sizes = (1, 2) if n <= 2 else (2, n)
        steps = _measure(dry, length, sizes)
    else:
        sizes = _RECURRENT_SIZES
        steps = _measure_recurrent(dry, length)
    step, evaluation, flops = (_line(sizes, values) for values in zip(*steps.measured, strict=True))
    return _Needs(steps.n_parameters, steps.optimizer, step, evaluation, flops)


def _line(sizes: Sequence[int], values: Sequence[int]) -> _Line:
    per_example = -(-(values[1] - values[0]) // (sizes[1] - sizes[0]))
    return _Line(max(values[1] - sizes[1] * per_example, 0), per_example)


def _measure(dry: _DryRun, length: int, sizes: Sequence[int]) -> _Steps:
    """Steps of each number of examples, on shapes only."""
    with FakeTensorMode(allow_non_fake_inputs=True):
        return _steps(dry, length, sizes)


def _measure_recurrent(dry: _DryRun, length: int) -> _Steps:
    """As `_measure` for a recurrent network, from real steps of few tokens: all that it holds is linear in them."""
    near, far = (round(tokens * dry.bases_per_token) for tokens in _RECURRENT_TOKENS)
    if length <= far:
        return _recurrent_steps(dry, length)
    at_near, at_far = _recurrent_steps(dry, near), _recurrent_steps(dry, far)
    share = (length - far) / (far - near)
    extrapolated = [
        _Measured(*(round(b + share * (b - a)) for a, b in zip(first, second, strict=True)))
        for first, second in zip(at_near.measured, at_far.measured, strict=True)
    ]
    return at_far._replace(measured=extrapolated)


@lru_cache(maxsize=64)
def _recurrent_steps(dry: _DryRun, length: int) -> _Steps:
    with torch.random.fork_rng(devices=[]):
        return _steps(dry, length, _RECURRENT_SIZES)


def _steps(dry: _DryRun, length: int, sizes: Sequence[int]) -> _Steps:
    model = _model(dry)
    # foreach as AdamW chooses it by itself on CUDA: faster, for the memory of one more copy of the weights.
    optimizer = torch.optim.AdamW(decay_groups(model, 0.01), foreach=dry.foreach)
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter) if parameter.requires_grad else None
    optimizer.step()  # makes the state
    held = list(_held(model, optimizer))
    measured = [_step(dry, model, held, n, length) for n in sizes]
    with track_memory(held) as memory:
        optimizer.step()
    return _Steps(sum(p.numel() for p in model.parameters()), memory.peak_bytes, measured)


def _model(dry: _DryRun) -> SequenceModel:
    config = dry.model
    if config.backend == "flex":
        # Its compiled kernel does not run on shapes. The fused one with the mask written out holds at least as much.
        config = config.model_copy(update={"backend": "sdpa", "positions": "none"})
    blanks = [Motif("", "", np.full((alphabet.N_LETTERS, width), 0.25)) for width in dry.motif_widths]
    return build_model(config, n_readouts=dry.n_readouts, motifs=blanks, tokenizer=dry.tokenizer)


def _step(dry: _DryRun, model: SequenceModel, held: Sequence[Tensor], n: int, length: int) -> _Measured:
    """Passes as `TrainingModule` takes them: gradients of earlier parts are there and are added to."""
    with track_memory(held) as memory:
        tokens, targets = _batch(dry, n, length)
        with _precision(dry):
            total, present = loss_sum(dry.task, _readouts(dry, model, tokens), targets)
            loss = total / present.clamp(min=1)
        loss.backward()
    del total, present, loss
    model.eval()
    with track_memory([*held, tokens, targets]) as evaluation, torch.no_grad(), _precision(dry):
        _readouts(dry, model, tokens)
    model.train()
    return _Measured(memory.peak_bytes, evaluation.peak_bytes, memory.flops)


def _held(model: SequenceModel, optimizer: torch.optim.Optimizer) -> Iterator[Tensor]:
    for parameter in model.parameters():
        yield parameter
        if parameter.grad is not None:
            yield parameter.grad
    yield from model.buffers()
    for state in optimizer.state.values():
        yield from (x for x in state.values() if isinstance(x, Tensor))


def _batch(dry: _DryRun, n: int, length: int) -> tuple[Tensor, Tensor]:
    tokens = torch.zeros(n, length, dtype=torch.long)
    if dry.tokenizer is not None:
        # Unknown bases, each of which is a token: exactly as many as are reckoned with.
        length = dry.tokenizer.most_tokens(length)
        tokens = torch.full((n, length), alphabet.UNKNOWN)
    if dry.padded and length > 1:
        tokens[1:, length // 2 :] = alphabet.PAD  # the first stays whole: the longest of a batch says how wide it is
    return tokens, torch.zeros(n, 1 if dry.task == "multiclass" else dry.n_readouts)


def _readouts(dry: _DryRun, model: SequenceModel, tokens: Tensor) -> Tensor:
    if dry.padded:
        out: Tensor = model(tokens)
        return out
    # Where values are not known, the model must take padding for granted; here there is none.
    strands = [model.tail(model.embed(strand)[0]) for strand in model.strands(tokens)]
    return torch.stack(strands).mean(0)


def _precision(dry: _DryRun) -> AbstractContextManager[Any]:
    return torch.autocast("cpu", torch.bfloat16) if dry.autocast else nullcontext()


# ------------------------------------------------------------------ what would fit


def _refusal(dry: _DryRun, length: int, room: _Room, config: TrainConfig) -> ConfigError:
    taken, limit = room.taken(dry, length), room.limit
    need = taken + _one_example(dry, length)
    ways = [f"{way} (needs {_size(bytes_)})" for way, bytes_ in _ways_out(dry, length, room)]
    total = math.ceil(need / SAFETY_SHARE / GIB * 10) / 10
    if config.memory_gb is None:
        source, larger = "of this machine or job", f"use one with {total:g} GiB"
    else:
        source, larger = f"of train.memory_gb {config.memory_gb:g}", f"raise train.memory_gb to {total:g}"
    return ConfigError(
        f"training needs {_size(need)} of memory with one sequence of {length} bp at a time ({_size(taken)} of it for "
        f"the process and the data), but may take {_size(limit)}, {SAFETY_SHARE:.0%} {source}: "
        + "; or ".join([*ways, larger])
    )


@lru_cache(maxsize=256)
def _one_example(dry: _DryRun, length: int) -> int:
    if not dry.model.has_attention:
        return _needs(dry, length, 1).training(1)
    steps = _measure(dry, length, (1,))
    return max(steps.measured[0].step, steps.optimizer)


def _ways_out(dry: _DryRun, length: int, room: _Room) -> Iterator[tuple[str, int]]:
    """Changes with which one example at a time fits, and what is then needed: fewest settings, and the length."""
    changes = _changes(dry, length)
    for n_changes in range(1, len(changes) + 1):
        found = False
        for names in itertools.combinations(changes, n_changes):
            changed = _changed(dry, [changes[name] for name in names])
            need = None if changed is None else room.taken(changed, length) + _one_example(changed, length)
            if need is not None and need <= room.limit:
                found = True
                yield "set " + " and ".join(names), need
        if found:
            break
    shorter = _longest(dry, length, room)
    if shorter is not None:
        yield f"cut sequences to {shorter} bp", room.taken(dry, shorter) + _one_example(dry, shorter)


def _changes(dry: _DryRun, length: int) -> dict[str, dict[str, Any]]:
    """Settings that may save memory, in words and as an update of the model's section."""
    config = dry.model
    if not config.has_attention:
        return {}
    found: dict[str, dict[str, Any]] = {}
    if not config.checkpointing:
        found["model.checkpointing true"] = {"checkpointing": True}
    if config.positions in ("relative", "alibi") and (config.d_model // config.n_heads) % 2 == 0:
        found["model.positions 'rope'"] = {"positions": "rope"}
    if config.backend == "reference":
        found["model.backend 'sdpa'"] = {"backend": "sdpa"}
    if not config.mask.sparse and dry.n_tokens(length) > 4 * _WINDOW:
        mask = config.mask.model_dump() | {"window": _WINDOW}
        found[f"model.mask.window {_WINDOW} with model.backend 'local'"] = {"mask": mask, "backend": "local"}
    elif config.mask.sparse and config.backend != "local":
        found["model.backend 'local'"] = {"backend": "local"}
    return found


def _changed(dry: _DryRun, updates: Sequence[dict[str, Any]]) -> _DryRun | None:
    """The dry run with changed settings, or None if they exclude each other."""
    settings: dict[str, Any] = dry.model.model_dump()
    if sum("backend" in update for update in updates) > 1:
        return None
    for update in updates:
        settings |= update
    try:
        return replace(dry, model=ModelConfig.model_validate(settings))
    except ValidationError:
        return None


def _longest(dry: _DryRun, length: int, room: _Room) -> int | None:
    """Longest sequence of which one example fits, to a tenth, or None."""
    step = max(round(dry.bases_per_token), 1)
    fits, too_long = 0, -(-length // step)
    while too_long - fits > max(too_long // 10, 1):
        middle = (fits + too_long) // 2
        if _one_example(dry, middle * step) <= room.left(dry, middle * step):
            fits = middle
        else:
            too_long = middle
    return fits * step or None


def _size(n_bytes: int) -> str:
    unit, name = (GIB, "GiB") if n_bytes >= GIB else (MIB, "MiB") if n_bytes >= MIB else (1024, "KiB")
    return f"{n_bytes / unit:.3g} {name}"
