"""Configuration: refusals name the setting and the way out; digests change exactly with what a step reads."""

import copy
from typing import Any

import pytest
import yaml

from bioattn import config as c
from bioattn.errors import ConfigError


@pytest.fixture
def document() -> dict[str, Any]:
    """A valid document with one run."""
    return {
        "runs": {
            "mine": {
                "data": {"samples": "samples.tsv"},
                "motifs": {"jaspar_ids": ["MA0060.4"]},
                "train": {"seeds": [1, 2]},
            }
        }
    }


def changed(document: dict[str, Any], path: str, value: Any) -> dict[str, Any]:
    """The document with one setting of the run `mine` replaced."""
    new = copy.deepcopy(document)
    target = new["runs"]["mine"]
    *parents, last = path.split(".")
    for part in parents:
        target = target.setdefault(part, {})
    target[last] = value
    return new


def message(document: Any) -> str:
    """What the refusal of a document says."""
    with pytest.raises(ConfigError) as caught:
        c.parse_config(document, source="my.yaml")
    return str(caught.value)


@pytest.mark.parametrize(
    ("path", "nearest"),
    [("model.n_head", "n_heads"), ("model.stem.widht", "width"), ("trian", "train"), ("data.sample", "samples")],
)
def test_an_unknown_key_is_refused_with_the_nearest_name(document, path, nearest):
    """A typo is found at every depth, and the file, the full name and the nearest setting are named."""
    text = message(changed(document, path, 1))
    assert f"my.yaml: 'runs.mine.{path}' is not a setting; did you mean '{nearest}'?" in text


def test_a_key_like_no_other_lists_what_is_allowed(document):
    """Without a near name, the allowed ones are listed."""
    assert "allowed: kind, " in message(changed(document, "split.zzz", 1))


@pytest.mark.parametrize(
    ("path", "value", "found"),
    [
        ("train.epochs", "ten", "'ten'"),
        ("train.epochs", "10", "'10'"),
        ("train.epochs", 2.5, "2.5"),
        ("train.learning_rate", -1, "-1"),
        ("model.positions", "rotary", "'rotary'"),
        ("data.negatives.per_positive", True, "True"),
        ("train.seeds", 3, "3"),
    ],
)
def test_a_wrong_value_is_refused_with_what_was_found(document, path, value, found):
    """No value is converted silently; the message holds the name and the value."""
    text = message(changed(document, path, value))
    assert f"'runs.mine.{path}'" in text
    assert f"found {found}" in text


@pytest.mark.parametrize(
    ("path", "value", "words"),
    [
        ("model", {"d_model": 64, "n_heads": 5}, "d_model must be a multiple of model.n_heads, got 64 and 5"),
        ("model", {"d_model": 6, "n_heads": 2, "positions": "rope"}, "even head width, got d_model / n_heads = 3"),
        ("model.stem.width", 8, "must be odd, got 8"),
        ("model.stem", {"kind": "none", "pool": 2}, "pool must be 1 without a stem, got 2"),
        ("train.seeds", [1, 1], "train.seeds must differ"),
        ("task", {"kind": "multiclass"}, "at least 2 classes"),
        ("task", {"kind": "binary", "targets": ["a", "b"]}, "must name one column"),
        ("task.readout", 1, "must be below the 1 readouts, got 1"),
        ("split", {"test_fraction": 0.6, "validation_fraction": 0.5}, "must be below 1"),
        ("split", {"group_by": ["column"]}, "split.column must name a column"),
        ("split", {"kind": "predefined", "n_folds": 5}, "takes neither"),
        ("data.simulate", {}, "exclude each other"),
        ("motifs.sites", [{"name": "a", "start": 1, "end": 4}], "exclude each other"),
        ("data.samples", None, "needs 'samples' (a samples.tsv) or 'simulate'"),
    ],
)
def test_an_impossible_combination_is_refused(document, path, value, words):
    """Settings that contradict each other are named with their values."""
    assert words in message(changed(document, path, value))


@pytest.mark.parametrize("split", [{}, {"group_by": ["column"], "column": "unit2"}, {"group_by": ["homology"]}])
def test_twins_must_stay_together(document, split):
    """Near copies of one sequence may not be parted: only their own group will do."""
    simulated = changed(changed(document, "data.samples", None), "data.simulate", {"regime": "twins"})
    assert "draws near copies, which must not be parted" in message(changed(simulated, "split", split))
    c.parse_config(changed(simulated, "split", {"group_by": ["column"], "column": "group"}))


def test_a_motif_stem_needs_motifs(document):
    """A stem that starts as motifs cannot be built without any."""
    without = changed(document, "motifs.jaspar_ids", [])
    assert "needs motifs.jaspar_ids" in message(changed(without, "model.stem.kind", "pwm"))


def test_all_problems_are_reported_at_once(document):
    """Two mistakes give two lines, each with the file's name."""
    text = message(changed(changed(document, "train.epochs", 0), "model.n_head", 1))
    assert len(text.splitlines()) == 2
    assert all(line.startswith("my.yaml: ") for line in text.splitlines())


@pytest.mark.parametrize("wrong", [None, [], "text", {"runs": {}}, {"runs": {"a b": {"data": {"samples": "x"}}}}, {}])
def test_something_else_than_settings_is_refused(wrong):
    """An empty file, a list, no runs, and a run name that is no folder name are refused."""
    assert message(wrong).startswith("my.yaml: ")


@pytest.mark.parametrize(
    ("content", "words"),
    [(b"runs: [", "not valid YAML"), (b"a: \xff\xfe", "not UTF-8"), (b"", "expected settings as 'key: value'")],
)
def test_a_broken_file_is_named(tmp_path, content, words):
    """Syntax, encoding and emptiness are told apart and name the file."""
    path = tmp_path / "broken.yaml"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match=words) as caught:
        c.load_config(path)
    assert str(path) in str(caught.value)


def test_a_missing_file_is_named(tmp_path):
    """A path that is not there is named."""
    with pytest.raises(ConfigError, match="none.yaml: no such configuration file"):
        c.load_config(tmp_path / "none.yaml")


def test_several_runs_need_a_choice(document, tmp_path):
    """With two runs in a file, --run chooses; without it both names are listed."""
    document["runs"]["other"] = document["runs"]["mine"]
    path = tmp_path / "two.yaml"
    path.write_text(yaml.safe_dump(document))
    assert c.load_run(path, "other") == c.parse_config(document).runs["mine"]
    with pytest.raises(ConfigError, match="choose one with --run"):
        c.load_run(path)


@pytest.mark.parametrize("step", c.STEP_SECTIONS)
def test_step_settings_are_themselves_a_run(document, step):
    """What a step gets loads again, and gives the step the same settings and digest."""
    run = c.parse_config(document).runs["mine"]
    settings = c.step_settings(run, step)
    again = c.step_settings(c.parse_run(settings), step)
    assert again == settings
    assert c.digest(again) == c.digest(settings)


def digests(document: dict[str, Any]) -> dict[str, str]:
    """Digest of every step of the run `mine`."""
    run = c.parse_config(document).runs["mine"]
    return {step: c.digest(c.step_settings(run, step)) for step in c.STEP_SECTIONS}


@pytest.mark.parametrize(
    ("path", "value", "steps"),
    [
        ("evaluate.bootstrap", 7, {"evaluate", "report"}),
        ("explain.seqlets_per_head", 99, {"heads", "attribution", "bakeoff", "report"}),
        ("interactions.draws", 2, {"coattention", "interactions", "report"}),
        ("interactions.hit_p_value", 1e-3, {"hits", "coattention", "interactions", "report"}),
        ("train.seeds", [1, 2, 3], {"evaluate", "bakeoff", "report"}),
        ("description", "words", {"report"}),
        ("split.kmer", 21, {"split", "evaluate", "report"}),
    ],
)
def test_a_setting_changes_the_digest_of_its_readers_only(document, path, value, steps):
    """Digests decide what runs again, so each setting must reach its own steps and no other."""
    before, after = digests(document), digests(changed(document, path, value))
    assert {step for step in before if before[step] != after[step]} == steps


def test_the_seed_of_a_run_reaches_every_step(document):
    """Another seed is another run altogether."""
    before, after = digests(document), digests(changed(document, "seed", 2))
    assert all(before[step] != after[step] for step in before)


def test_the_result_format_is_part_of_the_digest(document, monkeypatch):
    """Results of an older format are made anew."""
    before = digests(document)
    monkeypatch.setattr(c, "FORMAT_VERSION", c.FORMAT_VERSION + 1)
    assert all(before[step] != after for step, after in digests(document).items())


def test_the_order_of_keys_does_not_matter(document):
    """Two spellings of the same settings have one digest."""
    backwards = {"runs": {"mine": dict(reversed(list(document["runs"]["mine"].items())))}}
    assert digests(document) == digests(backwards)


def test_the_schema_describes_every_setting():
    """Each plain setting has a sentence for the table in config/README.md."""
    definitions = c.json_schema()["$defs"]
    nameless = [
        f"{section}.{name}"
        for section, body in definitions.items()
        for name, entry in body["properties"].items()
        if "description" not in entry and "$ref" not in str(entry) and (section, name) != ("SiteConfig", "name")
    ]
    assert nameless == []


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"n_layers": 2}, "2 layers"),
        ({"pooling": "cls"}, "pooling 'cls'"),
        ({"stem": {"kind": "conv", "width": 31}}, "31 bp at a time, more than 25"),
        ({"encoder": "gru"}, "without attention"),
    ],
)
def test_a_bottleneck_is_refused_where_sites_could_meet_elsewhere(change: dict[str, Any], reason: str):
    """Each breach is named; without the wish for a bottleneck the same model is allowed, and knows its breach."""
    model = {"n_layers": 1, "pooling": "sum", **change}
    with pytest.raises(ConfigError, match=reason):
        c.parse_run({"model": {**model, "interaction_bottleneck": True}})
    assert len(c.parse_run({"model": model}).model.bottleneck_breaches()) == 1
    assert c.parse_run({"model": {"n_layers": 1, "interaction_bottleneck": True}}).model.bottleneck_breaches(26)
