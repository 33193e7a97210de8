"""Memory that tensors take while a step runs, and memory that a training job may take."""

import ctypes
import math
import os
import sys
import weakref
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry, sdpa_backward_flop_count, sdpa_flop_count

from bioattn.errors import ConfigError

MIB, GIB = 2**20, 2**30
#: Share of the limit that a plan fills. The rest is for what cannot be seen from outside, such as workspaces of single
#: operations.
SAFETY_SHARE = 0.9
#: Resident memory per byte of live tensors on a CPU, at most, if freed blocks are kept (see `freed_memory_returned`).
#: glibc, 10 models, 12 steps on sequences of changing length, 200 MiB of tensors: 1.1 to 1.9, with checkpointing 2.5.
HEAP_GAPS = 2.5
#: Blocks from this size on are given back. A quarter of it holds no less memory and costs no less time; four times it
#: leaves gaps of a quarter of the memory.
_RETURNED_BLOCK = MIB
#: Numbers of glibc's malloc.h, and the size to which it raises this setting by itself.
_M_MMAP_THRESHOLD, _GLIBC_MOST = -3, 32 * MIB
#: What a training process holds before its first large tensor: Python, torch, Lightning, pandas, scikit-learn.
#: VmRSS after fitting a toy model, Linux x86-64, torch 2.13 for CPU, Lightning 2.6: 532 MiB, of which torch 210.
PROCESS_BYTES = 540 * MIB
#: What processes that prepare batches hold, measured likewise: the server that they are forked from, and each of them.
FIRST_WORKER_BYTES, WORKER_BYTES = 300 * MIB, 15 * MIB
#: Of each example beside codes and targets: its name, group, start and length.
EXAMPLE_BYTES = 130
#: Device memory of CUDA's context and cuBLAS's workspace, outside of torch's tensors: between 300 and 600 MiB.
CUDA_BYTES = 600 * MIB
#: Address space that libraries and threads reserve and never touch: VmSize - VmRSS of the same process, 1665 MiB.
_RESERVED_ADDRESSES = 1700 * MIB
#: Folders of the kernel that tell the limits of a container or a job.
_CGROUP_OF_PROCESS = Path("/proc/self/cgroup")
_CGROUPS = Path("/sys/fs/cgroup")

_aten = torch.ops.aten


def _recurrent_flops(input_shape: Sequence[int], in_shape: Sequence[int], hidden_shape: Sequence[int]) -> int:
    """Both matrix products of each step of a recurrent layer; axes of the input: step, example, channel."""
    n_steps = math.prod(input_shape[:2])
    return 2 * n_steps * (math.prod(in_shape) + math.prod(hidden_shape))


def _recurrent_backward_flops(*shapes: Sequence[int]) -> int:
    return 2 * _recurrent_flops(*shapes)


#: Kernels of CPUs that torch's counter leaves out: the formula, and how many leading arguments it takes.
#: Fused attention has two matrix products forward and five backward.
_CPU_KERNELS: dict[Any, tuple[Callable[..., int], int]] = {
    _aten._scaled_dot_product_flash_attention_for_cpu: (sdpa_flop_count, 3),
    _aten._scaled_dot_product_flash_attention_for_cpu_backward: (sdpa_backward_flop_count, 4),
    _aten.mkldnn_rnn_layer: (_recurrent_flops, 3),
    _aten.mkldnn_rnn_layer_backward: (_recurrent_backward_flops, 3),
}


class MemoryTracker(TorchDispatchMode):
    """Bytes of the tensors that are alive, and floating-point operations, of everything that runs inside.

    Every storage counts once, whoever views it, from the operation that makes or
    first reads it until it is freed. What an operation needs within itself is not seen.

    Attributes
    ----------
    live_bytes, peak_bytes : int
        Bytes alive now, and at most so far.
    flops : int
        Of matrix products and convolutions, forward and backward; a multiply-add is two.
    """

    def __init__(self, tensors: Iterable[Tensor] = ()) -> None:
        super().__init__()
        self.live_bytes = self.peak_bytes = self.flops = 0
        self._size: dict[int, int] = {}
        for tensor in tensors:
            self._note(tensor)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run an operation and note its inputs and outputs."""
        kwargs = kwargs or {}
        for x in tree_leaves((args, kwargs)):
            if isinstance(x, Tensor):
                self._note(x)
        out = func(*args, **kwargs)
        for x in tree_leaves(out):
            if isinstance(x, Tensor):
                self._note(x)
        self.flops += _flops(func._overloadpacket, args, kwargs, out)
        return out

    def _note(self, tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        if storage._cdata in self._size:
            return
        self._size[storage._cdata] = storage.nbytes()
        self.live_bytes += storage.nbytes()
        self.peak_bytes = max(self.peak_bytes, self.live_bytes)
        weakref.finalize(storage, self._forget, storage._cdata).atexit = False

    def _forget(self, address: int) -> None:
        self.live_bytes -= self._size.pop(address)


def _flops(kind: Any, args: Any, kwargs: Any, out: Any) -> int:
    if kind in _CPU_KERNELS:
        formula, n = _CPU_KERNELS[kind]
        return int(formula(*(x.shape for x in args[:n])))
    return int(flop_registry[kind](*args, **kwargs, out_val=out)) if kind in flop_registry else 0


def track_memory(tensors: Iterable[Tensor] = ()) -> MemoryTracker:
    """Context in which the memory of tensors is counted, real ones as well as those of a dry run.

    Parameters
    ----------
    tensors : iterable of Tensor
        What is there already: weights, gradients, optimiser state.

    Returns
    -------
    MemoryTracker
        ``with track_memory(model.parameters()) as memory: ...`` leaves the answer in ``memory.peak_bytes``.
    """
    return MemoryTracker(tensors)


@contextmanager
def freed_memory_returned() -> Iterator[None]:
    """While open, freed blocks of a MiB or more go back to the system at once, where the C library is glibc.

    By itself glibc keeps them, and up to twice as much memory again is then lost in
    the gaps between blocks in use. Getting each block anew takes time: up to half as
    much again per step. No number changes.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is not None:
        mallopt(_M_MMAP_THRESHOLD, _RETURNED_BLOCK)
    try:
        yield
    finally:
        if mallopt is not None:
            mallopt(_M_MMAP_THRESHOLD, _GLIBC_MOST)


def memory_limit(device: str, memory_gb: float | None = None) -> int:
    """Bytes that a plan may fill: `SAFETY_SHARE` of what the job has.

    A property of the machine or job, never of what happens to be free, so that the
    same job plans the same.

    Parameters
    ----------
    device : {"cpu", "cuda"}
    memory_gb : float, optional
        What the job has, in GiB. By default all memory of the CUDA device; on a CPU
        the least of physical memory, the limits of cgroups (containers) and of the
        process (ulimit -v), and what Slurm gave.

    Raises
    ------
    ConfigError
        If there is no CUDA device to ask.
    """
    if memory_gb is not None:
        return int(memory_gb * GIB * SAFETY_SHARE)
    return int((_cuda_total() if device == "cuda" else _cpu_total()) * SAFETY_SHARE)


def _cuda_total() -> int:
    if not torch.cuda.is_available():
        raise ConfigError(
            f"PyTorch {torch.__version__} finds no CUDA device whose memory could be asked: "
            "set train.memory_gb to that of the device meant"
        )
    return int(torch.cuda.mem_get_info()[1])


def _cpu_total() -> int:
    limits = [*_physical(), *_cgroup_limits(), *_address_limits(), *_slurm_limits()]
    return int(min(limits, default=math.inf))


def _physical() -> list[int]:
    try:
        return [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")]
    except (AttributeError, ValueError):  # neither exists on Windows
        return []


def _cgroup_limits() -> list[int]:
    """Limits of the process's cgroups (version 1 and 2) and of all groups around them."""
    try:
        lines = _CGROUP_OF_PROCESS.read_text().splitlines()
    except OSError:
        return []
    limits = []
    for line in lines:
        number, controllers, path = line.split(":", 2)
        if number == "0":
            root, name = _CGROUPS, "memory.max"
        elif "memory" in controllers.split(","):
            root, name = _CGROUPS / "memory", "memory.limit_in_bytes"
        else:
            continue
        inner = root / path.lstrip("/")
        for folder in (inner, *inner.parents):
            limits += _number_in(folder / name)
            if folder == root:
                break
    return limits


def _number_in(path: Path) -> list[int]:
    # Absent in the outermost group, and in containers that hide the groups around them; "max" is no limit.
    try:
        return [int(path.read_text())]
    except (OSError, ValueError):
        return []


def _address_limits() -> list[int]:
    if find_spec("resource") is None:  # Windows
        return []
    resource = import_module("resource")
    soft = resource.getrlimit(resource.RLIMIT_AS)[0]
    return [] if soft == resource.RLIM_INFINITY else [max(soft - _RESERVED_ADDRESSES, 0)]


def _slurm_limits() -> list[int]:
    """What Slurm says it gave the job on this node, in MB (0 means all)."""
    limits = [_environment_number("SLURM_MEM_PER_NODE")]
    limits.append(_environment_number("SLURM_MEM_PER_CPU") * _environment_number("SLURM_CPUS_ON_NODE"))
    return [limit * MIB for limit in limits if limit]


def _environment_number(name: str) -> int:
    value = os.environ.get(name, "")
    return int(value) if value.isdecimal() else 0
