"""Checkpoints without pickle: tensors in safetensors, everything else as JSON in its header.

One file holds one checkpoint, so it is there whole or not at all, and its checksum
tells a complete file from a damaged one.
"""

import hashlib
import json
import math
import os
import warnings
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.plugins.io import CheckpointIO
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from bioattn.errors import BioattnWarning, DataError
from bioattn.io.files import replacing


class SafeCheckpointIO(CheckpointIO):
    """Lightning plugin that keeps checkpoints in the format of `write_checkpoint`."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        """Write a checkpoint, whole or not at all."""
        write_checkpoint(path, checkpoint)

    def load_checkpoint(self, path: Any, map_location: Any = None, weights_only: bool | None = None) -> dict[str, Any]:
        """Return a checkpoint. `weights_only` means nothing here: no code is ever run on loading."""
        state = read_checkpoint(path)
        if map_location is not None:
            state = _moved(state, map_location)
        return state

    def remove_checkpoint(self, path: Any) -> None:
        """Remove a checkpoint if it is there."""
        Path(path).unlink(missing_ok=True)


def write_checkpoint(path: str | os.PathLike[str], state: dict[str, Any]) -> None:
    """Write nested state in one safetensors file.

    Parameters
    ----------
    path : path
        Target file.
    state : dict
        Dicts (keys str, int, float, bool, None or tuples of these), lists, tuples,
        tensors, str, int, float (also inf and nan), bool and None, nested at will.

    Raises
    ------
    TypeError
        If the state holds anything else: it could not come back the same.
    DataError
        If the file cannot be written.
    """
    tensors: dict[str, Tensor] = {}
    structure = json.dumps(_encode(state, tensors, "state"), allow_nan=False)
    metadata = {"structure": structure, "sha256": _checksum(structure, tensors)}
    with replacing(Path(path)) as temporary:
        # A disk that fills up surfaces as safetensors' own error class.
        try:
            save_file(tensors, temporary, metadata=metadata)
        except SafetensorError as error:
            raise OSError(str(error)) from None


def read_checkpoint(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Return the state that `write_checkpoint` stored, with tensors on the CPU.

    Raises
    ------
    DataError
        If the file is missing, cut short, altered, or no checkpoint of ours.
    """
    try:
        with safe_open(str(path), framework="pt", device="cpu") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - no mapping
        structure = metadata["structure"]
        if metadata["sha256"] != _checksum(structure, tensors):
            raise DataError(f"{path}: damaged checkpoint (checksum differs): remove it to train from the start")
        return dict(_decode(json.loads(structure), tensors))
    except FileNotFoundError:
        raise DataError(f"{path}: no such checkpoint") from None
    except (SafetensorError, OSError, KeyError, ValueError) as error:
        raise DataError(f"{path}: not a complete checkpoint ({error}): remove it to train from the start") from None


def find_checkpoint(path: str | os.PathLike[str]) -> dict[str, Any] | None:
    """Return a checkpoint, or None if there is none or, with a warning, if it is damaged."""
    if not Path(path).exists():
        return None
    try:
        return read_checkpoint(path)
    except DataError as error:
        warnings.warn(f"{error}; it is ignored and training starts from the beginning", BioattnWarning, stacklevel=2)
        return None


def _encode(value: Any, tensors: dict[str, Tensor], place: str) -> Any:
    """JSON form of `value`; tensors move to `tensors` and leave their name. Non-JSON types become {tag: ...}."""
    if isinstance(value, Tensor):
        name = str(len(tensors))
        # Cloned: safetensors refuses tensors that share memory.
        tensors[name] = value.detach().to("cpu", copy=True).contiguous()
        return {"tensor": name}
    if value is None or type(value) in (bool, int, str):
        return value
    if type(value) is float:
        return value if math.isfinite(value) else {"float": repr(value)}
    if isinstance(value, dict):
        items = [
            [_encode(key, tensors, place), _encode(item, tensors, f"{place}[{key!r}]")] for key, item in value.items()
        ]
        return {"dict": items}
    if type(value) in (list, tuple):
        encoded = [_encode(item, tensors, f"{place}[{i}]") for i, item in enumerate(value)]
        return encoded if type(value) is list else {"tuple": encoded}
    raise TypeError(
        f"{place} is a {type(value).__name__}, which a checkpoint cannot hold: store tensors or plain values"
    )


def _decode(value: Any, tensors: dict[str, Tensor]) -> Any:
    if isinstance(value, list):
        return [_decode(item, tensors) for item in value]
    if not isinstance(value, dict):
        return value
    ((tag, content),) = value.items()
    if tag == "tensor":
        return tensors[content]
    if tag == "float":
        return float(content)
    if tag == "tuple":
        return tuple(_decode(item, tensors) for item in content)
    if tag == "dict":
        return {_decode(key, tensors): _decode(item, tensors) for key, item in content}
    raise ValueError(f"unknown tag '{tag}'")


def _checksum(structure: str, tensors: dict[str, Tensor]) -> str:
    digest = hashlib.sha256(structure.encode())
    for name in sorted(tensors):
        tensor = tensors[name]
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        # As bytes, because NumPy has no bfloat16.
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def _moved(value: Any, device: Any) -> Any:
    if isinstance(value, Tensor):
        return value.to(device)
    if isinstance(value, dict):
        return {key: _moved(item, device) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(_moved(item, device) for item in value)
    return value
