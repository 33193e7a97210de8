"""Root of the command line: fast, lazy, and one line for each mistake."""

import errno
import subprocess
import sys
import types
import warnings

import pytest

import bioattn
from bioattn.cli import app
from bioattn.errors import BioattnWarning, ConfigError


def call(*arguments: str) -> tuple[int, str, str]:
    """Exit status, stdout and stderr of `python -m bioattn`."""
    done = subprocess.run([sys.executable, "-m", "bioattn", *arguments], capture_output=True, text=True)
    return done.returncode, done.stdout, done.stderr


@pytest.fixture
def verb(monkeypatch):
    """Function that registers a function as the verb `probe`."""

    def register(function):
        module = types.ModuleType("probe_module")
        module.probe = function
        monkeypatch.setitem(sys.modules, "probe_module", module)
        monkeypatch.setitem(app.LAZY, "probe", ("probe_module:probe", "Probe."))
        monkeypatch.setattr(warnings, "showwarning", warnings.showwarning)

    return register


def status(*arguments: str) -> int:
    """Exit status of `main` in this process."""
    with pytest.raises(SystemExit) as caught:
        app.main(arguments)
    return caught.value.code or 0


def test_version_is_that_of_the_package():
    """`--version` prints name and version."""
    assert call("--version") == (0, f"bioattn {bioattn.__version__}\n", "")


def test_help_lists_every_verb_without_loading_any():
    """`--help` names all verbs and imports no torch, pandas or pydantic."""
    code = "import sys; sys.argv = ['bioattn', '--help']; from bioattn.cli.app import main\n"
    code += "try: main()\nexcept SystemExit: print(sorted({'torch', 'pandas', 'pydantic'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert all(f"  {name} " in done.stdout for name in app.LAZY)
    assert done.stdout.splitlines()[-1] == "[]"


def test_no_argument_shows_the_help():
    """A bare call explains itself."""
    _, out, err = call()
    assert "Usage: bioattn" in out + err


def test_an_unknown_verb_is_refused():
    """A misspelt verb is named, with status 2."""
    code, _, err = call("trian")
    assert code == 2
    assert "No such command 'trian'" in err
    assert "Traceback" not in err


def test_an_unknown_option_is_refused():
    """A misspelt option is named, with status 2."""
    code, _, err = call("config", "--fiel", "x")
    assert code == 2
    assert "--fiel" in err


@pytest.mark.parametrize("name", app.LAZY)
def test_every_verb_shows_its_help(name, monkeypatch, capsys):
    """The table of verbs is true: each loads and describes itself."""
    monkeypatch.setattr(warnings, "showwarning", warnings.showwarning)  # put back what the command line sets
    with pytest.raises(SystemExit) as end:
        app.main([name, "--help"])
    assert not end.value.code
    assert f"Usage: bioattn {name}" in capsys.readouterr().out


def test_a_configuration_is_checked(root):
    """`config` prints the file with all defaults, which is itself a configuration."""
    code, out, _ = call("config", str(root / "config" / "config.yaml"))
    assert code == 0
    assert out.startswith("# OK: ")
    assert "learning_rate" in out


def test_a_missing_configuration_ends_in_one_line(tmp_path):
    """A mistake of the user is one line on stderr, status 2, nothing on stdout."""
    path = str(tmp_path / "none.yaml")
    assert call("config", path) == (2, "", f"bioattn config: error: {path}: no such configuration file\n")


def test_each_problem_has_its_own_line(verb, capsys):
    """A message of two lines gives two lines, each with program and verb."""

    def probe() -> None:
        raise ConfigError("first\nsecond")

    verb(probe)
    assert status("probe") == 2
    assert capsys.readouterr().err == "bioattn probe: error: first\nbioattn probe: error: second\n"


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EACCES, errno.EROFS])
def test_a_full_or_closed_disk_ends_in_one_line(verb, capsys, number):
    """The machine's refusals name the file and need no traceback."""

    def probe() -> None:
        raise OSError(number, "refused", "/some/file")

    verb(probe)
    assert status("probe") == 2
    error = capsys.readouterr().err
    assert error == "bioattn probe: error: /some/file: refused: check the folder's permissions and free space\n"


def test_our_own_mistakes_keep_their_traceback(verb):
    """An unexpected exception is not swallowed."""

    def probe() -> None:
        raise ZeroDivisionError

    verb(probe)
    with pytest.raises(ZeroDivisionError):
        app.main(["probe"])


def test_an_interrupt_exits_with_130(verb):
    """Ctrl-C is no error message."""

    def probe() -> None:
        raise KeyboardInterrupt

    verb(probe)
    assert status("probe") == 130


def test_a_warning_is_one_line(verb, capsys):
    """A BioattnWarning has no file, no line number and no source line."""

    def probe() -> None:
        warnings.warn("an idle\n GPU", BioattnWarning, stacklevel=1)

    verb(probe)
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.showwarning = app._show_warning
        probe()
    assert capsys.readouterr().err == "bioattn: warning: an idle GPU\n"


def test_public_names_exist():
    """Every name that `bioattn` promises can be imported."""
    missing = [name for name in bioattn.__all__ if not hasattr(bioattn, name)]
    assert missing == []


def test_an_unknown_public_name_is_an_attribute_error():
    """The lazy package behaves like any module."""
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        bioattn.nothing  # noqa: B018
