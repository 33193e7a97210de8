"""Root of the command line: verbs load when they are used, and mistakes end in one line.

Importing torch takes seconds, so `--help`, `--version` and the light verbs must not
pay for it: the root knows each verb's name, module and summary, and imports the
module only to run that verb or to show its own help.
"""

import errno
import sys
import warnings
from collections.abc import Sequence
from importlib import import_module
from typing import Annotated, Any, TextIO

import typer
from typer.core import TyperCommand, TyperGroup
from typer.main import get_command

from bioattn import __version__
from bioattn.errors import BioattnError, BioattnWarning

#: Verb -> (module:function, summary in `--help`), in the order of the workflow.
LAZY: dict[str, tuple[str, str]] = {
    "simulate": ("bioattn.cli.simulate:simulate", "Draw promoters from a structural causal model with known truth."),
    "ingest": ("bioattn.cli.ingest:ingest", "Read and check sequences, regions or variants, and their targets."),
    "split": ("bioattn.cli.split:split", "Hold out groups of related sequences, and measure leakage."),
    "pretrain": ("bioattn.cli.pretrain:pretrain", "Learn from unlabelled sequences first; resumes after a kill."),
    "train": ("bioattn.cli.train:train", "Train one model; resumes after a kill."),
    "evaluate": ("bioattn.cli.evaluate:evaluate", "Score trained models and baselines on held-out sequences."),
    "bakeoff": ("bioattn.cli.bakeoff:bakeoff", "Compare tokenizers on the run's data."),
    "heads": ("bioattn.cli.heads:heads", "Find what each attention head reads: motifs, logos, names."),
    "stability": (
        "bioattn.cli.stability:stability",
        "Match heads between replicates, and count in how many each motif is found.",
    ),
    "attribution": (
        "bioattn.cli.attribution:attribution",
        "Attribute the readout to bases, and test which attribution is faithful.",
    ),
    "hits": ("bioattn.cli.hits:hits", "Look for the motifs that pairs are made of, in all sequences."),
    "environment": (
        "bioattn.cli.environment:environment",
        "Draw training sequences in which motifs keep other company.",
    ),
    "coattention": ("bioattn.cli.coattention:coattention", "Measure co-attention of motif pairs in one model."),
    "screen": ("bioattn.cli.knockin:screen", "Put all motif pairs into a few backgrounds of one model."),
    "candidates": ("bioattn.cli.candidates:candidates", "Choose the motif pairs that interventions will test."),
    "knockout": ("bioattn.cli.knockout:knockout", "Knock out motif pairs and attention edges in one model."),
    "knockin": (
        "bioattn.cli.knockin:knockin",
        "Put chosen motif pairs into many backgrounds, and compare their distances and strands.",
    ),
    "interactions": ("bioattn.cli.interactions:interactions", "Combine replicates into one verdict for each pair."),
    "bench": ("bioattn.cli.bench:bench", "Train on simulated data with known truth, and score verdicts and rivals."),
    "scoreboard": ("bioattn.cli.bench:scoreboard", "Score verdicts and rivals over all units of the benchmark."),
    "family": ("bioattn.cli.protein:family", "Predict contacts of a protein family from its alignment."),
    "chains": ("bioattn.cli.protein:chains", "Read protein chains, and hold out groups of related ones."),
    "trunk": ("bioattn.cli.protein:trunk", "Train one network over many chains; resumes after a kill."),
    "distances": (
        "bioattn.cli.protein:distances",
        "Score networks on held-out chains, look inside the trunk, and cut out third residues.",
    ),
    "protein": ("bioattn.cli.protein_report:protein", "Write one self-contained HTML file about the protein track."),
    "principle": ("bioattn.cli.principle:principle", "Run an experiment on attention whose answer is known."),
    "principles": ("bioattn.cli.principle:principles", "Write the verdicts of experiments as one table and one page."),
    "judge": ("bioattn.cli.principle:judge", "Fail if a claim of an experiment does not hold."),
    "report": ("bioattn.cli.report:report", "Write one self-contained HTML file about a run."),
    "config": ("bioattn.cli.config:config", "Check a configuration file and print it with all defaults."),
    "schema": ("bioattn.cli.config:schema", "Print the JSON schema of configuration files."),
}

#: Failures of the machine rather than of the program: no traceback helps the user.
_MACHINE_ERRORS = {errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EPERM, errno.EROFS}


class LazyCommand(TyperCommand):
    """A verb that is imported when it is called."""

    def make_context(self, info_name: str | None, args: list[str], parent: Any = None, **extra: Any) -> Any:
        """Context of the real command, which then takes over."""
        module, _, function = LAZY[str(self.name)][0].partition(":")
        single = typer.Typer(add_completion=False, rich_markup_mode=None)
        single.command(str(self.name))(getattr(import_module(module), function))
        return get_command(single).make_context(info_name, args, parent=parent, **extra)


class LazyGroup(TyperGroup):
    """The verbs of `LAZY`, in that order."""

    def list_commands(self, ctx: Any) -> list[str]:
        """Names of all verbs."""
        return list(LAZY)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """Stand-in for a verb, or None for an unknown name."""
        if cmd_name not in LAZY:
            return None
        summary = LAZY[cmd_name][1]
        return LazyCommand(cmd_name, help=summary, short_help=summary, rich_markup_mode=None)


app = typer.Typer(cls=LazyGroup, add_completion=False, rich_markup_mode=None, no_args_is_help=True)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"bioattn {__version__}")
        raise typer.Exit()


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Train Transformers on DNA, read each attention head, and test which motif pairs interact."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and exit: 0 done, 2 the user can mend it, 130 interrupted.

    A `BioattnError` and a full or unwritable disk become one line on stderr for
    each problem; anything else is our mistake and keeps its traceback.
    """
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    verb = next((argument for argument in arguments if argument in LAZY), "")
    warnings.showwarning = _show_warning
    try:
        get_command(app)(args=list(arguments), prog_name="bioattn")
    except BioattnError as error:
        _fail(verb, str(error))
    except OSError as error:
        if error.errno not in _MACHINE_ERRORS:
            raise
        place = f"{error.filename}: " if error.filename else ""
        _fail(verb, f"{place}{error.strerror}: check the folder's permissions and free space")
    except KeyboardInterrupt:
        raise SystemExit(130) from None


def _fail(verb: str, message: str) -> None:
    name = f"bioattn {verb}".strip()
    for line in message.splitlines() or ["failed"]:
        print(f"{name}: error: {line}", file=sys.stderr)
    raise SystemExit(2)


def _show_warning(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> None:
    stream = file or sys.stderr
    if issubclass(category, BioattnWarning):
        stream.write(f"bioattn: warning: {' '.join(str(message).split())}\n")
    else:
        stream.write(warnings.formatwarning(message, category, filename, lineno, line))
