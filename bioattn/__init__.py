"""Transformers on DNA whose attention is read as motifs and tested by intervention."""

from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from typing import Any

try:
    __version__ = version("bioattn")
except PackageNotFoundError:
    # Used from a source folder, as the workflow's conda environments do.
    __version__ = "0.1.0"

#: Public name -> module that defines it. Imported on first use, so that `import bioattn` costs milliseconds.
_EXPORTS = {
    "BioattnError": "bioattn.errors",
    "BioattnWarning": "bioattn.errors",
    "ConfigError": "bioattn.errors",
    "DataError": "bioattn.errors",
    "load_config": "bioattn.config",
    "load_run": "bioattn.config",
    "build_model": "bioattn.models",
    "load_model": "bioattn.models",
    "save_model": "bioattn.models",
    "attention_rows": "bioattn.nn.observe",
    "attention_blocks": "bioattn.nn.observe",
    "attention_sums": "bioattn.nn.observe",
    "fit": "bioattn.train.fit",
    "plan": "bioattn.train.plan",
    "load_motifs": "bioattn.io.motifs",
    "simulate": "bioattn.data.simulate",
    "split": "bioattn.data.splits",
    "encode_batch": "bioattn.data.alphabet",
    "head_motifs": "bioattn.explain.head_motifs",
    "ism": "bioattn.explain.ism",
    "input_x_gradient": "bioattn.explain.attribution",
    "integrated_gradients": "bioattn.explain.attribution",
    "deletion_insertion": "bioattn.explain.faithfulness",
}

__all__ = ["__version__", *sorted(_EXPORTS)]


def __getattr__(name: str) -> Any:
    if name not in _EXPORTS:
        raise AttributeError(f"module 'bioattn' has no attribute '{name}'")
    return getattr(import_module(_EXPORTS[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_EXPORTS])
