"""Columns of the table of head motifs, and what each means."""

from bioattn.config import ENRICHED_Q

#: Sites of a motif act on the readout through its head at this false discovery rate.
CAUSAL_Q = 0.05

_ENDS = {"_ci_low": "lower", "_ci_high": "upper"}


def _with_ends(name: str, definition: str, over: str) -> dict[str, str]:
    """A column, and those of its 95 % bootstrap interval over sequences, backgrounds or sites."""
    ends = {f"{name}{end}": f"{which} end of its 95 % interval over {over}" for end, which in _ENDS.items()}
    return {name: definition} | ends


#: Column to definition, in their order. All tests are on held-out sequences.
COLUMNS: dict[str, str] = {
    "layer": "layer of the head, from 0",
    "head": "head within the layer, from 0",
    "motif": "number of the motif within its head, the most enriched is 0; -1 in the row of a head without one",
    "verdict": (
        f"motif: one is enriched (q < {ENRICHED_Q:g}) and the head is worth more than heads of random models "
        "(p_random <= 0.05); weak: enriched, but heads of random models are worth as much; "
        "redundant: worth as little, but another head has the same pattern and without that one it is worth more; "
        "positional: more than half of what varies in what it receives is place; "
        "diffuse: none of these; dead: without it neither the loss rises nor the score falls"
    ),
    "evidence": (
        "of the motif. causal in model: replacing its sites in held-out sequences changes the readout through this "
        f"head alone, more than replacing other places does (through_head_q_value < {CAUSAL_Q:g}); correlated: read, "
        "without that; not tested: fewer than 10 sites, or tokens that move. About the model, not yet about the cell"
    ),
    "track": "where the seqlets come from: attention received, or attention times its gradient (its size)",
    "n_seqlets": "peaks of the track in the discovery sequences that count as seqlets",
    "seqlet_fdr": "share of the seqlets that is expected from shuffled sequences too",
    "n_sites": "seqlets, of the highest, that hold the motif",
    "consensus": "most probable letter of each column",
    "information_bits": "information of the matrix against equal letters, in bits",
    "enrichment_log2": (
        "log2 odds ratio of the motif, the weaker of two: seqlets against other places of the same sequences, and "
        "sequences with such a seqlet against shuffled sequences"
    ),
    "p_value": "Fisher's exact test of that comparison, one-sided",
    "q_value": "the same, adjusted over all motifs that were tested in any head (Benjamini-Hochberg)",
    "matches": (
        "library motifs within the q-value range, the best of each family, with the number of further members; "
        "several entries: the name is ambiguous"
    ),
    "reader_consensus": "most probable letters around the tokens that read the motif; empty if nothing in particular",
    "reader_p_value": "Fisher's exact test of that, in readers it was not found in",
    "distance_bp": "median distance from reader to motif, weighted by attention; negative: the motif lies to the left",
    "distance_iqr_bp": "interquartile range of that distance",
    **_with_ends("ablation_loss", "rise of the loss when the head's output becomes its mean", "sequences"),
    **_with_ends("ablation_drop", "fall of AUROC or Pearson r when the head's output becomes its mean", "sequences"),
    **_with_ends("ablation_effect", "root mean square change of the readout by the same", "sequences"),
    "p_random": "share of heads of models with random weights that cost as much loss or more, one added to both counts",
    **_with_ends("motif_response", "change of the readout when the consensus is put into shuffles", "backgrounds"),
    **_with_ends("motif_response_lost", "share of that change that is gone without the head", "backgrounds"),
    "motif_response_lost_others": "mean of that share for up to three other heads, drawn at random",
    **_with_ends("through_head", "change of the readout that the motif's sites make through this head alone", "sites"),
    "through_head_p_value": "Wilcoxon's signed rank test: its size at sites against other places, one-sided",
    "through_head_q_value": "the same, adjusted over all enriched motifs (Benjamini-Hochberg)",
    "positional_share": "share of the variance of attention received that place explains, as it does in shuffles",
    "similar_head": "the other head whose pattern is most alike",
    "similarity": "part of their attention that both give to the same keys, 0 to 1",
    "logo": "logo of the matrix, beside this table",
    "cwm_logo": "logo of contributions: how much each letter raises or lowers the readout at the motif's sites",
    "reader_logo": "logo of what stands around the readers",
    "note": "why something is missing",
}
