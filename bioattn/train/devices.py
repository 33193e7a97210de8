"""Where a training job runs, said loudly when a GPU stands idle."""

import warnings
from pathlib import Path
from typing import NamedTuple

import torch

from bioattn.errors import BioattnWarning, ConfigError

#: Exists when the NVIDIA kernel driver is loaded, whatever PyTorch was installed.
_DRIVER = Path("/proc/driver/nvidia/version")


class Device(NamedTuple):
    """A resolved device: Lightning accelerator, Lightning precision, and a name for the record."""

    accelerator: str
    precision: str
    name: str


def resolve_device(device: str, precision: str) -> Device:
    """Return the device and precision that the settings `train.device` and `train.precision` mean here.

    auto takes CUDA with bf16 when there is a GPU that PyTorch can use, otherwise the
    CPU with float32. A GPU that is present but will not be used is warned about.

    Raises
    ------
    ConfigError
        If CUDA is asked for and there is none.
    """
    available = torch.cuda.is_available()
    if device == "cuda" and not available:
        raise ConfigError(
            f"train.device is 'cuda' but PyTorch {torch.__version__} finds no CUDA device: "
            "set train.device to 'auto' or 'cpu', or install a CUDA build of PyTorch"
        )
    if device == "cpu" and available:
        _warn_idle("train.device is 'cpu'", "set train.device to 'auto' to use it")
    if not available and _DRIVER.exists():
        _warn_idle(
            f"PyTorch {torch.__version__} cannot use it (CUDA build: {torch.version.cuda or 'no'})",
            "install a CUDA build of PyTorch that fits the driver",
        )
    if device == "cpu" or not available:
        return Device("cpu", "32-true" if precision == "auto" else precision, "CPU")
    if precision == "auto":
        precision = "bf16-mixed" if torch.cuda.is_bf16_supported() else "32-true"
    return Device("cuda", precision, torch.cuda.get_device_name())


def _warn_idle(reason: str, way_out: str) -> None:
    warnings.warn(
        f"A GPU IS PRESENT BUT UNUSED: {reason}, so this runs on the CPU; {way_out}", BioattnWarning, stacklevel=3
    )
