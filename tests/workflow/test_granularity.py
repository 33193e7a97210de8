"""What a change of the configuration or of the data makes Snakemake do again. The verbs are stand-ins."""

from typing import Any

import pytest

ONCE = ["simulate", "ingest", "split", "hits", "evaluate", "stability", "candidates", "interactions", "report"]
EXPLANATIONS = sorted(["stability", "report", *3 * ["heads", "attribution"]])
INTERVENTIONS = ["screen", "knockout", "knockin"]
PAIRS = sorted(["candidates", "interactions", "report", *3 * ["coattention", *INTERVENTIONS]])
ALL_VERBS = sorted([*ONCE, *3 * ["train", "heads", "attribution", "coattention", *INTERVENTIONS]])


def test_a_first_run_calls_every_step(done):
    """Three seeds: three models, each explained; one of everything else, which gets the tables of all three."""
    calls = done.calls()
    assert sorted(call.split()[0] for call in calls) == ALL_VERBS
    options = [call.split() for call in calls if call.startswith(("candidates", "interactions"))]
    counts = [{f"--{name}": words.count(f"--{name}") for name in ("screen", "knockin", "syntax")} for words in options]
    assert counts == [{"--screen": 3, "--knockin": 0, "--syntax": 0}, {"--screen": 3, "--knockin": 3, "--syntax": 3}]


def test_a_second_run_has_nothing_to_do(done):
    """Without a change, no step runs again."""
    done.calls()
    assert "Nothing to be done" in done.run("--configfile", "config.yaml")
    assert done.verbs() == []


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"evaluate": {"bootstrap": 21}}, ["evaluate", "report"]),
        ({"description": "other words"}, ["report"]),
        ({"explain": {"seqlets_per_head": 60}}, EXPLANATIONS),
        ({"interactions": {"permutations": 199}}, PAIRS),
        ({"interactions": {"hit_p_value": 1e-3}}, sorted([*PAIRS, "hits"])),
    ],
)
def test_a_changed_setting_reruns_only_what_reads_it(done, make_config, changes: dict[str, Any], expected: list[str]):
    """Settings of late steps leave data and models as they are."""
    done.calls()
    done.write_config(make_config(**changes))
    done.run("--configfile", "config.yaml")
    assert done.verbs() == expected


def test_environments_train_models_on_balanced_data_and_test_the_same_pairs(done, make_config):
    """Two weightings and two more folds: six more models on weighted data, and knock-ins in all twelve."""
    done.calls()
    environments = {"interactions": {"environments": ["cooccurrence", "gc", "folds"]}, "split": {"n_folds": 3}}
    done.write_config(make_config(**environments))
    done.run("--configfile", "config.yaml")
    calls = done.calls()
    trained = [call for call in calls if call.startswith("train ")]
    assert sum("environments/gc/" in call for call in trained) == 3
    assert sum("environments/cooccurrence/sequences.parquet" in call for call in trained) == 3
    verbs = [call.split()[0] for call in calls]
    assert verbs.count("environment") == 2 and verbs.count("knockin") == 3 + 4 * 3
    assert sum("--syntax" in call for call in calls if call.startswith("knockin")) == 3
    words = next(call for call in calls if call.startswith("interactions")).split()
    named = [words[i + 1].split("=")[0] for i, word in enumerate(words) if word == "--environment"]
    assert named == [name for name in ("cooccurrence", "gc", "fold1", "fold2") for _ in range(3)]


def test_another_seed_trains_one_model(done, make_config):
    """Replicates do not depend on the list of replicates."""
    done.calls()
    done.write_config(make_config(train={"seeds": [1, 2, 3, 4]}))
    done.run("--configfile", "config.yaml")
    calls = done.calls()
    verbs = sorted(call.split()[0] for call in calls)
    # The pairs to test are chosen from all replicates, so all of them are tested again.
    once = ["attribution", "candidates", "coattention", "evaluate", "heads", "interactions", "report", "stability"]
    assert verbs == sorted([*once, "screen", "train", *4 * ["knockout", "knockin"]])
    assert [call for call in calls if call.startswith("train")][0].split("--seed ")[1].startswith("4 ")


def test_a_training_setting_keeps_the_data(done, make_config):
    """A new learning rate trains all models again and reads no FASTA."""
    done.calls()
    done.write_config(make_config(train={"learning_rate": 0.01}))
    done.run("--configfile", "config.yaml")
    assert done.verbs() == [verb for verb in ALL_VERBS if verb not in ("ingest", "simulate", "split", "hits")]


def test_changing_back_runs_again(done, make_config):
    """Results always belong to the present settings, also after a change is taken back."""
    done.write_config(make_config(evaluate={"bootstrap": 21}))
    done.run("--configfile", "config.yaml")
    done.calls()
    done.write_config(make_config())
    done.run("--configfile", "config.yaml")
    assert done.verbs() == ["evaluate", "report"]


def test_a_new_run_leaves_the_others(done, make_config):
    """Adding a run to the configuration makes that run only."""
    document = make_config()
    document["runs"]["second"] = document["runs"]["tiny"]
    done.calls()
    done.write_config(document)
    done.run("--configfile", "config.yaml")
    assert all("results/second/" in call for call in done.calls())


def test_a_touched_data_file_is_read_again(stub_clone, make_config):
    """Files that samples.tsv names are inputs, so newer ones are ingested again."""
    (stub_clone.work / "mine").mkdir()
    (stub_clone.work / "mine" / "a.fa").write_text(">a\nACGT\n")
    (stub_clone.work / "mine" / "samples.tsv").write_text("sample\tpath\tlabel\na\ta.fa\t1\n")
    stub_clone.write_config(make_config(data={"simulate": None, "samples": "mine/samples.tsv"}))
    stub_clone.run("--configfile", "config.yaml")
    assert "ingest" in stub_clone.verbs()
    (stub_clone.work / "mine" / "a.fa").write_text(">a\nACGTT\n")
    stub_clone.run("--configfile", "config.yaml")
    assert "ingest" in stub_clone.verbs()


def test_a_run_without_motifs_has_no_interactions(stub_clone, make_config):
    """Pairs are only looked at where motifs are named."""
    model = {"stem": {"kind": "conv", "n_filters": 4, "width": 5, "pool": 4}}
    document = make_config(motifs={"jaspar_ids": []}, model=model)
    document["runs"]["tiny"]["data"] = {"samples": "samples.tsv"}
    (stub_clone.work / "samples.tsv").write_text("sample\tpath\tlabel\na\tmissing.fa\t1\n")
    stub_clone.write_config(document)
    stub_clone.run("--configfile", "config.yaml")
    assert {"hits", "coattention", "candidates", *INTERVENTIONS, "interactions"}.isdisjoint(stub_clone.verbs())


def test_fixed_sites_are_knocked_out_where_they_are(stub_clone, make_config):
    """Sites of an aligned library have their place, so nothing is put into backgrounds."""
    sites = [{"name": "A", "start": 5, "end": 25}, {"name": "B", "start": 50, "end": 70}]
    model = {"stem": {"kind": "conv", "n_filters": 4, "width": 5, "pool": 5}}
    document = make_config(motifs={"jaspar_ids": [], "sites": sites}, model=model)
    document["runs"]["tiny"]["data"] = {"samples": "samples.tsv"}
    (stub_clone.work / "samples.tsv").write_text("sample\tpath\tlabel\na\tmissing.fa\t1\n")
    stub_clone.write_config(document)
    stub_clone.run("--configfile", "config.yaml")
    verbs = stub_clone.verbs()
    assert verbs.count("knockout") == 3 and "interactions" in verbs and {"screen", "knockin"}.isdisjoint(verbs)


def test_a_recurrent_run_is_trained_and_scored_but_not_explained(stub_clone, make_config):
    """Without attention heads there is nothing to read or to cut: training, evaluation and report remain."""
    stub_clone.write_config(make_config(model={"encoder": "gru"}))
    stub_clone.run("--configfile", "config.yaml")
    verbs = set(stub_clone.verbs())
    assert {"train", "evaluate", "report"} <= verbs
    explained = {
        "heads",
        "attribution",
        "stability",
        "hits",
        "coattention",
        "candidates",
        *INTERVENTIONS,
        "interactions",
    }
    assert explained.isdisjoint(verbs)


def test_a_configuration_of_principles_alone_asks_for_them_alone(done):
    """Its page is made without any run; the demo does not ask for it."""
    alone = done.run("-n", "--configfile", str(done.root / "config" / "principles.yaml"))
    assert "principles_report" in alone and "principles_judged" in alone and "rule train" not in alone
    assert "principles_report" not in done.run("-n")


def test_a_claim_that_fails_stops_the_run_behind_its_page(stub_clone):
    """All experiments and the page stay; once the claims hold, the judgement alone is made again."""
    (stub_clone.work / "fail_judge").touch()
    settings = ("--configfile", str(stub_clone.root / "config" / "principles.yaml"))
    assert "Error in rule principles_judged" in stub_clone.run(*settings, check=False)
    results = stub_clone.work / "results" / "principles"
    assert (results / "report.html").exists() and not (results / "judged.done").exists()
    (stub_clone.work / "fail_judge").unlink()
    assert stub_clone.verbs().count("principle") == 19
    stub_clone.run(*settings)
    assert stub_clone.verbs() == ["judge"] and (results / "judged.done").exists()
