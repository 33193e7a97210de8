"""The workflow itself: generated files are current, every configuration plans, mistakes end in one line."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from bioattn.cli.config import settings_table
from bioattn.config import json_schema, parse_run

ROOT = Path(__file__).resolve().parents[2]
CONFIGS = sorted(path.relative_to(ROOT).as_posix() for path in (ROOT / "config").rglob("*.yaml"))


def test_the_schema_file_is_current():
    """workflow/schemas/config.schema.json is what `bioattn schema` prints."""
    stored = json.loads((ROOT / "workflow/schemas/config.schema.json").read_text())
    assert stored == json_schema()


def test_the_table_of_settings_is_current():
    """config/README.md holds what `bioattn schema --markdown` prints."""
    text = (ROOT / "config/README.md").read_text()
    stored = text.partition("<!-- begin settings -->\n")[2].partition("\n<!-- end settings -->")[0]
    assert stored == settings_table()


@pytest.mark.parametrize("name", CONFIGS)
def test_every_configuration_plans(stub_clone, name):
    """A dry run of each file in config/ names all steps up to the report."""
    (stub_clone.root / name).write_text((ROOT / name).read_text())
    for path in re.findall(r"samples: (\S+)", (ROOT / name).read_text()):
        samples = stub_clone.work / path
        samples.parent.mkdir(parents=True, exist_ok=True)
        samples.write_text("sample\tpath\tlabel\na\ta.fa\t1\n")
    output = stub_clone.run("-n", "--configfile", str(stub_clone.root / name))
    assert re.search(r"^((protein|principles)_)?report\s+\d+", output, re.M)


def test_lint_finds_nothing(stub_clone):
    """`snakemake --lint` has no complaint."""
    assert "in a good condition" in stub_clone.run("--lint")


def test_snakefmt_finds_nothing():
    """The Snakefiles are formatted."""
    command = [sys.executable, "-m", "snakefmt", "--check", "Snakefile", "workflow"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_every_rule_is_complete():
    """Every rule has a docstring, log, benchmark, threads, resources and conda; none has `run:`."""
    for path in (ROOT / "workflow/rules").glob("*.smk"):
        for name, body in re.findall(r"^rule (\w+):\n(.*?)(?=^rule |\Z)", path.read_text(), re.M | re.S):
            assert body.lstrip().startswith('"""'), f"{name} has no docstring"
            missing = [
                word
                for word in ("log", "benchmark", "threads", "resources", "conda")
                if not re.search(rf"^    {word}:", body, re.M)
            ]
            assert not missing, f"rule {name} has no {missing}"
            assert not re.search(r"^    run:", body, re.M), f"rule {name} has a run block"


def test_a_misspelt_setting_ends_in_one_clean_message(stub_clone, make_config):
    """A typo names the nearest setting, without a traceback and without a schema dump."""
    document = make_config()
    document["runs"]["tiny"]["model"]["n_head"] = 2
    stub_clone.write_config(document)
    output = stub_clone.run("--configfile", "config.yaml", check=False)
    assert "'runs.tiny.model.n_head' is not a setting; did you mean 'n_heads'?" in output
    assert "Traceback" not in output
    assert len(output.splitlines()) < 25


def test_a_configfile_replaces_the_default(stub_clone, make_config):
    """The demo's runs are not added to the user's."""
    stub_clone.write_config(make_config())
    output = stub_clone.run("-n", "--configfile", "config.yaml")
    assert "results/tiny/report.html" in output
    assert "planted" not in output


def test_results_can_be_sent_elsewhere(stub_clone):
    """`--config results=elsewhere` keeps the default runs."""
    samples = stub_clone.root / "resources/lac/samples.tsv"
    samples.parent.mkdir(parents=True, exist_ok=True)
    samples.write_text("sample\tpath\n")
    output = stub_clone.run("-n", "--config", "results=elsewhere")
    assert "elsewhere/planted/report.html" in output
    assert "elsewhere/lac/report.html" in output


def test_runs_in_another_directory_with_spaces(stub_clone, make_config, tmp_path):
    """--directory elsewhere, blanks and braces in paths: all steps run."""
    folder = tmp_path / "my {work} folder"
    folder.mkdir()
    stub_clone.write_config(make_config(train={"seeds": [1]}))
    path = str(stub_clone.work / "config.yaml")
    stub_clone.run("--directory", str(folder), "--configfile", path, cwd=tmp_path)
    assert (folder / "results/tiny/report.html").exists()


def test_every_named_file_is_found_beside_the_work_or_in_the_clone(stub_clone, make_config, tmp_path):
    """Genome and places to exclude, motifs and unlabelled sequences reach the verbs where they lie."""
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    for name in ("genome.fa", "black.bed", "own.meme", "more.fa"):
        (stub_clone.root / name).write_text("here")
    (elsewhere / "more.fa").write_text("here too")
    document = make_config(train={"seeds": [1]}, motifs={"meme": "own.meme"})
    run = document["runs"]["tiny"]
    run["pretrain"] = {"fasta": ["more.fa"]}
    run["task"] = {"kind": "binary", "targets": ["label"]}
    run["data"] |= {"negatives": {"kind": "genomic", "genome": "genome.fa", "exclude": ["black.bed"]}}
    path = stub_clone.write_config(document)
    stub_clone.run("--directory", str(elsewhere), "--configfile", str(path), cwd=tmp_path)
    made = parse_run(yaml.safe_load((elsewhere / "results/tiny/config.yaml").read_text())["runs"]["tiny"])
    root = stub_clone.root
    assert made.data.negatives.genome == str(root / "genome.fa")
    assert made.data.negatives.exclude == [str(root / "black.bed")]
    assert made.motifs.meme == str(root / "own.meme") and made.pretrain.fasta == ["more.fa"]


def test_the_clone_may_lie_in_a_folder_with_spaces(stub_clone, make_config, tmp_path):
    """Blanks and quotes in the path of the clone do not break the jobs."""
    odd = tmp_path / "it's a clone"
    shutil.copytree(stub_clone.root, odd)
    clone = type(stub_clone)(odd, stub_clone.work)
    clone.write_config(make_config(train={"seeds": [1]}))
    clone.run("--configfile", "config.yaml")
    assert (clone.work / "results/tiny/report.html").exists()


def test_another_workflow_can_use_it_as_a_module(stub_clone, make_config, tmp_path):
    """`module` with a prefix and samples that the other workflow makes."""
    stub_clone.write_config(make_config(train={"seeds": [1, 2]}))
    (stub_clone.work / "Snakefile").write_text(
        f"""
import yaml
module attention:
    snakefile: {str(stub_clone.root / "workflow" / "Snakefile")!r}
    config: yaml.safe_load(open("config.yaml"))
    prefix: "sub"
use rule * from attention as attention_*
rule mine:
    default_target: True
    input: rules.attention_all.input
    output: "mine.txt"
    shell: "echo {{input}} > {{output}}"
"""
    )
    stub_clone.run("--snakefile", "Snakefile")
    assert (stub_clone.work / "mine.txt").read_text().split() == ["sub/results/tiny/report.html"]


def test_the_resolved_configuration_reproduces_the_run(done):
    """results/RUN/config.yaml given back to --configfile leaves nothing to do."""
    done.calls()
    shutil.copy(done.work / "results/tiny/config.yaml", done.work / "again.yaml")
    assert "Nothing to be done" in done.run("--configfile", "again.yaml")


def test_snakemake_report_shows_tables_and_figures(done):
    """`snakemake --report` works offline and holds the tables, the contact sheets and the page."""
    done.run("--configfile", "config.yaml", "--report", "all.html")
    text = (done.work / "all.html").read_text()
    for name in ("metrics.tsv", "heads.tsv", "contact_sheet.svg", "interactions.tsv", "leakage.tsv", "report.html"):
        assert name in text, name


def test_a_failed_step_shows_its_log_and_stops(stub_clone, make_config):
    """The message of a verb is in the log that Snakemake names."""
    (stub_clone.work / "fail_ingest").touch()
    stub_clone.write_config(make_config())
    output = stub_clone.run("--configfile", "config.yaml", "--show-failed-logs", check=False)
    assert "bioattn ingest: error: told to fail" in output
    assert "split" not in stub_clone.verbs()


def test_gpu_is_asked_for_only_with_the_gpu_environment(stub_clone, make_config):
    """`environment: gpu` makes train and explain ask for a GPU; the default does not."""
    document = make_config()
    stub_clone.write_config(document)
    stub_clone.write_config({**document, "environment": "gpu"}, "gpu.yaml")
    assert "gpu=1" not in stub_clone.run("-n", "--configfile", "config.yaml")
    assert stub_clone.run("-n", "--configfile", "gpu.yaml").count("gpu=1") >= 9


def test_profiles_are_accepted(stub_clone, make_config):
    """Both profiles are understood; the one for Slurm as far as its plugin is installed."""
    stub_clone.write_config(make_config())
    profile = stub_clone.root / "workflow/profiles/local"
    assert "gpu" in stub_clone.run("-n", "--configfile", "config.yaml", "--workflow-profile", str(profile))


def test_the_protein_track_runs_from_a_table_of_chains_to_its_page(stub_clone):
    """Every step with the files it needs; a changed setting of training leaves families and chains alone."""
    (stub_clone.work / "chains.tsv").write_text("name\tpath\na\ta.pdb\n")
    (stub_clone.work / "a.pdb").write_text("x")
    document = {
        "protein": {
            "families": {"one": {"alignment": "a.fasta", "structure": "a.pdb"}},
            "chains": {"source": "chains.tsv"},
            "trunk": {"variants": ["trunk", "window"]},
        }
    }
    stub_clone.write_config(document)
    stub_clone.run("--configfile", "config.yaml", "--cores", "2")
    calls = (stub_clone.work / "calls.txt").read_text()
    assert [line.split()[0] for line in calls.splitlines()].count("trunk") == 2
    assert (stub_clone.work / "results/protein/report.html").exists() and "--name one" in calls
    assert not (stub_clone.work / "results/planted").exists()
    document["protein"]["trunk"]["epochs"] = 3
    stub_clone.write_config(document)
    output = stub_clone.run("-n", "--configfile", "config.yaml")
    assert re.search(r"^trunk\s+2", output, re.M) and re.search(r"^distances\s+1", output, re.M)
    assert not re.search(r"^(family|chains)\s", output, re.M)
    (stub_clone.work / "a.pdb").write_text("changed")
    again = stub_clone.run("-n", "--configfile", "config.yaml")
    assert re.search(r"^chains\s+1", again, re.M)


def test_the_protein_track_has_a_target_of_its_own(stub_clone):
    """Without a section `protein` the embedded family is planned, and no run; the default target plans no protein."""
    output = stub_clone.run("-n", "protein")
    assert re.search(r"^family\s+1", output, re.M) and not re.search(r"^(train|chains)\s", output, re.M)
    assert not re.search(r"^family\s", stub_clone.run("-n"), re.M)
