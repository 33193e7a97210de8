"""Weights without pickle: tensors as safetensors, everything else as JSON."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from bioattn.errors import DataError
from bioattn.io.files import replacing, write_text

WEIGHTS = "weights.safetensors"
MODEL = "model.json"


def save_weights(folder: str | Path, tensors: Mapping[str, Tensor], record: Mapping[str, Any]) -> None:
    """Write weights.safetensors and model.json into `folder`; the JSON last, so it marks a whole pair."""
    folder = Path(folder)
    with replacing(folder / WEIGHTS) as temporary:
        save_file({name: t.detach().cpu().contiguous() for name, t in tensors.items()}, temporary)
    write_text(folder / MODEL, json.dumps(dict(record), indent=1) + "\n")


def load_weights(folder: str | Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors and record that `save_weights` wrote. Raises `DataError` if either is missing or cut short."""
    folder = Path(folder)
    try:
        return load_file(folder / WEIGHTS), json.loads((folder / MODEL).read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise DataError(
            f"{error.filename or folder}: no such file: a model folder holds {WEIGHTS} and {MODEL}"
        ) from None
    except (SafetensorError, json.JSONDecodeError) as error:
        raise DataError(f"{folder}: not a whole model ({error}): train it again") from None
