"""Clones of the workflow to run: with stand-in verbs, which take no time, or with the real package."""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]

#: Stand-in for `python -m bioattn VERB`: checks its options and writes the files that the real verb promises.
STUB = """
import argparse, json, os, sys, time
from pathlib import Path

OUTPUTS = {
    "simulate": ["sequences.fa", "labels.tsv", "truth_pairs.tsv", "truth_motifs.tsv", "truth.json", "samples.tsv",
                 "truth_sequences.tsv", "truth_sites.parquet"],
    "ingest": ["sequences.parquet", "rejected.tsv", "summary.json", "balance.tsv", "composition.tsv"],
    "split": ["split.parquet", "leakage.tsv", "neighbours.parquet", "audit.tsv"],
    "pretrain": ["weights.safetensors", "model.json", "history.tsv", "run_record.json"],
    "train": ["weights.safetensors", "model.json", "history.tsv", "run_record.json"],
    "evaluate": ["metrics.tsv", "predictions.parquet", "curves.parquet"],
    "bakeoff": ["bakeoff.tsv", "seeds.tsv"],
    "heads": ["heads.tsv", "motifs.meme", "motifs.npz", "positions.parquet", "contact_sheet.svg",
              "logos/head_0_0.svg", "columns.tsv", "ablation.tsv", "similarity.tsv", "distances.tsv",
              "tracks.tsv", "cwms.npz", "readers.npz", "seqlets.bed", "summary.json"],
    "stability": ["stability.tsv", "head_matches.tsv"],
    "attribution": ["ism.parquet", "attributions.parquet", "head_tracks.parquet", "curves.tsv", "edges.tsv",
                    "faithfulness.tsv"],
    "hits": ["hits.parquet", "library.parquet"], "environment": ["sequences.parquet", "split.parquet"],
    "interactions": ["interactions.tsv", "interactions.parquet", "columns.tsv", "spacing.tsv"],
    "family": ["precision.tsv", "pairs.parquet", "heads.tsv", "losses.parquet", "patterns.npz", "summary.json"],
    "chains": ["chains.parquet", "rejected.tsv", "related.tsv", "leakage.tsv"],
    "trunk": ["weights.safetensors", "model.json", "history.tsv", "run_record.json"],
    "distances": ["scores.tsv", "proteins.tsv", "calibration.tsv", "examples.npz", "summary.json"],
    "principle": ["verdicts.tsv", "table.tsv", "experiment.json", "figure.svg"],
    "principles": ["report.html", "verdicts.tsv"], "judge": [],
}
OPTIONS = {
    "simulate": [], "ingest": ["samples"], "split": ["sequences"],
    "pretrain": ["sequences", "split"],
    "train": ["sequences", "split", "fold", "seed"], "evaluate": ["sequences", "split", "neighbours"],
    "bakeoff": ["sequences", "split", "fold"],
    "heads": ["sequences", "split", "fold", "model"], "attribution": ["sequences", "split", "fold", "model"],
    "hits": ["sequences", "split", "fold"],
    "environment": ["sequences", "split", "hits", "kind", "fold"],
    "coattention": ["sequences", "split", "hits", "fold", "model"],
    "stability": [],
    "candidates": ["sequences", "split", "hits", "fold"],
    "screen": ["sequences", "split", "hits", "fold", "model"],
    "knockout": ["sequences", "split", "hits", "fold", "model", "candidates"],
    "knockin": ["sequences", "split", "hits", "fold", "model", "candidates"],
    "interactions": ["sequences", "split", "hits", "fold", "candidates"], "report": ["results"],
    "family": ["name"], "chains": [], "trunk": ["chains", "variant"], "distances": ["chains"], "protein": ["results"],
    "principle": ["size", "seeds"], "principles": [], "judge": [],
}
verb = sys.argv[1]
parser = argparse.ArgumentParser()
parser.add_argument("--settings", required=verb not in ("stability", "principle", "principles", "judge"))
for name in [*([] if verb == "judge" else ["out"]), *OPTIONS[verb]]:
    parser.add_argument("--" + name, required=True)
if verb in ("principle", "judge"):
    parser.add_argument("subject")
    parser.add_argument("--no-judge", action="store_true", required=verb == "principle")
many = {"evaluate": ["model"], "distances": ["network"], "candidates": ["coattention", "screen"],
        "stability": ["heads"], "principles": ["experiment"],
        "interactions": ["coattention", "knockout", "screen", "knockin", "syntax", "environment"]}.get(verb, [])
for name in many:
    optional = ("screen", "knockin", "syntax", "environment")
    parser.add_argument("--" + name, action="append", required=name not in optional)
if verb == "knockin":
    parser.add_argument("--syntax")
parser.add_argument("--pretrained")
parser.add_argument("--reject", action="store_true", required=verb == "family")
parser.add_argument("--rejected", required=verb == "protein")
parser.add_argument("--fasta", action="append")
options = parser.parse_args(sys.argv[2:])
if options.settings:
    json.loads(Path(options.settings).read_text())
for name in ["samples", "sequences", "split", "hits", "neighbours", "results", "model", "pretrained", "candidates",
             "coattention", "knockout", "screen", "knockin", "syntax", "heads", "chains", "network"]:
    paths = getattr(options, name, None) or []
    if verb == "knockin" and name == "syntax" and paths:
        Path(paths).write_text("stub\\n")
    for path in [paths] if isinstance(paths, str) else paths:
        assert Path(path).exists(), path
for word in getattr(options, "environment", None) or []:
    assert Path(word.split("=", 1)[1]).exists(), word
if Path("fail_" + verb).exists():
    sys.exit(f"bioattn {verb}: error: told to fail")
with open("calls.txt", "a") as log:
    log.write(" ".join([verb, *sys.argv[2:]]) + "\\n")
with open("prefixes.txt", "a") as log:
    log.write(verb + "\\t" + sys.prefix + "\\n")
out = Path(getattr(options, "out", "."))
for name in OUTPUTS.get(verb, [None]):
    path = out / name if name else out
    path.parent.mkdir(parents=True, exist_ok=True)
    texts = {".svg": "<svg xmlns='http://www.w3.org/2000/svg' width='9' height='9'></svg>\\n",
             ".tsv": "a\\tb\\n1\\t2\\n", ".html": "<html><body>report</body></html>\\n", ".json": "{}\\n"}
    path.write_text(texts.get(path.suffix, "stub\\n"))
if options.rejected:
    Path(options.rejected).write_text("a\\tb\\n")
"""


def small_config(**changes: Any) -> dict[str, Any]:
    """A run of minimal size, with every step. Keyword arguments replace sections' keys: train={"epochs": 2}."""
    run: dict[str, Any] = {
        "data": {"simulate": {"n_sequences": 400, "length": 160}},
        "task": {"kind": "regression", "targets": ["y"]},
        "motifs": {
            "jaspar_ids": [
                "MA0028.3", "MA0060.4", "MA0148.5", "MA0046.3", "MA0102.5", "MA0090.4",
                "MA0093.4", "MA0592.4", "MA0083.3", "MA0785.2", "MA0079.5", "MA0162.5",
            ],
        },
        "model": {
            "stem": {"kind": "pwm", "n_filters": 4, "width": 15, "pool": 10},
            "d_model": 8, "n_layers": 1, "n_heads": 2, "d_feedforward": 8, "dropout": 0.0,
        },
        "train": {"seeds": [1, 2, 3], "epochs": 2, "batch_size": 64},
        "evaluate": {"bootstrap": 20, "baselines": ["composition"]},
        "explain": {"n_sequences": 100, "ism_sequences": 4, "seqlets_per_head": 50},
        "interactions": {
            "n_sequences": 100, "instances_per_pair": 10, "draws": 1, "n_noncandidates": 2, "permutations": 99,
            "min_instances": 5, "backgrounds": 16, "screen_backgrounds": 8, "syntax_backgrounds": 8,
            "spacing_step_bp": 40,
        },
    }  # fmt: skip
    for section, keys in changes.items():
        run[section] = {**run.get(section, {}), **keys} if isinstance(keys, dict) else keys
    return {"results": "results", "runs": {"tiny": run}}


@dataclass(frozen=True)
class Clone:
    """A folder that holds the workflow, and a working folder beside it."""

    root: Path
    work: Path

    def write_config(self, document: dict[str, Any], name: str = "config.yaml") -> Path:
        """Write a configuration into the working folder."""
        path = self.work / name
        path.write_text(yaml.safe_dump(document, sort_keys=False))
        return path

    def command(self, *arguments: str) -> list[str]:
        """A Snakemake command line on this clone."""
        snakefile = str(self.root / "Snakefile")
        return [sys.executable, "-m", "snakemake", "--cores", "2", "--snakefile", snakefile, *arguments]

    def run(self, *arguments: str, check: bool = True, cwd: Path | None = None, **environment: str) -> str:
        """Output of Snakemake, stdout and stderr together."""
        done = subprocess.run(
            self.command(*arguments),
            cwd=cwd or self.work,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=1500,
            env=clean_environment(**environment),
        )
        if check and done.returncode:
            raise AssertionError(f"snakemake {' '.join(arguments)} failed:\n{done.stdout[-6000:]}{self.logs()}")
        return done.stdout

    def kill_when(self, ready: Callable[[], bool], *arguments: str, seconds: float = 0) -> None:
        """Start Snakemake, and kill it with all its jobs some seconds after something has become so."""
        log = self.work / "killed.log"
        with log.open("a") as output:
            process = subprocess.Popen(
                self.command(*arguments),
                cwd=self.work,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                env=clean_environment(),
            )
        end = time.monotonic() + 600
        try:
            while not ready():
                assert process.poll() is None, f"ended unkilled:\n{log.read_text()[-3000:]}{self.logs()}"
                assert time.monotonic() < end, "the moment to kill never came"
                time.sleep(0.02)
            time.sleep(seconds)
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()

    def logs(self) -> str:
        """Ends of the step logs, for a failed test."""
        paths = sorted(self.work.glob("results*/*/logs/**/*.log"))
        return "".join(f"\n--- {path.name}\n{path.read_text()[-1500:]}" for path in paths if path.stat().st_size)

    def calls(self) -> list[str]:
        """What the stand-in verbs were called with since the last question, as `verb --option value ...`."""
        path = self.work / "calls.txt"
        lines = path.read_text().splitlines() if path.exists() else []
        path.unlink(missing_ok=True)
        return lines

    def verbs(self) -> list[str]:
        """Which verbs ran since the last question, sorted."""
        return sorted(line.split()[0] for line in self.calls())


def clean_environment(**changes: str) -> dict[str, str]:
    """Environment in which `python` is the one that runs the tests."""
    folder = str(Path(sys.executable).parent)
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("PYTEST_", "SNAKEMAKE_", "CONDA_"))}
    path = os.pathsep.join([folder, os.environ.get("PATH", "")])
    return {**kept, "PATH": path, "OMP_NUM_THREADS": "1", "XDG_CACHE_HOME": kept.get("XDG_CACHE_HOME", ""), **changes}


def copy_workflow(target: Path, *, package: Sequence[str] | None = None) -> None:
    """Copy the workflow, and all of the package or only the named files of it."""
    target.mkdir(parents=True)
    shutil.copy(ROOT / "Snakefile", target)
    for folder in ("workflow", "config", "envs", "resources"):
        if (ROOT / folder).exists():
            shutil.copytree(ROOT / folder, target / folder, ignore=shutil.ignore_patterns(".snakemake"))
    if package is None:
        shutil.copytree(ROOT / "bioattn", target / "bioattn", ignore=shutil.ignore_patterns("__pycache__"))
        return
    for name in package:
        (target / "bioattn" / name).parent.mkdir(exist_ok=True)
        shutil.copy(ROOT / "bioattn" / name, target / "bioattn" / name)


def make_stub_clone(root: Path, work: Path) -> Clone:
    """Workflow whose verbs only write their files."""
    read = ("__init__.py", "chain_table.py", "lines.py", "packages.py", "samples.py")
    top = ("__init__.py", "config.py", "errors.py", "principles/__init__.py")
    copy_workflow(root, package=[*top, *(f"io/{name}" for name in read)])
    (root / "bioattn" / "__main__.py").write_text(STUB)
    work.mkdir()
    return Clone(root, work)


@pytest.fixture
def stub_clone(tmp_path: Path) -> Clone:
    """Workflow whose verbs only write their files."""
    return make_stub_clone(tmp_path / "clone", tmp_path / "work")


@pytest.fixture(scope="session")
def _finished(tmp_path_factory: pytest.TempPathFactory) -> Clone:
    folder = tmp_path_factory.mktemp("finished")
    clone = make_stub_clone(folder / "clone", folder / "work")
    clone.write_config(small_config())
    clone.run("--configfile", "config.yaml")
    return clone


@pytest.fixture
def done(_finished: Clone, tmp_path: Path) -> Clone:
    """A clone with stand-in verbs whose small run is complete."""
    shutil.copytree(_finished.work, tmp_path / "work", symlinks=True)
    return Clone(_finished.root, tmp_path / "work")


def make_real_clone(folder: Path) -> Clone:
    """Workflow with the real package."""
    root, work = folder / "clone", folder / "work"
    copy_workflow(root)
    work.mkdir()
    return Clone(root, work)


@pytest.fixture
def real_clone(tmp_path: Path) -> Clone:
    """Workflow with the real package."""
    return make_real_clone(tmp_path)


@pytest.fixture(scope="session")
def make_clone() -> Callable[[Path], Clone]:
    """`make_real_clone`, for test modules."""
    return make_real_clone


@pytest.fixture(scope="session")
def make_config() -> Callable[..., dict[str, Any]]:
    """`small_config`, for test modules."""
    return small_config
