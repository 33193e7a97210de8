"""README says what is true: its commands are those that CI runs, its example runs, its links lead somewhere."""

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def block(mark: str) -> str:
    """Code block after a `<!-- ... -->` mark."""
    found = re.search(rf"<!-- {mark} -->\n```\w+\n(.*?)\n```", README, re.S)
    assert found, f"README has no block '{mark}'"
    return found[1]


def test_the_library_example_runs():
    """The Python example runs as it stands, from the root of a clone, and prints something."""
    done = subprocess.run([sys.executable, "-c", block("example: library")], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip()


def test_the_library_example_is_short():
    """Ten lines are enough to begin with."""
    assert len([line for line in block("example: library").splitlines() if line.strip()]) <= 10


def test_ci_finds_the_test_command():
    """.ci/run takes the test command out of README: one command on one line, with the pins and the extra."""
    command = block("command: test")
    assert "\n" not in command
    assert "readme_command test" in (ROOT / ".ci" / "run").read_text()
    assert "-c envs/constraints.txt -e '.[test]'" in command


def test_each_command_is_one_line_that_prepares_itself():
    """Both commands make their environment, so a fresh machine needs nothing else."""
    for mark in ("command: run", "command: test"):
        command = block(mark)
        assert command.startswith("python3 -m venv .venv && ")
        assert "pip install -c envs/constraints.txt" in command


def test_links_lead_to_files():
    """Relative links of README exist."""
    links = re.findall(r"\]\(((?!https?:)[^)#]+)\)", README)
    assert links
    assert [link for link in links if not (ROOT / link).exists()] == []


def test_every_pin_is_exact_and_every_dependency_is_pinned():
    """constraints.txt pins what pyproject.toml names, by version only: no host, no path, no local build."""
    import tomllib

    lines = [line for line in (ROOT / "envs/constraints.txt").read_text().splitlines() if not line.startswith("#")]
    assert all(re.fullmatch(r"[A-Za-z0-9._-]+==[A-Za-z0-9.]+", line) for line in lines)
    pinned = {re.sub(r"[-_.]+", "-", line.split("==")[0]).lower() for line in lines}
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    needed = [*project["dependencies"], *project["optional-dependencies"]["test"]]
    names = {re.sub(r"[-_.]+", "-", re.split(r"[<>=\[ ]", line)[0]).lower() for line in needed}
    assert names - pinned == set()
