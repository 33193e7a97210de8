"""Settings and names that the rules share. Nothing heavy is imported: every cluster job reads this file again."""

import json
import os
import shlex
import sys

import yaml
from snakemake.exceptions import WorkflowError

if (ROOT / "bioattn").is_dir():
    # The clone's own package, whichever environment runs a job: conda environments do not have it installed,
    # and Snakemake unsets the user's PYTHONPATH in them.
    sys.path.insert(0, str(ROOT))
    shell.prefix(
        f"set -euo pipefail; export PYTHONPATH={shlex.quote(str(ROOT)).replace('{', '{{').replace('}', '}}')}; "
    )

from bioattn.config import digest, load_protein, parse_config, protein_step_settings, step_settings
from bioattn.errors import BioattnError, ConfigError
from bioattn.io.chain_table import files_of_table
from bioattn.io.packages import find_data
from bioattn.io.samples import files_named
from bioattn.principles import EXPERIMENTS

try:
    CONFIG = parse_config(dict(config))
except ConfigError as error:
    # Without this, Snakemake adds a traceback of some 40 lines.
    raise WorkflowError(f"The configuration cannot be used.\n{error}") from None


def find_input(path):
    """A file that the configuration names: beside the user's work, or else in the folder of this workflow."""
    beside = ROOT / path
    return str(beside) if not os.path.exists(path) and beside.exists() else path


def located(run):
    """The run, with every file it names where it lies."""
    negatives, rules = run.data.negatives, run.pretrain
    negatives = negatives.model_copy(
        update={
            "genome": negatives.genome and find_input(negatives.genome),
            "exclude": [find_input(path) for path in negatives.exclude],
        }
    )
    data = run.data.model_copy(
        update={"negatives": negatives, "samples": run.data.samples and find_input(run.data.samples)}
    )
    motifs = run.motifs.model_copy(update={"meme": run.motifs.meme and find_input(run.motifs.meme)})
    pretrain = rules and rules.model_copy(update={"fasta": [find_input(path) for path in rules.fasta]})
    library = run.interactions.measured
    library = library and library.model_copy(update={"path": find_input(library.path)})
    interactions = run.interactions.model_copy(update={"measured": library})
    return run.model_copy(update={"data": data, "motifs": motifs, "pretrain": pretrain, "interactions": interactions})


RUNS = {name: located(run) for name, run in CONFIG.runs.items()}

# A configuration without a protein track can still make the embedded one: `snakemake protein`.
PROTEIN = CONFIG.protein or load_protein(ROOT / "config" / "protein.yaml")

# Steps with a model run in an environment with torch, made for this machine; the others in a light one.
LIGHT_ENV = "../../envs/bioattn.yaml"
TORCH_ENV = f"../../envs/torch-{CONFIG.environment}.yaml"

# Locally this is only a counter (see README: --resources gpu=1); on Slurm it becomes --gpus=1.
GPUS = int(CONFIG.environment == "gpu")


wildcard_constraints:
    run="|".join(RUNS) or "no run",
    family="|".join(PROTEIN.families) or "no family",
    fold=r"\d+",
    seed=r"\d+",
    step=r"[a-z]+",
    environment="cooccurrence|gc",
    elsewhere=r"cooccurrence|gc|fold\d+",
    digest=r"[0-9a-f]{12}",


def results(*parts):
    """Path pattern of a result of a run."""
    return os.path.join(CONFIG.results, "{run}", *parts)


def settings_of(step):
    """Input function: the settings file of a step, whose name changes exactly when a setting that it reads does."""

    def path(wildcards):
        found = digest(step_settings(RUNS[wildcards.run], step))
        return results("settings", f"{step}-{found}.json").format(run=wildcards.run)

    return path


def settings_text(wildcards):
    """Content of a settings file."""
    return json.dumps(step_settings(RUNS[wildcards.run], wildcards.step), indent=1)


def config_text(wildcards):
    """Resolved configuration of one run, complete enough to be used with --configfile."""
    run = RUNS[wildcards.run]
    document = {
        "environment": CONFIG.environment,
        "runs": {wildcards.run: run.model_dump(mode="json")},
    }
    text = yaml.safe_dump(document, sort_keys=False, allow_unicode=True)
    return f"# Digest {digest(step_settings(run, 'report'))}: all settings of this run, defaults filled in.\n{text}"


def samples_of(wildcards):
    """Input function: samples.tsv of a run."""
    run = RUNS[wildcards.run]
    if run.data.simulate:
        return results("input", "samples.tsv").format(run=wildcards.run)
    return run.data.samples


def files_of(wildcards):
    """Input function: files that samples.tsv and data.negatives name, as far as they exist.

    A missing file is left to `bioattn ingest`, whose message names the line.
    """
    run = RUNS[wildcards.run]
    if run.data.simulate:
        named = [results("input", "sequences.fa").format(run=wildcards.run)]
    else:
        named = [str(path) for path in files_named(samples_of(wildcards))]
    for path in (run.data.negatives.genome, *run.data.negatives.exclude):
        if path and os.path.isfile(path):
            named.append(path)
    return list(dict.fromkeys(named))


def motif_file_of(wildcards):
    """Input function: the user's MEME file, if the run has one."""
    return RUNS[wildcards.run].motifs.meme or []


def measured_of(wildcards):
    """Input function: the table of a measured library, if the run has one."""
    library = RUNS[wildcards.run].interactions.measured
    return library.path if library else []


def unlabelled_of(wildcards):
    """Input function: FASTA files with unlabelled sequences, of a run that is pretrained."""
    rules = RUNS[wildcards.run].pretrain
    return rules.fasta if rules else []


def if_pretrained(pattern):
    """Input function: a result of pretraining, of a run that is pretrained."""

    def paths(wildcards):
        return expand(pattern, run=wildcards.run) if RUNS[wildcards.run].pretrain else []

    return paths


def for_models(pattern):
    """Input function: a file of every fold and seed."""

    def paths(wildcards):
        run = RUNS[wildcards.run]
        return expand(
            pattern,
            run=wildcards.run,
            fold=range(run.split.n_folds),
            seed=run.train.seeds,
        )

    return paths


def for_replicates(pattern):
    """Input function: a file of every seed of fold 0. Replicates share their held-out sequences."""

    def paths(wildcards):
        return expand(pattern, run=wildcards.run, seed=RUNS[wildcards.run].train.seeds)

    return paths


def if_attention(pattern):
    """Input function: a file of every seed of fold 0, if the models have attention heads to look at."""

    def paths(wildcards):
        return for_replicates(pattern)(wildcards) if RUNS[wildcards.run].model.has_attention else []

    return paths


def if_explained(pattern):
    """Input function: a result about all replicates' heads, which a run with attention has."""

    def paths(wildcards):
        return expand(pattern, run=wildcards.run) if RUNS[wildcards.run].model.has_attention else []

    return paths


def if_inserted(pattern):
    """Input function: a file of every seed of fold 0, of a run whose motif pairs are put into backgrounds."""

    def paths(wildcards):
        return for_replicates(pattern)(wildcards) if RUNS[wildcards.run].inserts_pairs else []

    return paths


def in_environments(pattern):
    """Input function: a file of every environment and seed, of a run that has some."""

    def paths(wildcards):
        run = RUNS[wildcards.run]
        return expand(pattern, run=wildcards.run, elsewhere=run.environments, seed=run.train.seeds)

    return paths


def model_elsewhere(wildcards):
    """Input function: a model of another environment: trained on balanced data, or of another fold."""
    balanced = wildcards.elsewhere in ("cooccurrence", "gc")
    folder = ("environments", "{elsewhere}") if balanced else ("models", "{elsewhere}")
    return results(*folder, "seed{seed}", "weights.safetensors").format(**wildcards)


def if_pairs(*patterns):
    """Input function: results about pairs, which a run has that has motifs or sites, and attention."""

    def paths(wildcards):
        return expand(patterns, run=wildcards.run) if RUNS[wildcards.run].tests_pairs else []

    return paths


def bench_result(*parts):
    """Path of a result of the benchmark."""
    return os.path.join(CONFIG.results, "bench", *parts)


def unit_of_bench(name):
    """Path pattern of a file of one unit of the benchmark."""
    return bench_result("units", "{suite}_{regime}_{training}", "seed{seed}", name)


def units_of_bench(wildcards):
    """Input function: the pairs of every unit."""
    arms = [(arm.split() + ["plain"])[:3] for arm in CONFIG.bench.arms]
    return [
        unit_of_bench("pairs.parquet").format(suite=suite, regime=regime, training=training, seed=seed)
        for suite, regime, training in arms
        for seed in CONFIG.bench.seeds
    ]


def if_simulated(pattern):
    """Input function: the truth, which only a simulated run has."""

    def paths(wildcards):
        return expand(pattern, run=wildcards.run) if RUNS[wildcards.run].data.simulate else []

    return paths


def repeated(option, name, *, folder=False):
    """Parameter function: `option FILE` for every file of the named input, or for the folder it lies in."""

    def arguments(wildcards, input):
        return [word for path in input.get(name, []) for word in (option, os.path.dirname(path) if folder else path)]

    return arguments


def environment_options(wildcards, input):
    """Parameter function: `--environment NAME=FILE` for every file, named by the folder above its seed's."""
    paths = input.get("environments", [])
    return [
        word
        for path in paths
        for word in ("--environment", f"{os.path.basename(os.path.dirname(os.path.dirname(path)))}={path}")
    ]


def memory(megabytes):
    """Memory that doubles, triples, ... with `snakemake --retries N`."""
    return lambda wildcards, attempt: megabytes * attempt


def training_threads(wildcards):
    """CPU threads of a job with a model."""
    return RUNS[wildcards.run].train.threads


def protein_result(*parts):
    """Path pattern of a result of the protein track."""
    return os.path.join(CONFIG.results, "protein", *parts)


def protein_step(name):
    """Settings of a step of the protein track by its name; of a family, "family.NAME"."""
    step, _, family = name.partition(".")
    return protein_step_settings(PROTEIN, step, family or None)


def protein_settings_of(step):
    """Input function: the settings file of a step of the protein track."""

    def path(wildcards):
        name = f"{step}.{wildcards.family}" if step == "family" else step
        return protein_result("settings", f"{name}-{digest(protein_step(name))}.json")

    return path


def protein_settings_text(wildcards):
    """Content of a settings file of the protein track."""
    return json.dumps(protein_step(wildcards.step), indent=1)


def files_of_family(wildcards):
    """Input function: alignment and structure of a family, as far as they exist; `bioattn family` names a missing one."""
    family = PROTEIN.families[wildcards.family]
    return [path for path in map(found_or_none, (family.alignment, family.structure)) if path]


def found_or_none(path):
    """Path of a file that may lie in a package's data; None if it is not there."""
    try:
        found = find_data(path)
    except BioattnError:
        return None
    return str(found) if found.exists() else None


def files_of_chains(wildcards):
    """Input function: the table of chains and the files it names, as far as they exist."""
    return [str(path) for path in files_of_table(PROTEIN.chains.source) if path.exists()]


def if_chains(path):
    """Input: a result about many chains, if the protein track has them."""
    return path if PROTEIN.chains else []


def principle_result(*parts):
    """Path pattern of a result of the principles."""
    return os.path.join(CONFIG.results, "principles", *parts)


#: What a run of the principles ends with: their page, and that all claims hold.
PRINCIPLES_DONE = [principle_result("report.html"), principle_result("judged.done")]
