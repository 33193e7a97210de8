"""Stand-in for the `conda` executable: answers what Snakemake 9 asks, and nothing else.

Environments are solved and installed by py-rattler from a local channel. It cannot
show that the pins in envs/ solve on conda-forge, only that the workflow asks for
its environments, and runs in them, as it should.
"""

import asyncio
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import yaml
from rattler import VirtualPackage, install, solve

ROOT = Path(__file__).resolve().parent.parent
#: Snakemake asks for at least 24.7.1.
VERSION = "25.1.0"


def after(arguments: list[str], option: str) -> str:
    """Value that follows an option."""
    return arguments[arguments.index(option) + 1]


def create(arguments: list[str]) -> int:
    """`conda env create --file FILE --prefix PREFIX`."""
    prefix, file = Path(after(arguments, "--prefix")), Path(after(arguments, "--file")).resolve()
    document = yaml.safe_load(file.read_text())
    alias = os.environ["CONDA_CHANNEL_ALIAS"].rstrip("/")
    channels = [f"{alias}/{name}" for name in document["channels"] if name != "nodefaults"]
    specs = [entry for entry in document["dependencies"] if isinstance(entry, str)]
    from_pip = [line for entry in document["dependencies"] if isinstance(entry, dict) for line in entry["pip"]]

    async def build() -> None:
        records = await solve(
            channels, specs, platforms=["linux-64", "noarch"], virtual_packages=VirtualPackage.detect()
        )
        await install(records, target_prefix=prefix, show_progress=False, cache_dir=os.environ["CONDA_PKGS_DIRS"])

    asyncio.run(build())
    (prefix / "conda-meta" / "history").touch()
    if not from_pip:
        return 0
    with tempfile.NamedTemporaryFile("w", suffix=".txt") as requirements:
        requirements.write("\n".join(from_pip))
        requirements.flush()
        return subprocess.call(
            [prefix / "bin" / "python", "-m", "pip", "install", "--no-index", "-r", requirements.name]
        )


def main(arguments: list[str]) -> int:
    """Answer one call."""
    with open(os.environ["CONDA_STAND_IN_LOG"], "a") as log:
        print(*arguments, file=log)
    if arguments[:1] == ["--version"]:
        print("conda", VERSION)
    elif arguments[:1] == ["info"]:
        root = str(ROOT)
        print(json.dumps({"conda_prefix": root, "root_prefix": root, "platform": "linux-64", "conda_version": VERSION}))
    elif arguments[:1] == ["config"]:
        print(json.dumps({"get": {"channel_priority": "strict"}}))
    elif arguments[:2] == ["env", "create"]:
        return create(arguments)
    elif arguments[:1] != ["clean"]:
        sys.exit(f"conda stand-in: not known: {arguments}")
    return 0


status = main(sys.argv[1:])
sys.stdout.flush()
# Threads of the library may still run while Python takes itself down, which aborts now and then.
os._exit(status)
