"""Imports between the parts of the package run in one direction only."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[1] / "bioattn"

#: Part -> the parts that it may import (its own always). A part is a module or a folder of bioattn/.
ALLOWED = {
    "errors": set(),
    "rng": {"errors"},
    "config": {"errors", "rng"},
    # The simulator and the splitter take their section whole: a dozen settings by name would repeat it.
    "data": {"config", "errors", "rng"},
    "io": {"data", "config", "errors", "rng"},
    "tokens": {"data", "errors"},
    "nn": {"errors"},
    "models": {"nn", "config", "io", "tokens", "data", "errors", "rng"},
    "train": {"models", "nn", "data", "tokens", "io", "config", "errors", "rng"},
    "explain": {"models", "nn", "data", "tokens", "io", "config", "errors", "rng"},
    "causal": {"explain", "models", "nn", "data", "tokens", "io", "config", "errors", "rng"},
    "bench": {"causal", "explain", "train", "models", "nn", "data", "tokens", "io", "config", "errors", "rng"},
    "principles": {
        "protein",
        "causal",
        "explain",
        "train",
        "models",
        "nn",
        "data",
        "tokens",
        "io",
        "config",
        "errors",
        "rng",
    },
    "protein": {"train", "models", "nn", "data", "tokens", "io", "config", "errors", "rng"},
    "plot": {"errors"},
    "report": {"plot", "io", "config", "errors"},
}
#: These may import everything.
TOP = {"cli", "__main__", "__init__"}
#: Verbs that run in the environment without torch.
LIGHT_VERBS = ["config", "simulate", "ingest", "split", "report"]


def part_of(module: str) -> str:
    """Part of bioattn that a dotted module name lies in."""
    names = module.split(".")
    return names[1] if len(names) > 1 else "__init__"


def imports_of(path: Path) -> list[tuple[int, str]]:
    """Lines and full names of everything that a file of the package imports from the package."""
    package = ["bioattn", *path.relative_to(PACKAGE).parent.parts]
    found = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found += [(node.lineno, alias.name) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            module = ".".join([*base, *([node.module] if node.module else [])])
            # `from bioattn import errors` imports a part, `from bioattn.errors import X` does as well.
            names = [f"bioattn.{alias.name}" for alias in node.names] if module == "bioattn" else [module]
            found += [(node.lineno, name) for name in names]
    return [(line, name) for line, name in found if name.split(".")[0] == "bioattn"]


def wrong_imports(path: Path) -> list[str]:
    """Imports of a file that point upwards."""
    part = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
    if part in TOP:
        return []
    # The root itself holds the version and imports nothing.
    allowed = {part, *ALLOWED[part], "__init__", "__version__"}
    return [
        f"{path.relative_to(PACKAGE.parent)}:{line}: {part} must not import {name}"
        for line, name in imports_of(path)
        if part_of(name) not in allowed
    ]


def test_every_part_has_a_place_in_the_order():
    """A new folder or module must be put into the order."""
    parts = {path.name.removesuffix(".py") for path in PACKAGE.iterdir() if path.suffix == ".py" or path.is_dir()}
    assert parts - {"__pycache__"} <= set(ALLOWED) | TOP


def test_imports_run_downwards():
    """No part imports one that stands above it."""
    assert [line for path in sorted(PACKAGE.rglob("*.py")) for line in wrong_imports(path)] == []


def test_an_upward_import_is_seen():
    """The check is not blind: relative and absolute imports are resolved."""
    assert part_of("bioattn.train.fit") == "train"
    names = [name for _, name in imports_of(PACKAGE / "cli" / "app.py")]
    assert "bioattn.errors" in names and "bioattn.__version__" in names


@pytest.mark.parametrize("module", ["bioattn", "bioattn.config", "bioattn.cli.app"])
def test_light_modules_import_nothing_heavy(module: str):
    """The package, its configuration and the root of the command line load without torch, pandas or Matplotlib."""
    code = f"import sys, {module}; print(sorted({{'torch', 'pandas', 'matplotlib', 'numpy'}} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("verb", LIGHT_VERBS)
def test_light_verbs_load_without_torch(verb: str):
    """Steps of the light environment (envs/bioattn.yaml) do not need torch."""
    # A finder that refuses, not sys.modules[...] = None: scipy takes such an entry for a loaded torch.
    code = f"""
import sys
class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("torch", "lightning"):
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
sys.meta_path.insert(0, Refuse())
import bioattn.cli.{verb}
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
