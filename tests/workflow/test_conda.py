"""`--use-conda`: environments are made from envs/, and every step runs in its own. With a stand-in for conda."""

import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
HERE = Path(__file__).resolve().parent / "conda"


@pytest.mark.parametrize("name", ["bioattn", "torch-cpu", "torch-gpu"])
def test_environment_files_are_clean(name):
    """Channels are conda-forge and bioconda without defaults; no local path or build is named."""
    document = yaml.safe_load((ROOT / "envs" / f"{name}.yaml").read_text())
    assert document["channels"] == ["conda-forge", "bioconda", "nodefaults"]
    assert not [entry for entry in map(str, document["dependencies"]) if "/" in entry or "==" in entry]


def test_environments_allow_the_tested_versions():
    """The conda files and pyproject.toml state the same ranges."""
    import tomllib

    ranges = {}
    for line in tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]:
        name = line.split(">")[0]
        ranges[name] = line.removeprefix(name)
    other_names = {
        "matplotlib-base": "matplotlib", "pytorch-cpu": "torch", "pytorch-gpu": "torch",
        "pybigwig": "pyBigWig", "python-edlib": "edlib",
    }  # fmt: skip
    for file in (ROOT / "envs").glob("*.yaml"):
        for entry in yaml.safe_load(file.read_text())["dependencies"]:
            for line in entry["pip"] if isinstance(entry, dict) else [entry]:
                name, _, wanted = line.partition(" ")
                if name not in ("python", "pip"):
                    assert ranges[other_names.get(name, name)] == wanted, f"{file.name}: {line}"


@pytest.fixture(scope="module")
def conda(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Environment variables with which `conda` is the stand-in."""
    if sys.platform != "linux" or sys.base_prefix == "/usr":
        pytest.skip("the local channel packs a Python of its own folder on Linux, and this one is the system's")
    folder = tmp_path_factory.mktemp("conda")
    python = folder / "rattler" / "bin" / "python"
    subprocess.run([sys.executable, "-m", "venv", str(folder / "rattler")], check=True)
    wanted = ["py-rattler>=0.20", "py-rattler-build>=0.50", "pyyaml"]
    done = subprocess.run([python, "-m", "pip", "install", "-q", *wanted], capture_output=True, text=True, timeout=300)
    if done.returncode:
        pytest.skip(f"py-rattler cannot be installed here: {done.stderr.strip()[-200:]}")
    site = sysconfig.get_paths()["purelib"]
    files = [str(path) for path in sorted((ROOT / "envs").glob("*.yaml"))]
    subprocess.run([python, str(HERE / "channel.py"), str(folder / "channel"), site, *files], check=True)
    prefix = folder / "prefix"
    (prefix / "bin").mkdir(parents=True)
    shutil.copy(HERE / "stand_in.py", prefix / "bin" / "stand_in.py")
    shutil.copy(HERE / "activate.sh", prefix / "bin" / "activate")
    executable = prefix / "bin" / "conda"
    executable.write_text(f'#!/bin/sh\nexec "{python}" "{prefix}/bin/stand_in.py" "$@"\n')
    executable.chmod(0o755)
    return {
        "PATH": os.pathsep.join([str(prefix / "bin"), str(Path(sys.executable).parent), os.environ["PATH"]]),
        "CONDA_CHANNEL_ALIAS": (folder / "channel").as_uri(),
        "CONDA_PKGS_DIRS": str(folder / "packages"),
        "CONDA_STAND_IN_LOG": str(folder / "calls.txt"),
    }


@pytest.mark.slow
def test_every_step_runs_in_its_environment(stub_clone, make_config, conda):
    """Light steps and steps with a model run in two environments that Snakemake made from envs/."""
    stub_clone.write_config(make_config(train={"seeds": [1]}))
    stub_clone.run("--use-conda", "--configfile", "config.yaml", **conda)
    assert (stub_clone.work / "results/tiny/report.html").exists()
    calls = [line.split("\t") for line in (stub_clone.work / "prefixes.txt").read_text().splitlines()]
    prefixes = {verb: prefix for verb, prefix in calls}
    assert all(".snakemake/conda/" in prefix for prefix in prefixes.values())
    light = {prefixes[verb] for verb in ("simulate", "ingest", "split", "hits", "report")}
    model = {
        prefixes[verb]
        for verb in ("train", "evaluate", "heads", "coattention", "screen", "candidates", "knockin", "interactions")
    }
    assert len(light) == len(model) == 1
    assert light != model


@pytest.mark.slow
def test_the_package_runs_inside_an_environment(real_clone, make_config, conda):
    """The clone's own package is found in a conda environment, where it is not installed."""
    real_clone.write_config(make_config(train={"seeds": [1], "epochs": 1}))
    target = "results/tiny/models/fold0/seed1/weights.safetensors"
    real_clone.run(target, "--sdm", "conda", "--configfile", "config.yaml", **conda)
    assert (real_clone.work / target).exists()
