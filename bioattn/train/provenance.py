"""What a model came from: versions, device, settings, data, time."""

import platform
from collections.abc import Mapping
from importlib import metadata
from typing import Any

import bioattn
from bioattn.config import FORMAT_VERSION, RunConfig, digest, step_settings
from bioattn.train.devices import Device

#: Packages whose version can change a number.
PACKAGES = ("torch", "lightning", "numpy", "scipy", "scikit-learn", "pandas", "safetensors", "tokenizers")


def versions() -> dict[str, str]:
    """Versions of Python, bioattn and the packages whose version can change a number."""
    found = {"python": platform.python_version(), "bioattn": bioattn.__version__}
    for name in PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def run_record(
    run: RunConfig,
    *,
    step: str,
    fold: int | None,
    seed: int | None,
    device: Device,
    examples: Mapping[str, int],
    n_parameters: int,
    **more: Any,
) -> dict[str, Any]:
    """JSON-ready record of one training run.

    Parameters
    ----------
    step : str
        Workflow step whose settings count ("train", "pretrain", or "evaluate" for a baseline).
    fold, seed : int or None
        None for what all folds and replicates share.
    examples : mapping
        Number of examples of each subset, as trained on.
    more
        Further entries: best_epoch, seconds, ...
    """
    settings = step_settings(run, step)
    return {
        "format": FORMAT_VERSION,
        "step": step,
        "digest": digest(settings),
        "fold": fold,
        "seed": seed,
        "device": device.name,
        "accelerator": device.accelerator,
        "precision": device.precision,
        "threads": run.train.threads,
        "platform": f"{platform.system()} {platform.machine()}",
        "n_parameters": n_parameters,
        "n_examples": dict(examples),
        **more,
        "versions": versions(),
        "settings": settings,
    }
