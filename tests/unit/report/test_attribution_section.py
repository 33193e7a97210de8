"""The section about attribution, and its figure: what it says of tables whose answer is known."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_hex
from toy_results import Made, binary_run, record

from bioattn.errors import DataError
from bioattn.io.tables import read_tsv, write_parquet, write_tsv
from bioattn.plot.faithfulness import ATTRIBUTIONS, edge_curves, faithfulness_curves
from bioattn.plot.save import svg_bytes
from bioattn.plot.style import MUTED
from bioattn.report.attribution import attribution_section
from bioattn.report.blocks import Heading, Notice, Pictures, Section, Table, Text
from bioattn.report.files import ResultFiles

KINDS = ("ism", "integrated_gradients", "input_x_gradient", "gradient_sum", "received_sum", "random")


def summary_of(**areas: tuple[float, float]) -> pd.DataFrame:
    """faithfulness.tsv with an area and a rank correlation for each kind; intervals of 0.1 to either side."""
    rows = []
    for kind, (area, spearman) in areas.items():
        for direction, value in (("deletion", area), ("insertion", 2 * area)):
            known = np.isfinite(area)
            rows.append(
                {
                    "kind": kind, "direction": direction, "area": value, "area_ci_low": value - 0.1,
                    "area_ci_high": value + 0.1, "spearman_ism": spearman, "spearman_ci_low": spearman - 0.1,
                    "spearman_ci_high": spearman + 0.1, "n": 11 if known else 0, "note": "" if known else "why not",
                }
            )  # fmt: skip
    return pd.DataFrame(rows)


def write(made: Made, seeds: Sequence[int] = (1, 2, 3), **areas: tuple[float, float]) -> None:
    """The same summary for some replicates; the others lose theirs."""
    for seed in (1, 2, 3):
        path = made.root / f"attribution/seed{seed}/faithfulness.tsv"
        if seed in seeds:
            write_tsv(path, summary_of(**areas), record(made.run, "heads"))
        else:
            path.unlink()


def section_of(made: Made) -> Section:
    return attribution_section(ResultFiles(made.root), made.run)


def said(section: Section) -> str:
    return " ".join(block.text for block in section.blocks if isinstance(block, Text))


def table_of(section: Section, name: str) -> Table:
    (found,) = (block for block in section.blocks if isinstance(block, Table) and block.id == name)
    return found


def test_everything_is_there(editable: Made):
    """Mutagenesis with two pictures, then the comparison with curves and a table of all models and kinds."""
    write(editable, **dict.fromkeys(KINDS, (0.5, 0.4)))
    section = section_of(editable)
    kinds = [type(block) for block in section.blocks]
    edges = [Heading, Text, Text, Pictures]
    assert kinds == [Text, Pictures, Heading, Text, Text, Pictures, Table, *edges]
    assert section.id == "attribution" and len(section.blocks[1].pictures) == 2
    assert "every letter of 8 held-out sequences" in said(section) and "in 3 trained models" in said(section)
    rows = table_of(section, "faithfulness").rows
    assert [row[1].text for row in rows[:6]] == [ATTRIBUTIONS[kind] for kind in KINDS] and len(rows) == 18
    assert rows[0][2].text == "0.500" and rows[0][2].below == "[0.400, 0.600]"
    assert rows[0][3].text == "1" and rows[0][4].text == "0.400" and rows[0][5].text == "11"


def test_nearest_to_mutagenesis_is_named(editable: Made):
    """The sentence names the kind with the highest rank correlation, neither mutagenesis itself nor chance."""
    write(
        editable, ism=(0.5, np.nan), random=(0.0, 0.99), input_x_gradient=(0.4, 0.8), received_sum=(0.4, 0.3)
    )  # fmt: skip
    assert "Nearest to mutagenesis is input × gradient: mean rank correlation 0.800" in said(section_of(editable))
    assert "nearest in 3 of 3 trained models" in said(section_of(editable))
    write_tsv(
        editable.root / "attribution/seed2/faithfulness.tsv",
        summary_of(input_x_gradient=(0.4, 0.2), received_sum=(0.4, 0.3)),
        {},
    )
    assert "mean rank correlation 0.600, and the nearest in 2 of 3 trained models" in said(section_of(editable))


def test_one_model_has_an_interval_and_no_count(editable: Made):
    """Of a single model the sentences give intervals."""
    write(editable, seeds=[2], gradient_sum=(0.4, 0.6), received_sum=(0.02, 0.3))
    text = said(section_of(editable))
    assert "Nearest to mutagenesis is attention × gradient: mean rank correlation 0.600 [0.500, 0.700]." in text
    beats = "deletion (area 0.400 [0.300, 0.500]) and insertion (area 0.800 [0.700, 0.900])"
    assert f"Attention × gradient beats a random order in {beats}." in text
    equals = "deletion (area 0.020 [−0.080, 0.120]) and insertion (area 0.040 [−0.060, 0.140])"
    assert f"Attention received does not beat a random order in {equals}." in text


@pytest.mark.parametrize(
    "areas, verdict",
    [
        ((0.5, 0.5, 0.5), "beats a random order in deletion (mean area 0.500, better in 3 of 3 trained models)"),
        ((0.5, 0.5, 0.02), "beats a random order in some trained models only in deletion"),
        ((0.02, -0.02, 0.0), "does not beat a random order in deletion (mean area 0, better in 0 of 3"),
        ((-0.5, -0.5, -0.5), "is worse than a random order in deletion (mean area −0.500, better in 0 of 3"),
    ],
)
def test_attention_is_held_against_chance(editable: Made, areas: tuple[float, ...], verdict: str):
    """Attention beats chance only where its interval lies above 0, in as many models as it says."""
    for seed, area in enumerate(areas, start=1):
        path = editable.root / f"attribution/seed{seed}/faithfulness.tsv"
        write_tsv(path, summary_of(received_sum=(area, 0.2)), {})
    assert f"Attention received {verdict}" in said(section_of(editable))


def test_no_agreement_is_said(editable: Made):
    """Where every rank correlation is negative the section says so; where there is none, that too."""
    write(editable, received_sum=(0.1, -0.2), gradient_sum=(0.1, -0.3))
    assert "No attribution orders bases as mutagenesis does (the nearest: attention received" in said(
        section_of(editable)
    )
    write(editable, ism=(0.1, np.nan), input_x_gradient=(np.nan, np.nan))
    section = section_of(editable)
    assert "No attribution could be compared with mutagenesis." in said(section)
    row = table_of(section, "faithfulness").rows[1]
    assert [cell.text for cell in row] == ["1", "input × gradient", "–", "–", "–", "0", "why not"]


def test_sites_are_shaded_and_listed(sites: Made, empty_figures: None):
    """Fixed sites get a table: the planted one has a higher mean change than elsewhere."""
    table = table_of(section_of(sites), "sites")
    assert {row[0].text for row in table.rows} == {site.name for site in sites.run.motifs.sites}
    assert float(table.rows[0][-1].text) > 1


@pytest.mark.parametrize("name", ["ism.parquet", "faithfulness.tsv", "curves.tsv"])
def test_what_is_missing_is_named_and_the_rest_stays(editable: Made, name: str):
    """Without one kind of file there is a notice with the command that makes it, and every other part."""
    for path in editable.root.glob(f"attribution/seed*/{name}"):
        path.unlink()
    section = section_of(editable)
    (notice,) = (block for block in section.blocks if isinstance(block, Notice))
    assert f"attribution/seed1/{name}" in notice.command
    assert any(isinstance(block, Pictures) for block in section.blocks)
    assert (name == "faithfulness.tsv") != any(isinstance(b, Table) and b.id == "faithfulness" for b in section.blocks)


def test_a_damaged_replicate_is_named(editable: Made):
    """A table without a needed column is left out with a notice; the other replicates count."""
    broken = summary_of(received_sum=(0.5, 0.2)).drop(columns="area")
    write_tsv(editable.root / "attribution/seed2/faithfulness.tsv", broken, {})
    write_parquet(editable.root / "attribution/seed3/ism.parquet", pd.DataFrame({"name": ["x"]}), {})
    section = section_of(editable)
    notices = [block.text for block in section.blocks if isinstance(block, Notice)]
    assert len(notices) == 2 and any("seed2/faithfulness.tsv lacks the columns area" in text for text in notices)
    assert "in 2 trained models" in said(section)


def test_recurrent_networks_are_not_explained(tmp_path):
    """A run without attention has a notice instead."""
    run = binary_run(model={"encoder": "gru", "positions": "none"})
    (block,) = attribution_section(ResultFiles(tmp_path), run).blocks
    assert isinstance(block, Notice) and "not explained" in block.text


# ------------------------------------------------------------------------------ figure


def curves_of(*kinds: str) -> pd.DataFrame:
    """Curves of some kinds, rows not in order."""
    parts = []
    for i, kind in enumerate(kinds):
        for direction in ("insertion", "deletion"):
            mean = np.array([0.0, 3.0 + i, 1.0])
            parts.append(
                pd.DataFrame(
                    {
                        "kind": kind, "direction": direction, "fraction": [0.0, 1.0, 0.5], "mean": mean,
                        "ci_low": mean - 1, "ci_high": mean + 1,
                    }
                )
            )  # fmt: skip
    return pd.concat(parts)


def lines_of(figure: Any, panel: int) -> dict[str, Any]:
    return {line.get_label(): line for line in figure.axes[panel].lines}


def test_curves_keep_their_colours_and_order():
    """A kind has its colour whichever others are there, random orders are grey, points run from left to right."""
    few, many = faithfulness_curves(curves_of("random", "received_sum")), faithfulness_curves(curves_of(*KINDS))
    for panel in (0, 1):
        for label, line in lines_of(few, panel).items():
            assert line.get_color() == lines_of(many, panel)[label].get_color()
            assert list(line.get_xdata()) == [0, 50, 100]
        colors = [to_hex(line.get_color()) for line in lines_of(many, panel).values()]
        assert len(set(colors)) == len(KINDS)
        assert to_hex(lines_of(many, panel)["random order"].get_color()) == to_hex(MUTED)
    assert [ax.get_title(loc="left") for ax in few.axes] == ["Deletion", "Insertion"]
    assert len(few.axes[0].collections) == 2 and few.axes[0].get_ylim() == few.axes[1].get_ylim()


def test_both_panels_have_room_for_both_directions():
    """The axis that the panels share reaches to the highest point of either."""
    table = curves_of("ism")
    table.loc[table["direction"] == "insertion", ["mean", "ci_low", "ci_high"]] += 100
    low, high = faithfulness_curves(table).axes[0].get_ylim()
    assert low < 0 and high > 103


def test_kinds_of_other_tools_get_lines_of_their_own():
    """An attribution that has no colour of its own is drawn under its own name, and the figure is reproducible."""
    table = curves_of("random", "deeplift", "saliency")
    figure = faithfulness_curves(table, unit="logit")
    assert set(lines_of(figure, 0)) == {"random order", "deeplift", "saliency"}
    assert figure.axes[0].get_ylabel() == "readout (logit)"
    assert svg_bytes(figure) == svg_bytes(faithfulness_curves(table, unit="logit"))


def test_figures_of_nothing_are_refused():
    """Tables without the columns or without rows of a direction end in an error that names it."""
    with pytest.raises(DataError, match="ci_high"):
        faithfulness_curves(curves_of("ism").drop(columns="ci_high"))
    with pytest.raises(DataError, match="found none"):
        faithfulness_curves(curves_of("ism").assign(direction="sideways"))


def test_few_edges_are_told_in_words(editable: Made):
    """What uniform attention leaves, what a twentieth of the edges does, and who beats chance in how many models."""
    text = said(section_of(editable))
    assert "made uniform the model explains 0.400 of its prediction's variance (means over 3 trained models)" in text
    assert "5% of the edges kept, ranked by attention 0.730, attention × gradient 0.845 and random edges 0.430" in text
    assert "Better than random edges, over all shares: attention in 3 of 3 and attention × gradient in 3 of 3." in text
    for seed in (1, 2, 3):
        path = editable.root / f"attribution/seed{seed}/edges.tsv"
        table = read_tsv(path)
        table.loc[table["kept"] == 0, "explained"] = -0.25
        write_tsv(path, table, record(editable.run, "attribution"))
    assert "explains nothing (−0.250, worse than the mean) of its prediction's" in said(section_of(editable))
    for seed in (1, 2, 3):
        path = editable.root / f"attribution/seed{seed}/edges.tsv"
        write_tsv(path, read_tsv(path).assign(explained=np.nan, note="too long"), record(editable.run, "attribution"))
    assert "Not measured: too long." in said(section_of(editable))


def test_a_figure_of_edges_draws_three_rankings():
    """A line for each, at the shares of its table; a missing column is named."""
    kept = [0.0, 0.05, 1.0]
    table = pd.concat(
        pd.DataFrame({"ranking": name, "kept": kept, "explained": [low, 0.6, 1.0], "ci_low": 0.0, "ci_high": 1.0})
        for name, low in (("pattern", 0.1), ("gradient", 0.2), ("random", 0.3))
    )
    ax = edge_curves(table)
    assert [line.get_ydata()[0] for line in ax.lines[:3]] == [0.1, 0.2, 0.3]
    assert ax.lines[0].get_xdata().tolist() == [0.0, 5.0, 100.0]
    with pytest.raises(DataError, match="ci_low"):
        edge_curves(table.drop(columns="ci_low"))
