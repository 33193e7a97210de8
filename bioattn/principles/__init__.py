"""Experiments on attention whose answers are known: an instrument check, and a course.

Each experiment is one module with a function `run(settings) -> Finding`. They use the parts of `bioattn.nn` that the
models use, so a broken part fails the verdicts that rest on it.
"""

from importlib import import_module
from typing import TYPE_CHECKING

from bioattn.config import PrinciplesConfig
from bioattn.errors import ConfigError

if TYPE_CHECKING:  # the workflow reads the names, and must not load pandas for it
    from bioattn.principles.finding import Finding

#: Name -> what it is about, in the order of the page.
EXPERIMENTS: dict[str, str] = {
    "score_scaling": "why scores are divided by the root of the width",
    "head_specialisation": "heads split the work when there are two relations to follow",
    "delayed_copy": "attention reaches any distance in one step, recurrence does not",
    "cost": "full attention costs the square of the length, a window its first power",
    "checkpointing": "activations can be computed again instead of kept",
    "padding": "what stands behind the real tokens changes nothing",
    "sensor_fusion": "softmax of log precision is the best linear unbiased estimate",
    "reference_resolution": "a head points from a pronoun at what it stands for",
    "odd_one_out": "the odd item is the one that nobody attends to",
    "graph_attention": "attention along edges is a random walk",
    "patches": "patches are a strided convolution; without positions order is lost",
    "triangle_consistency": "third residues make distances consistent",
    "motif_detector": "a head reads a motif, which can be written down and named",
    "coattention": "two motifs that act together attend each other",
    "correlation_and_causation": "attention is correlation, unless the data are interventional",
    "allosteric_coupling": "two distant sites that depend on each other are found",
    "heat_equation": "one step of diffusion is one row of attention",
    "diffusion": "a patch transformer learns the heat equation, and takes it to grids it never saw",
    "green_function": "scores that depend on the difference of positions make any ring kernel",
}


def run_experiment(name: str, settings: PrinciplesConfig) -> "Finding":
    """Run one experiment.

    Raises
    ------
    ConfigError
        If there is none of that name.
    """
    if name not in EXPERIMENTS:
        raise ConfigError(f"no experiment '{name}'; there are {', '.join(EXPERIMENTS)}")
    found: Finding = import_module(f"bioattn.principles.{name}").run(settings)
    return found
