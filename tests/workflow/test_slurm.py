"""The workflow on a real Slurm of one node: jobs are submitted, and steps with a model get a GPU."""

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

SCRIPT = Path(__file__).resolve().parent / "slurm" / "cluster.sh"


@pytest.fixture(scope="module")
def cluster() -> Iterator[Path]:
    """Folder with a virtual environment that has the Slurm plugin, beside a running cluster."""
    if os.geteuid() != 0 or shutil.which("apt-get") is None:
        pytest.skip("a one-node Slurm needs root and Debian packages")
    # Short: the socket's path has a limit of some 100 characters.
    folder = Path(tempfile.mkdtemp(prefix="slurm"))
    try:
        done = subprocess.run(["bash", SCRIPT, "start", folder], capture_output=True, text=True, timeout=300)
        if done.returncode:
            pytest.skip(f"Slurm cannot be started here: {done.stderr.strip()[-300:]}")
        # In an environment of its own, because with the plugin every Snakemake call first looks for a controller.
        subprocess.run([sys.executable, "-m", "venv", "--system-site-packages", folder / "venv"], check=True)
        site = next((folder / "venv" / "lib").glob("python*/site-packages"))
        (site / "tests.pth").write_text("\n".join(path for path in sys.path if path.endswith("site-packages")) + "\n")
        pip = [folder / "venv" / "bin" / "python", "-m", "pip", "install", "-q"]
        done = subprocess.run(
            [*pip, "snakemake-executor-plugin-slurm>=2,<3"], capture_output=True, text=True, timeout=300
        )
        if done.returncode:
            pytest.skip(f"the Slurm plugin cannot be installed here: {done.stderr.strip()[-300:]}")
        yield folder
    finally:
        subprocess.run(["bash", SCRIPT, "stop", folder], check=False, timeout=60)
        shutil.rmtree(folder, ignore_errors=True)


def test_jobs_run_through_slurm_with_a_gpu(stub_clone, make_config, cluster, monkeypatch):
    """With the shipped profile and `environment: gpu`, all steps run as jobs, and training sees one GPU."""
    program = stub_clone.root / "bioattn" / "__main__.py"
    seen = """import os, sys
with open("gpus.txt", "a") as log:
    print(sys.argv[1], os.environ.get("CUDA_VISIBLE_DEVICES"), file=log)
"""
    program.write_text(seen + program.read_text())
    stub_clone.write_config({**make_config(train={"seeds": [1]}), "environment": "gpu"})
    rules = ["train", "evaluate", "heads", "stability", "attribution", "coattention", "candidates"]
    rules += ["hits", "screen", "knockout", "knockin"]
    monkeypatch.setattr(sys, "executable", str(cluster / "venv" / "bin" / "python"))
    stub_clone.run(
        "--workflow-profile", str(stub_clone.root / "workflow/profiles/slurm"),
        "--configfile", "config.yaml",
        "--slurm-init-seconds-before-status-checks", "1",
        "--slurm-status-command", "squeue",
        "--slurm-no-account",
        "--default-resources", "slurm_partition=main", "mem_mb=500", "runtime=5",
        "--set-resources", *[f"{rule}:mem_mb=500" for rule in rules],
        SLURM_CONF=str(cluster / "slurm.conf"),
    )  # fmt: skip
    assert (stub_clone.work / "results/tiny/report.html").exists()
    gpus = dict(line.split() for line in (stub_clone.work / "gpus.txt").read_text().splitlines())
    assert {gpus[verb] for verb in ("train", "heads", "attribution", "coattention", "screen", "knockin")} <= {"0", "1"}
    assert gpus["split"] == gpus["stability"] == "None"
    assert stub_clone.verbs() == sorted([*rules, "simulate", "ingest", "split", "interactions", "report"])
