"""A trained model, on the best device of this machine."""

from pathlib import Path
from typing import Any

from bioattn.models import SequenceModel, load_model
from bioattn.train.devices import resolve_device


def load_network(folder: Path) -> tuple[SequenceModel, dict[str, Any]]:
    """Model in evaluation mode on CUDA where there is one, and its record.

    Explanations run in float32 everywhere: effects are differences of readouts.
    """
    network, record = load_model(folder)
    return network.to(resolve_device("auto", "32-true").accelerator), record
