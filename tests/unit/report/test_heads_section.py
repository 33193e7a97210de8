"""The section about attention heads: what verdicts mean, what each head reads and costs, and what is missing."""

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure
from toy_results import HEADS, HOSTILE, Made, toy_ppm

from bioattn.io.tables import read_tsv, write_tsv
from bioattn.plot.style import KINDS
from bioattn.report import heads as section_module
from bioattn.report.blocks import Box, Card, Cards, Code, Facts, Heading, Notice, Pictures, Section, Table, Text
from bioattn.report.build import render
from bioattn.report.files import ResultFiles
from bioattn.report.heads import heads_section
from bioattn.report.words import HEAD_VERDICTS

FOLDER = "heads/seed1"


def section(made: Made) -> Section:
    return heads_section(ResultFiles(made.root), made.run)


def text_of(found: Section) -> str:
    return " ".join(block.text for block in found.blocks if isinstance(block, (Text, Notice)))


def table_of(found: Section, name: str) -> Table:
    return next(block for block in found.blocks if isinstance(block, Table) and block.id == name)


def cards_of(found: Section) -> dict[str, Card]:
    return {card.title: card for block in found.blocks if isinstance(block, Cards) for card in block.cards}


def headings(found: Section) -> list[str]:
    return [block.text for block in found.blocks if isinstance(block, Heading)]


def facts_below(found: Section, heading: str) -> dict[str, str]:
    """Facts of the motif whose heading starts so."""
    start = next(i for i, b in enumerate(found.blocks) if isinstance(b, Heading) and b.text.startswith(heading))
    facts = next(block for block in found.blocks[start:] if isinstance(block, Facts))
    return {fact.label: fact.value for fact in facts.facts}


def alts(found: Section) -> str:
    return " ".join(p.alt for block in found.blocks if isinstance(block, Pictures) for p in block.pictures)


def notices(found: Section) -> list[Notice]:
    return [block for block in found.blocks if isinstance(block, Notice)]


def change(made: Made, **columns: object) -> None:
    """Overwrite columns of the heads of every replicate."""
    for seed in (1, 2, 3):
        path = made.root / f"heads/seed{seed}/heads.tsv"
        write_tsv(path, read_tsv(path).assign(**columns), {})


# ------------------------------------------------------------------------- verdicts


def test_every_verdict_has_words_and_a_colour():
    """No verdict is without meaning or colour, and their short names differ."""
    assert list(HEAD_VERDICTS) == list(KINDS)
    shorts = [short for short, _ in HEAD_VERDICTS.values()]
    assert len(set(shorts)) == len(shorts)
    assert all(len(meaning) > 60 and meaning.endswith(".") for _, meaning in HEAD_VERDICTS.values())


def test_verdicts_are_counted_for_each_replicate(editable: Made):
    """The table has the meaning of every verdict, and the heads (not motifs) of each replicate that got it."""
    path = editable.root / "heads/seed2/heads.tsv"
    write_tsv(path, read_tsv(path).assign(verdict="dead"), {})
    rows = {row[0].text: [cell.text for cell in row[2:]] for row in table_of(section(editable), "head-verdicts").rows}
    here = [verdict for layer in HEADS for verdict, _ in layer]
    assert list(rows) == list(HEAD_VERDICTS)
    for verdict, counts in rows.items():
        n = str(here.count(verdict))
        assert counts == [n, "8" if verdict == "dead" else "0", n]


def test_an_unknown_verdict_is_shown_as_it_is(editable: Made):
    """A verdict without words gets a row and plain cards, and stays text."""
    change(editable, verdict=HOSTILE)
    found = section(editable)
    assert table_of(found, "head-verdicts").rows[-1][0].text == HOSTILE
    assert {card.verdict for card in cards_of(found).values()} == {"kind-none"}


def test_what_was_compared_is_said(editable: Made):
    """The box names the shuffled sequences, the held-out test and the random models."""
    box = next(block for block in section(editable).blocks if isinstance(block, Box))
    text = " ".join(box.paragraphs)
    assert all(words in text for words in ("shuffled sequences", "held-out", "random weights", "by its mean"))


def test_readers_of_motifs_are_counted_in_a_sentence(editable: Made):
    """The first sentence has the number of heads, models and verdicts."""
    text = text_of(section(editable))
    assert "Of the 24 heads of 3 trained models, 6 read a motif, matters" not in text
    assert "Of the 24 heads of 3 trained models, 6 read a motif and matter." in text
    assert "The others: 3 weak, 6 redundant, 3 positional, 3 diffuse and 3 dead." in text


def test_evidence_of_motifs_is_counted_and_shown(editable: Made):
    """The sentence counts motifs that act through their head, and cards, facts and table say it of each."""
    found = section(editable)
    # Of six motifs in each of three replicates, those numbered 0 are causal.
    n_first = 3 * sum(1 for layer in HEADS for _, n in layer if n)
    n_all = 3 * sum(n for layer in HEADS for _, n in layer)
    assert f"Of {n_all} motifs whose sites were replaced, {n_first} act on the prediction" in text_of(found)
    assert facts_below(found, "Layer 0, head 0, motif 0")["evidence"] == "causal in model"
    assert facts_below(found, "Layer 0, head 0, motif 1")["evidence"] == "correlated"
    change(editable, evidence="not tested")
    assert "whose sites were replaced" not in text_of(section(editable))


def test_nothing_read_is_said_with_reasons(editable: Made):
    """Where no head has a motif the section says so and why that may be, and draws no empty logos."""
    change(editable, motif=-1, verdict="dead", consensus="", matches="", logo="", note="too few seqlets (n = 12)")
    found = section(editable)
    assert "No head reads a motif: nothing was found in any of the 24 heads" in text_of(found)
    assert "too few sequences" in text_of(found)
    assert not any(name.startswith(("Layer", "What is read")) for name in headings(found))
    assert all(card.picture is None and card.text for card in cards_of(found).values())


def test_motifs_in_heads_that_do_not_matter_are_no_finding(editable: Made):
    """Motifs alone do not make a reader: the sentence says what was found and why it does not count."""
    change(editable, verdict="weak")
    assert "No head reads a motif and matters. Motifs were found in 12 of the 24 heads" in text_of(section(editable))


# ---------------------------------------------------------------------------- cards


def test_a_card_has_the_numbers_of_its_row(editable: Made):
    """Consensus, best match with ambiguity, enrichment and cost on the card are those of the table's first motif."""
    row = read_tsv(editable.root / FOLDER / "heads.tsv").iloc[0]
    card = cards_of(section(editable))["Layer 0, head 0"]
    facts = {fact.label: fact.value for fact in card.facts}
    assert facts["consensus"] == row["consensus"]
    assert facts["best match"] == "NFYA (+1 family)"
    assert facts["enriched"] == "5.0x (q = 3e-8)" and 2 ** row["enrichment_log2"] == pytest.approx(5.0, abs=0.05)
    assert facts["costs"] == "0.120 Pearson r [0.110, 0.140]" and row["ablation_drop"] == 0.12
    assert card.picture is not None and str(row["consensus"]) in card.picture.alt


def test_every_head_has_one_card(editable: Made):
    """Heads with two motifs and heads without any have one card each, in order."""
    assert list(cards_of(section(editable))) == [
        f"Layer {layer}, head {head}" for layer in range(2) for head in range(4)
    ]


def test_a_head_without_motif_says_what_it_is(editable: Made):
    """Positional, redundant, diffuse and dead heads say so in words instead of showing a logo."""
    cards = cards_of(section(editable))
    assert cards["Layer 0, head 2"].text == "Reads a place: 83 % of what varies in it is position."
    assert cards["Layer 1, head 3"].text == "Shares 91 % of its attention with head 0.1."
    assert cards["Layer 1, head 2"].text == "The prediction does not need it."
    assert {fact.label: fact.value for fact in cards["Layer 0, head 3"].facts}["note"] == "too few seqlets (n = 12)"


def test_the_most_similar_head_keeps_its_number(editable: Made):
    """Head 10 of a layer stays head 10, although the table's '1.10' reads as a number."""
    path = editable.root / FOLDER / "similarity.tsv"
    pairs = read_tsv(path)
    last = (pairs["layer_b"] == 1) & (pairs["head_b"] == 3)
    write_tsv(path, pairs.assign(head_b=pairs["head_b"].mask(last, 10)), {})
    change(editable, similar_head=1.1)
    assert facts_below(section(editable), "Layer 0, head 1, motif 0")["most alike"] == "head 1.10 (shares 91 %)"


def test_cost_falls_back_to_the_loss(editable: Made):
    """Where the score is not defined the card gives the loss; where neither is, it says nothing."""
    change(editable, ablation_drop=np.nan)
    facts = {fact.label: fact.value for fact in cards_of(section(editable))["Layer 0, head 0"].facts}
    assert facts["costs"] == "0.310 of loss [0.290, 0.340]"
    change(editable, ablation_loss=np.nan)
    assert "costs" not in {fact.label for fact in cards_of(section(editable))["Layer 0, head 0"].facts}


# ------------------------------------------------------------------- motifs in detail


def test_every_motif_is_shown_with_all_that_is_known(editable: Made):
    """All matches, readers, distance, ablation, response and likeness of a motif stand in words below its figure."""
    found = section(editable)
    assert sum(name.startswith("Layer") for name in headings(found)) == sum(n for layer in HEADS for _, n in layer)
    facts = facts_below(found, "Layer 0, head 0, motif 0")
    row = read_tsv(editable.root / FOLDER / "heads.tsv").iloc[0]
    assert facts["known motif like it" if ";" not in row["matches"] else "known motifs like it"] == row["matches"]
    assert facts["held by"] == "412 of 731 seqlets (attention received)"
    assert facts["around its readers"] == f"{row['reader_consensus']} (p = 0.002)"
    assert facts["motif minus reader"] == "median −13 bp, quartiles 6 bp apart"
    assert facts["Pearson r lost without the head"] == "0.120 [0.110, 0.140]"
    assert facts["loss gained without it"] == "0.310 [0.290, 0.340]"
    assert facts["p, against random models' heads"] == "0.01"
    assert facts["readout when put into backgrounds"] == "+0.730; 61 % of it gone without the head"


@pytest.mark.parametrize(
    ("lost", "words"),
    [
        (0.6, "+0.730; 60 % of it gone without the head"),
        (1.0, "+0.730; 100 % of it gone without the head"),
        (1.8, "+0.730; turned around without the head"),
        (-0.3, "+0.730; larger by 30 % without the head"),
        (np.nan, "+0.730"),
    ],
)
def test_what_becomes_of_the_response_is_said_in_words(lost: float, words: str, editable: Made):
    """More than all of a response cannot be gone, nor less than nothing: such shares are said otherwise."""
    change(editable, motif_response_lost=lost)
    assert facts_below(section(editable), "Layer 0, head 0, motif 0")["readout when put into backgrounds"] == words


def test_a_motif_that_is_not_enriched_says_so(editable: Made):
    """A second motif of a head that reads another one is not sold as a finding."""
    change(editable, q_value=0.089)
    facts = facts_below(section(editable), "Layer 0, head 0, motif 1")
    assert facts["enriched, held-out"] == "2.5x (q = 0.089: not enriched)"


def test_figures_get_the_matrices_of_their_own_motif(editable: Made, monkeypatch: pytest.MonkeyPatch):
    """Each motif's figure is drawn from its own PPM, CWM, readers' PPM and distances."""
    drawn: list[tuple] = []
    monkeypatch.setattr(section_module, "head_card", lambda *given: drawn.append(given) or Figure())
    found = section(editable)
    named = [name for name in headings(found) if name.startswith("Layer")]
    assert len(drawn) == len(named)
    for name, (ppm, cwm, readers, distances) in zip(named, drawn, strict=True):
        layer, head, motif = (int(part.split()[1]) for part in name.split(":")[0].split(", "))
        np.testing.assert_allclose(ppm, toy_ppm(layer, head, motif))
        np.testing.assert_allclose(cwm, 0.1 * (ppm - 0.25))
        assert (readers is None) == (motif != 0 or head != 0)
        assert set(zip(distances["layer"], distances["head"], distances["motif"], strict=True)) == {
            (layer, head, motif)
        }


def test_those_that_claim_most_come_first(editable: Made):
    """Motifs are ordered by verdict, so that a cut loses those that claim least."""
    named = [name.split(": ")[1] for name in headings(section(editable)) if name.startswith("Layer")]
    places = [[short for short, _ in HEAD_VERDICTS.values()].index(name) for name in named]
    assert places == sorted(places) and len(set(places)) > 1


# --------------------------------------------------------------- worth, likeness, table


def test_likeness_is_said_with_the_effective_number_of_heads(editable: Made):
    """The sentence before the map has the numbers of the summary."""
    found = section(editable)
    assert "The 8 heads count as 5.31 different ones (effective number of heads)." in text_of(found)
    assert "Heat map" in alts(found)


def test_ablation_figure_gets_the_line_of_random_models(editable: Made, monkeypatch: pytest.MonkeyPatch):
    """Loss is drawn with the quantile of random models' heads, the score without, as it has none."""
    lines: dict[str, float | None] = {}

    def drawn(table: pd.DataFrame, *, measure: str, random_q95: float | None) -> Figure:
        lines[measure] = random_q95
        return Figure()

    monkeypatch.setattr(section_module, "ablation_bars", drawn)
    assert "on 90 held-out sequences, against 40 heads of models with random weights" in text_of(section(editable))
    assert lines == {"loss": 0.05, "drop": None}


def test_all_heads_of_all_replicates_are_in_the_table(editable: Made):
    """One row per head and motif of each replicate, with the interval of the ablation and the note below."""
    table = table_of(section(editable), "head-table")
    assert len(table.rows) == 3 * len(read_tsv(editable.root / FOLDER / "heads.tsv"))
    keys = [column.key for column in table.columns]
    cells = dict(zip(keys, table.rows[0], strict=True))
    assert (cells["ablation_drop"].text, cells["ablation_drop"].below) == ("0.120", "[0.110, 0.140]")
    assert (cells["enrichment_log2"].text, cells["enrichment_log2"].below) == ("2.31", "q = 3e-8")
    assert cells["p_random"].text == "0.01"
    diffuse = next(row for row in table.rows if row[keys.index("verdict")].text == "diffuse")
    assert diffuse[keys.index("best_match")].below == "too few seqlets (n = 12)"
    assert diffuse[keys.index("motif")].text == "–"


def test_files_to_take_away_are_named(editable: Made):
    """Paths of the motifs and seqlets are there, and the MEME file to copy."""
    found = section(editable)
    values = [fact.value for block in found.blocks if isinstance(block, Facts) for fact in block.facts]
    assert {"results/mine/heads/seed1/motifs.meme", "results/mine/heads/seed1/seqlets.bed"} <= set(values)
    code = next(block for block in found.blocks if isinstance(block, Code))
    assert code.text == (editable.root / FOLDER / "motifs.meme").read_text() and code.folded


# ------------------------------------------------------------------- what is missing

OPTIONAL = [
    "ablation.tsv",
    "similarity.tsv",
    "distances.tsv",
    "motifs.npz",
    "cwms.npz",
    "readers.npz",
    "tracks.tsv",
    "columns.tsv",
]


@pytest.mark.parametrize("name", OPTIONAL)
def test_a_missing_file_costs_its_part_only(name: str, editable: Made):
    """One file less is one notice with the command that makes it, and everything else stays."""
    whole = section(editable)
    (editable.root / FOLDER / name).unlink()
    found = section(editable)
    assert [f"{FOLDER}/{name}" in notice.text for notice in notices(found)] == [True]
    assert notices(found)[0].command == f"snakemake --cores 2 results/mine/{FOLDER}/{name}"
    assert headings(found) == headings(whole)
    assert len(table_of(found, "head-table").rows) == len(table_of(whole, "head-table").rows)


@pytest.mark.parametrize("name", OPTIONAL)
def test_a_damaged_file_is_named(name: str, editable: Made):
    """Half a file is a notice, not a crash."""
    (editable.root / FOLDER / name).write_bytes(b"\x00\xff half a file")
    found = section(editable)
    assert [f"{FOLDER}/{name}" in notice.text for notice in notices(found)] == [True]


@pytest.mark.parametrize("wrong", [np.zeros((5, 7)), np.full((4, 7), np.nan), np.zeros((4, 0))])
def test_unusable_matrices_are_left_out(wrong: np.ndarray, editable: Made, monkeypatch: pytest.MonkeyPatch):
    """A matrix of another shape, or with a missing value, is not drawn, and the rest of its motif is."""
    drawn: list[tuple] = []
    monkeypatch.setattr(section_module, "head_card", lambda *given: drawn.append(given) or Figure())
    np.savez(editable.root / FOLDER / "motifs.npz", layer0_head0_motif0=wrong)
    found = section(editable)
    assert "Layer 0, head 0, motif 0: reads a motif, matters" in headings(found)
    assert drawn[0][0] is None and drawn[0][1] is not None


def test_a_cut_archive_is_named(editable: Made):
    """An archive that lost its end, and one of letters instead of numbers, are notices."""
    path = editable.root / FOLDER / "cwms.npz"
    path.write_bytes(path.read_bytes()[:200])
    np.savez(editable.root / FOLDER / "motifs.npz", layer0_head0_motif0=np.array(["A", "C"]))
    texts = [notice.text for notice in notices(section(editable))]
    assert [text.split(" cannot")[0] for text in texts] == [f"{FOLDER}/motifs.npz", f"{FOLDER}/cwms.npz"]


def test_only_the_table_of_heads_is_enough(editable: Made):
    """Of an older run with heads.tsv alone everything that it says is shown, and every other part is named."""
    folder = editable.root / FOLDER
    for path in folder.iterdir():
        if path.is_file() and path.stem != "heads":
            path.unlink()
    found = section(editable)
    assert len(notices(found)) == len(OPTIONAL)
    assert len(cards_of(found)) == 8
    assert facts_below(found, "Layer 0, head 0, motif 0")["the score lost without the head"] == "0.120 [0.110, 0.140]"
    assert "effective number" not in text_of(found)


def test_a_table_of_old_verdicts_is_named(editable: Made):
    """A table without the column verdict is a notice that says so."""
    for seed in (1, 2, 3):
        path = editable.root / f"heads/seed{seed}/heads.tsv"
        write_tsv(path, read_tsv(path).rename(columns={"verdict": "kind"}), {})
    found = section(editable)
    assert [notice.text.count("lacks the columns verdict") for notice in notices(found)] == [1, 1, 1]


def test_user_text_is_escaped(editable: Made):
    """Whatever a column of text holds, the page shows it as text."""
    columns = ["matches", "consensus", "note", "reader_consensus", "track", "similar_head"]
    change(editable, **dict.fromkeys(columns, HOSTILE))
    (editable.root / FOLDER / "motifs.meme").write_text(HOSTILE)
    html = render("title", "mine", "", [section(editable)])
    assert HOSTILE not in html and html.count("<script>") == 1
    assert html.count("&lt;script&gt;") > len(columns)
