"""The report: self-contained, complete, safe, and honest about what is missing."""

import base64
import json
import re
import shutil
from html.parser import HTMLParser
from io import StringIO
from pathlib import Path

import pandas as pd
import pytest
import yaml
from toy_results import HOSTILE, MOTIFS, Made, binary_run, planted_run, write_results

from bioattn.cli.report import report as report_verb
from bioattn.config import RunConfig
from bioattn.errors import DataError
from bioattn.io.files import write_text
from bioattn.io.tables import read_tsv, write_parquet, write_tsv
from bioattn.report import build_report

SECTIONS = [
    "summary", "interactions", "metrics", "heads", "attribution", "data", "split", "training", "methods", "limits",
    "record",
]  # fmt: skip


class Page(HTMLParser):
    """Tags, references and text of a page."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.text = ""
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        while self.open and self.open.pop() != tag:
            pass

    def handle_data(self, data: str) -> None:
        if not {"script", "style"} & set(self.open):
            self.text += data

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]

    @property
    def ids(self) -> list[str]:
        return [str(attributes["id"]) for _, attributes in self.tags if attributes.get("id")]


@pytest.fixture(scope="module")
def planted_html(planted: Made) -> str:
    return build_report(planted.root, planted.run)


@pytest.fixture(scope="module")
def sites_html(sites: Made) -> str:
    return build_report(sites.root, sites.run)


def words(html: str) -> str:
    """Visible text with single spaces."""
    return " ".join(Page(html).text.split())


# ------------------------------------------------------------------ the page itself


def test_the_page_needs_no_network(planted_html: str, sites_html: str):
    """Every reference is inside the page: data or an anchor."""
    for html in (planted_html, sites_html):
        for _, attributes in Page(html).tags:
            for name in ("src", "href", "srcset", "poster", "action", "data"):
                value = attributes.get(name)
                assert value is None or value.startswith(("data:", "#")), value
        style = "".join(re.findall(r"<style>.*?</style>", html, re.S))
        assert "url(" not in style and "@import" not in style
        assert "default-src 'none'" in html
        assert not Page(html).all("link")


def test_embedded_figures_refer_to_nothing_outside(planted_html: str):
    """No SVG inside the page loads anything either."""
    images = [str(image["src"]) for image in Page(planted_html).all("img")]
    assert len(images) > 10
    for image in images:
        svg = base64.b64decode(image.partition("base64,")[2]).decode()
        assert all(link.startswith(("#", "data:")) for link in re.findall(r'href="([^"]*)"', svg))


def test_every_section_is_there_and_linked(planted_html: str):
    """All sections, each with an entry in the table of contents; anchors lead somewhere."""
    page = Page(planted_html)
    assert set(SECTIONS) <= {str(section["id"]) for section in page.all("section")}
    targets = {str(link["href"])[1:] for link in page.all("a") if str(link["href"]).startswith("#")}
    assert set(SECTIONS) <= targets <= set(page.ids)


def test_ids_are_unique(planted_html: str):
    """No id stands twice."""
    ids = Page(planted_html).ids
    assert len(ids) == len(set(ids))


def test_page_is_accessible(planted_html: str):
    """Images have text, header cells a scope, tables a caption, the page a language."""
    page = Page(planted_html)
    assert all(image.get("alt") for image in page.all("img"))
    assert all(cell.get("scope") == "col" for cell in page.all("th"))
    assert len(page.all("caption")) == len(page.all("table"))
    assert page.all("html")[0]["lang"] == "en"


def test_the_same_results_give_the_same_page(planted: Made, planted_html: str):
    """A report has no clock and no random ids."""
    assert build_report(planted.root, planted.run) == planted_html


def test_user_text_is_escaped(editable: Made):
    """Motif names, sentences, definitions, run descriptions and record names cannot become markup."""
    path = editable.root / "interactions/table/interactions.tsv"
    pairs = read_tsv(path).replace({"tf_a": {MOTIFS[0]: HOSTILE}})
    write_tsv(path, pairs.assign(sentence=f'{HOSTILE}" onmouseover="x'), {})
    heads = editable.root / "heads/seed1/heads.tsv"
    write_tsv(heads, read_tsv(heads).assign(matches=HOSTILE, consensus=HOSTILE, note=HOSTILE, track=HOSTILE), {})
    html = build_report(editable.root, planted_run(description=f"{HOSTILE} & more"))
    assert HOSTILE not in html
    assert html.count("<script>") == 1
    assert "&lt;script&gt;" in html
    assert not any("onmouseover" in attributes for _, attributes in Page(html).tags)


# ------------------------------------------------------------------------- content


def test_headline_says_score_and_best_baseline(planted_html: str):
    """Score with interval, the best baseline by name, and the difference, in one sentence."""
    text = words(planted_html)
    assert "On 90 held-out sequences the model reaches Pearson r 0.866 [0.846, 0.884]" in text
    assert "the best baseline (small CNN) reaches 0.800 [0.780, 0.818]" in text
    assert "the model is 0.066 better" in text


def test_headline_says_when_the_model_is_worse(editable: Made):
    """A baseline that wins is said to win."""
    path = editable.root / "evaluation/metrics.tsv"
    metrics = read_tsv(path)
    metrics.loc[metrics["model"] == "kmer", "value"] = 0.95
    write_tsv(path, metrics, {})
    text = words(build_report(editable.root, editable.run))
    assert "the best baseline (linear, k-mers) reaches 0.950" in text and "the model is 0.084 worse" in text


def test_attention_that_is_not_needed_carries_no_claim(editable: Made):
    """Beside the same model with uniform attention: a gain is stated, and where there is none a notice stands."""
    assert "uniform attention reaches" not in words(build_report(editable.root, editable.run))
    path = editable.root / "evaluation/metrics.tsv"
    metrics = read_tsv(path)
    for value, expected in (
        (0.7, "Attention is needed: the model reaches Pearson r 0.866"),
        (0.86, "carries no claim here"),
    ):
        uniform = metrics[metrics["model"] == "kmer"].assign(model="uniform", value=value)
        write_tsv(path, pd.concat([metrics, uniform]), {})
        text = words(build_report(editable.root, editable.run))
        assert expected in text and f"uniform attention reaches {value:.3f}" in text


def test_ceiling_is_stated_for_simulated_runs(planted_html: str, sites_html: str):
    """The share of the ceiling that is reached, only where there is a ceiling."""
    assert "would reach 0.900; the model reaches 96.2 % of that" in words(planted_html)
    assert "perfect reader" not in words(sites_html)


def test_pretraining_is_reported_beside_markov_chains(editable: Made):
    """Only a pretrained run says so, with bits per base of spans, single bases where known, and both chains."""
    assert "pretrained on" not in words(build_report(editable.root, editable.run))
    record = {
        "windows": {"train": 3000, "validation": 1}, "window_bp": 250, "best_epoch": 7, "isolated_bits": None,
        "validation_bits_per_base": 1.9551, "order0_bits": 1.99, "order3_bits": 1.9525,
    }  # fmt: skip
    path = editable.root / "pretrain/run_record.json"
    write_text(path, json.dumps(record))
    text = words(build_report(editable.root, editable.run))
    assert "pretrained on 3,000 windows of at most 250 bp; 1 other chose epoch 7." in text
    assert "(2 is chance): 1.955 in spans; Markov chains: 1.990 (order 0), 1.952 (order 3)." in text
    write_text(path, json.dumps(record | {"isolated_bits": 1.914}))
    assert "1.914 where a base is hidden alone;" in words(build_report(editable.root, editable.run))
    write_text(path, json.dumps({"windows": record["windows"]}))
    assert "pretrain/run_record.json lacks window_bp," in words(build_report(editable.root, editable.run))


def test_verdict_counts_are_those_of_the_table(planted: Made, planted_html: str):
    """Tiles show the number of pairs of each verdict."""
    counts = read_tsv(planted.root / "interactions/table/interactions.tsv")["verdict"].value_counts()
    tiles = re.findall(r'<li class="tile[^"]*"><strong>(\d+)</strong> <span>([^<]+)</span>', planted_html)
    assert {verdict: int(n) for n, verdict in tiles} == counts.to_dict()


def test_cards_have_logos_and_say_which_head_carries_the_interaction(editable: Made):
    """With matrices of both motifs the picture holds their logos; members, heads and environments are facts."""
    path = editable.root / "interactions/table/interactions.tsv"
    pairs = read_tsv(path)
    more = {"carrying_head": "0.1, 0.2", "head_fraction": 0.6, "balanced_epistasis": 1.44, "members_a": ""}
    pairs = pairs.assign(**more)
    row = pairs[pairs["verdict"] == "causal in model"].iloc[0]
    pairs.loc[row.name, "members_a"] = f"{row['tf_a']}, TWIN1, TWIN2"
    write_tsv(path, pairs, {})
    without = build_report(editable.root, editable.run)
    assert "Logos of" not in without and "0.1, 0.2 (60 %)" in words(without)
    assert f"{row['tf_a']} stands for" in words(without) and "TWIN1 and TWIN2" in words(without)
    ppm = [0.25] * 28
    library = pd.DataFrame({"motif_id": [row["motif_id_a"], row["motif_id_b"]], "ppm": [ppm, ppm]})
    (editable.root / "interactions/hits").mkdir()
    write_parquet(editable.root / "interactions/hits/library.parquet", library, {})
    assert f"Logos of {row['tf_a']} and {row['tf_b']}" in build_report(editable.root, editable.run)


def test_single_motifs_are_listed(editable: Made):
    """Effect, interval and decoy of each, under a heading of their own."""
    table = pd.DataFrame(
        {"tf": ["REB1"], "members": ["REB1"], "n_hits": [70], "effect": [0.81], "effect_ci_low": [0.7],
         "effect_ci_high": [0.92], "decoy_effect": [0.04], "q_value": [0.004], "seeds_supporting": [3]}
    )  # fmt: skip
    write_tsv(editable.root / "interactions/table/motifs.tsv", table, {})
    shown = words(build_report(editable.root, editable.run))
    assert "What single motifs do" in shown and "[0.700, 0.920]" in shown


def test_pairs_that_stand_out_are_shown_over_distances(editable: Made):
    """A curve for each pair with a card, its tests in the caption; the other design and the shares on the card."""
    assert "Distance, strands and order" not in words(build_report(editable.root, editable.run))
    path = editable.root / "interactions/table/interactions.tsv"
    pairs = read_tsv(path)
    more = {"design": "knock-in", "epistasis_ko": 1.5, "design_agreement": "yes", "spacing_q": 0.004, "order_q": 0.5}
    write_tsv(path, pairs.assign(**more, third_party_fraction=0.06, readout_fraction=1e-9), {})
    row = pairs[pairs["verdict"] == "causal in model"].iloc[0]
    curve = {"distance_bp": [-30, 30], "same_strand": True, "epistasis": 1.0, "ci_low": 0.9, "ci_high": 1.1}
    names = {"tf_a": row["tf_a"], "tf_b": row["tf_b"]}
    write_tsv(editable.root / "interactions/table/spacing.tsv", pd.DataFrame(curve).assign(**names), {})
    html = build_report(editable.root, editable.run)
    assert f"{row['tf_a']} + {row['tf_b']}: distance q = 0.004, order q = 0.5." in words(html)
    assert html.count("at each distance, on the same strand and on opposite ones") == 1
    assert "1.50 (agrees)" in words(html) and "93 %; 6 % in other tokens" in words(html)
    assert "in the readout" not in words(html)


def test_calls_are_shown_against_hits(editable: Made):
    """Where hits were counted; the rank correlation is that of the motifs of the table."""
    assert "Calls of each motif against its hits" not in words(build_report(editable.root, editable.run))
    path = editable.root / "interactions/table/interactions.tsv"
    pairs = read_tsv(path)
    sides = [pairs[[f"tf_{s}", "candidate"]].set_axis(["motif", "candidate"], axis=1) for s in "ab"]
    n_calls = pd.concat(sides).groupby("motif")["candidate"].sum()
    write_tsv(path, pairs.assign(**{f"n_hits_{s}": 100 + 10 * pairs[f"tf_{s}"].map(n_calls) for s in "ab"}), {})
    assert "Rank correlation: candidates of attention 1" in words(build_report(editable.root, editable.run))


def test_truth_is_joined_whichever_way_round_a_pair_is_written(planted_html: str):
    """The planted pair is found although the truth names its motifs in the other order."""
    assert "1 of 1 planted interaction got the verdict 'causal in model'; 0 pairs without" in words(planted_html)


def test_real_data_have_no_truth_section(sites_html: str):
    """Without a simulation nothing is said about the truth."""
    assert "truth" not in Page(sites_html).ids


def test_download_is_the_whole_table(planted: Made, planted_html: str):
    """The TSV inside the page holds every row and column of the file."""
    link = next(link for link in Page(planted_html).all("a") if link.get("download"))
    assert link["download"] == "planted.interactions.tsv"
    content = base64.b64decode(str(link["href"]).partition("base64,")[2]).decode()
    found = pd.read_csv(StringIO(content), sep="\t", na_values=["NA"], keep_default_na=False)
    pd.testing.assert_frame_equal(found, read_tsv(planted.root / "interactions/table/interactions.tsv"))


def test_columns_carry_their_definitions(planted_html: str):
    """A tooltip of the table is the data dictionary's definition, quotes and all."""
    header = next(cell for cell in Page(planted_html).all("th") if cell.get("data-key") == "mediated_fraction")
    assert header["title"] == 'Definition of mediated_fraction: "a" & b.'


def test_sites_are_ranked(sites_html: str):
    """Fixed sites are named with their importance; the stronger one comes first."""
    table = sites_html[sites_html.index('id="sites"') :]
    assert table.index("-35 box") < table.index("-10 box")


def test_methods_quote_the_settings():
    """Numbers in the methods are those of the run."""
    from bioattn.report.methods import methods

    run = planted_run(model={"n_layers": 3, "n_heads": 8}, train={"learning_rate": 0.0005, "seeds": [4, 5]})
    text = " ".join(methods(run, version="9.9"))
    assert "3 layers of 8 attention heads" in text and "0.0005" in text and "2 models per fold" in text
    assert "600 promoters of 60 bp were simulated" in text and "bioattn 9.9" in text


def test_resolved_settings_are_in_the_page(planted: Made, planted_html: str):
    """The folded settings are the run, defaults included, readable by the program."""
    text = Page(planted_html).text
    block = text[text.index("seed: 1\ndescription:") :]
    block = block[: block.index("\nWritten by") if "\nWritten by" in block else len(block)].rstrip()
    settings = yaml.safe_load(block)
    assert RunConfig.model_validate(settings) == planted.run


def test_files_of_other_settings_are_named(planted: Made, empty_figures: None):
    """Files that were made with other settings than the report's are listed; matching ones are not."""
    same = words(build_report(planted.root, planted.run))
    assert "Made with other settings" not in same
    other = planted_run(explain={"n_sequences": 77})
    text = words(build_report(planted.root, other))
    stale = text[text.index("Made with other settings") :].split(". Run the workflow")[0]
    assert "heads/seed1/heads.tsv" in stale and "split/leakage.tsv" not in stale


# ------------------------------------------------------------------- what is missing

PIECES = {
    "data/sequences.parquet": "summary of the sequences",
    "split/split.parquet": "split figure",
    "split/leakage.tsv": "leakage report",
    "evaluation/metrics.tsv": "comparison with baselines",
    "evaluation/predictions.parquet": "predicted-versus-measured figure",
    "interactions/table/interactions.tsv": "verdict on motif pairs",
    "interactions/table/columns.tsv": "definition of the columns",
}


@pytest.mark.parametrize("piece", PIECES)
def test_a_missing_file_is_named_with_the_command_that_makes_it(piece: str, editable: Made):
    """Each missing table costs its part only, and the page says which and how to make it."""
    (editable.root / piece).unlink()
    html = build_report(editable.root, editable.run)
    text = words(html)
    assert f"{piece} is missing, so there is no {PIECES[piece]}" in text
    assert f"snakemake --cores 2 results/mine/{piece}" in text
    assert set(SECTIONS) <= set(Page(html).ids)


@pytest.mark.parametrize("piece", PIECES)
def test_a_damaged_file_is_named(piece: str, editable: Made):
    """A file that is no table any more is a notice, not a crash."""
    (editable.root / piece).write_bytes(b"\x00\xff half a file")
    text = words(build_report(editable.root, editable.run))
    assert piece in text and ("cannot be read" in text or "lacks the columns" in text)


@pytest.mark.parametrize("piece", [piece for piece in PIECES if piece.endswith(".tsv")])
def test_an_empty_table_is_named(piece: str, editable: Made):
    """A table without rows says so."""
    path = editable.root / piece
    write_tsv(path, read_tsv(path).head(0), {})
    assert f"{piece} has no rows" in words(build_report(editable.root, editable.run))


def test_an_empty_folder_gives_a_whole_page(tmp_path: Path):
    """With no result at all every section stands and says what it lacks."""
    (tmp_path / "results/new").mkdir(parents=True)
    for run in (planted_run(), binary_run()):
        html = build_report(tmp_path / "results/new", run)
        assert set(SECTIONS) <= set(Page(html).ids)
        for piece in ("heads/seed1/heads.tsv", "attribution/seed1/ism.parquet", "models/fold0/seed1/history.tsv"):
            assert f"{piece} is missing" in words(html)


def test_a_run_without_motifs_says_why_there_are_no_pairs(tmp_path: Path):
    """No motifs in the settings is a reason, not a missing file."""
    (tmp_path / "results/new").mkdir(parents=True)
    text = words(build_report(tmp_path / "results/new", binary_run(motifs={})))
    assert "names neither motifs nor sites" in text and "interactions.tsv is missing" not in text


def test_a_recurrent_run_is_not_said_to_have_attention(tmp_path: Path):
    """The page names the network that was trained, and says for each missing section why there is none."""
    run = binary_run(model={"encoder": "gru"}, motifs={"jaspar_ids": ["MA0060.4"]})
    text = words(build_report(tmp_path, run))
    assert "A recurrent network (GRU) with 2 layers was trained" in text
    assert "has no attention, so there are no heads to look at" in text
    assert "has no attention, so no pairs were looked for" in text
    assert "Transformer" not in text


def test_optional_columns_may_be_absent(editable: Made):
    """The smallest table of pairs and of heads is enough for a page."""
    path = editable.root / "interactions/table/interactions.tsv"
    needed = ["tf_a", "tf_b", "verdict", "epistasis_effect", "attention_effect"]
    write_tsv(path, read_tsv(path)[needed], {})
    for seed in (1, 2, 3):
        heads = editable.root / f"heads/seed{seed}/heads.tsv"
        write_tsv(heads, read_tsv(heads)[["layer", "head", "verdict"]], {})
    shutil.rmtree(editable.root / "heads/seed1/logos")
    assert "NFYA + SP1" in words(build_report(editable.root, editable.run))


def test_a_logo_outside_the_results_is_not_read(editable: Made):
    """A path that climbs out of the results folder embeds nothing."""
    secret = editable.root.parent / "secret.svg"
    secret.write_text("<svg>secret</svg>")
    heads = editable.root / "heads/seed1/heads.tsv"
    write_tsv(heads, read_tsv(heads).assign(logo="../../../secret.svg"), {})
    assert base64.b64encode(b"<svg>secret</svg>").decode() not in build_report(editable.root, editable.run)


def test_many_pairs_are_cut_and_the_page_says_so(editable: Made):
    """A table too long for a page shows its first rows and names the file with all."""
    path = editable.root / "interactions/table/interactions.tsv"
    pairs = read_tsv(path)
    write_tsv(path, pd.concat([pairs] * 30, ignore_index=True), {})
    html = build_report(editable.root, editable.run)
    assert "First 1,500 of 1,980 pairs; interactions/table/interactions.tsv holds all" in words(html)


def test_no_results_folder_is_an_error(tmp_path: Path):
    """A folder that is not there is the user's mistake and is named."""
    with pytest.raises(DataError, match="no such folder"):
        build_report(tmp_path / "nowhere", planted_run())


# ------------------------------------------------------------------------ the verb


def test_verb_writes_the_page(sites: Made, tmp_path: Path, empty_figures: None):
    """The verb writes what the function returns, from a settings file."""
    settings = tmp_path / "settings.yaml"
    settings.write_text(yaml.safe_dump(sites.run.model_dump(mode="json")))
    report_verb(settings=settings, results=sites.root, out=tmp_path / "report.html")
    assert (tmp_path / "report.html").read_text(encoding="utf-8") == build_report(sites.root, sites.run)


def test_verb_leaves_an_older_report_when_it_fails(tmp_path: Path):
    """On an error the report that stood there stays."""
    settings = tmp_path / "settings.yaml"
    settings.write_text(yaml.safe_dump(binary_run().model_dump(mode="json")))
    out = tmp_path / "report.html"
    out.write_text("old")
    with pytest.raises(DataError):
        report_verb(settings=settings, results=tmp_path / "nowhere", out=out)
    assert out.read_text() == "old"


def test_multiclass_and_count_runs_have_a_page(tmp_path: Path, empty_figures: None):
    """Every kind of target gives a page."""
    classes = {"kind": "multiclass", "targets": ["label"], "classes": ["a", "b"]}
    for name, task in (("classes", classes), ("counts", {"kind": "count", "targets": ["label"]})):
        made = write_results(tmp_path / "results" / name, binary_run(task=task))
        assert set(SECTIONS) <= set(Page(build_report(made.root, made.run)).ids)
