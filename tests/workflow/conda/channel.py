"""Local conda channel made of this very Python, its bundled pip, and an empty package for each name in the env files.

channel.py FOLDER SITE_PACKAGES ENV.yaml...

Every empty package depends on `hostlibs`, whose one .pth file points at SITE_PACKAGES,
where the real libraries are: so an environment of the channel can run real code.
"""

import asyncio
import os
import re
import shutil
import sys
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import yaml
from rattler.index import index_fs
from rattler_build import assemble_package

BASE = Path(sys.base_prefix)
VERSION = "{}.{}.{}".format(*sys.version_info[:3])
SHORT = "{}.{}".format(*sys.version_info[:2])
#: Left out of the Python package: nothing of it is used.
USELESS = ("site-packages", "__pycache__", "test", "idlelib", "turtledemo", "*.a", "config-*")


def pack(folder: Path, name: str, version: str, subdir: str, fill: Callable[[Path], None], **more: object) -> None:
    """Make one package."""
    with tempfile.TemporaryDirectory() as temporary:
        stage = Path(temporary) / "stage"
        stage.mkdir()
        fill(stage)
        build = more.pop("build", "0")
        assemble_package(name, version, subdir, build, folder / subdir, files_dir=stage, compression_level=1, **more)


def python(stage: Path) -> None:
    """This interpreter and its standard library."""
    (stage / "bin").mkdir()
    (stage / "lib").mkdir()
    shutil.copy2(BASE / f"bin/python{SHORT}", stage / f"bin/python{SHORT}")
    for link in ("python", "python3"):
        (stage / "bin" / link).symlink_to(f"python{SHORT}")
    for library in BASE.glob("lib/libpython*.so.*"):
        shutil.copy2(library, stage / "lib" / library.name)
    source, target = BASE / f"lib/python{SHORT}", stage / f"lib/python{SHORT}"
    shutil.copytree(source, target, symlinks=True, ignore=shutil.ignore_patterns(*USELESS))
    (target / "site-packages").mkdir()
    (target / "site-packages" / "README.txt").write_text("\n")


def names_in(files: list[str]) -> dict[str, str]:
    """Package -> lowest allowed version, of all conda packages in the env files."""
    found = {}
    for file in files:
        for entry in yaml.safe_load(Path(file).read_text())["dependencies"]:
            if isinstance(entry, str) and entry.split()[0] not in ("python", "pip"):
                lowest = re.search(r">=\s*([0-9.]+)", entry)
                found[entry.split()[0]] = lowest[1] if lowest else "1.0"
    return found


def main(out: Path, site: str, files: list[str]) -> None:
    """Write the channels `conda-forge` (everything) and `bioconda` (empty)."""
    forge = out / "conda-forge"
    for channel in (forge, out / "bioconda"):
        for subdir in ("linux-64", "noarch"):
            (channel / subdir).mkdir(parents=True)
    pack(forge, "python", VERSION, "linux-64", python, build="host_0")
    wheel = next((BASE / f"lib/python{SHORT}/ensurepip/_bundled").glob("pip-*.whl"))
    noarch = {"noarch": "python", "build": "pyh_0", "depends": [f"python {SHORT}.*"]}
    pack(
        forge,
        "pip",
        wheel.name.split("-")[1],
        "noarch",
        lambda stage: zipfile.ZipFile(wheel).extractall(stage / "site-packages"),
        **noarch,
    )

    def hostlibs(stage: Path) -> None:
        (stage / "site-packages").mkdir()
        (stage / "site-packages" / "zz_hostlibs.pth").write_text(site + "\n")

    pack(forge, "hostlibs", "1.0", "noarch", hostlibs, **noarch)
    for name, version in names_in(files).items():

        def empty(stage: Path, name: str = name) -> None:
            (stage / "share" / "empty").mkdir(parents=True)
            (stage / "share" / "empty" / name).write_text("\n")

        pack(forge, name, version, "noarch", empty, noarch="generic", depends=["hostlibs"])
    for channel in (forge, out / "bioconda"):
        asyncio.run(index_fs(channel))


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], sys.argv[3:])
    # Threads of the library may still run while Python takes itself down, which aborts now and then.
    sys.stdout.flush()
    os._exit(0)
