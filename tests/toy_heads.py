"""Models whose heads are set by hand, and sequences with planted sites, that the tests of head motifs share."""

import numpy as np
import torch

from bioattn.config import ExplainConfig, ModelConfig, StemConfig, TokenizerConfig
from bioattn.data import alphabet
from bioattn.data.motif import Motif
from bioattn.explain.tracks import Expectation, expectation, head_tracks, shuffled, token_places
from bioattn.io.motifs import jaspar_motif
from bioattn.models import SequenceModel, build_model
from bioattn.tokens import BpeTokenizer

USF1, HNF1A = jaspar_motif("MA0093.4"), jaspar_motif("MA0046.3")
EBOX = "CACGTG"
CONFIG = ExplainConfig(motifs_per_head=1)
#: The hand-made models have 2 layers of 3 heads. One reads its motif, one a place, the others everything alike.
READER, POSITIONAL = (1, 1), (0, 2)
#: Token (after the one that stands before the sequence) that the positional head reads.
READ_PLACE = 5
TOKEN_BP = 5


def random_codes(n: int, length: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 4, (n, length)).astype(np.uint8)


def with_sites(motif: Motif, n: int, length: int, seed: int, *, share: float = 1.0) -> np.ndarray:
    """Random sequences; a share of them gets one sampled site of the motif at a random place and strand."""
    draw = np.random.default_rng(seed)
    codes = random_codes(n, length, seed + 1000)
    for row in codes[: round(n * share)]:
        site = np.array([draw.choice(4, p=p) for p in motif.ppm.T], dtype=np.uint8)
        if draw.random() < 0.5:
            site = alphabet.reverse_complement_codes(site)
        start = draw.integers(0, length - len(site) + 1)
        row[start : start + len(site)] = site
    return codes


def with_ebox(n: int, length: int, seed: int) -> np.ndarray:
    """Random sequences, into each of which an E-box is planted at a random place."""
    draw = np.random.default_rng(seed)
    codes = random_codes(n, length, seed + 1000)
    for row in codes:
        start = draw.integers(0, length - len(EBOX) + 1)
        row[start : start + len(EBOX)] = alphabet.encode(EBOX)
    return codes


def some_codes(n: int = 5, longest: int = 29, seed: int = 0) -> np.ndarray:
    """Sequences of several lengths, with an unknown base."""
    draw = np.random.default_rng(seed)
    codes = draw.integers(0, 4, (n, longest)).astype(np.uint8)
    for i in range(1, n):
        codes[i, longest - 4 * i :] = alphabet.PAD
    codes[0, 7] = alphabet.UNKNOWN
    return codes


def padded(codes: np.ndarray, length: int, *, every: int = 2) -> np.ndarray:
    """The codes, of which every other sequence (or one in `every`) ends earlier."""
    codes = codes.copy()
    codes[::every, length:] = alphabet.PAD
    return codes


def expected_received(model: SequenceModel, codes: np.ndarray, seed: int = 0) -> Expectation:
    """What place and composition make of the attention that tokens of shuffled sequences receive."""
    null = shuffled(codes, seed, "tracks", "shuffle")
    return expectation(head_tracks(model, null, gradients=False).received, null, token_places(model, null))


def _silent(model: SequenceModel) -> None:
    """Blocks that add nothing to the stream, whose heads read everything alike."""
    for block in model.encoder.layer:
        for part in (block.attn.project_in, block.attn.project_out, block.feedforward.narrow):
            part.weight.zero_()
            part.bias.zero_()


def reading_model(motif: Motif, *, pooling: str = "cls", reverse_complement: str = "none") -> SequenceModel:
    """Model whose head `READER` attends to tokens in proportion to their motif feature, and `POSITIONAL` to a place.

    The first channel is the readout's. Only `READER` writes to it: how much motif it has read.
    """
    config = ModelConfig(
        stem=StemConfig(kind="pwm", n_filters=1, width=1, pool=TOKEN_BP), positions="learned", pooling=pooling,
        d_model=6, n_layers=2, n_heads=3, d_feedforward=5, dropout=0.0, reverse_complement=reverse_complement,
    )  # fmt: skip
    model = build_model(config, n_readouts=1, motifs=[motif], seed=0).eval()
    with torch.no_grad():
        _silent(model)
        stem = model.stem
        stem.project.weight.zero_()
        # After normalisation a token with the motif is (+, -, ...) and one without (-, +, ...).
        stem.project.weight[:, 0] = torch.tensor([4.0, -4.0, 0, 0, 0, 0])
        stem.project.bias.copy_(torch.tensor([-1.0, 1.0, 0, 0, 0, 0]))
        model.encoder.positions.table.zero_()
        model.encoder.positions.table[READ_PLACE + model.n_prefix] = torch.tensor([0, 0, 0, 0, 0.2, -0.2])
        if model.prefix is not None:
            model.prefix.copy_(torch.tensor([-1.0, 1.0, 0, 0, 0, 0]))
        _read(model, *READER, channel=0)
        _read(model, *POSITIONAL, channel=4, strength=6.0)
        layer, head = READER
        attn = model.encoder.layer[layer].attn
        attn.project_in.weight[12 + 2 * head, 0] = 1.0
        attn.project_out.weight[0, 2 * head] = 1.0
        model.readout.weight.copy_(torch.tensor([[1.0, 0, 0, 0, 0, 0]]))
    return model


def _read(model: SequenceModel, layer: int, head: int, *, channel: int, strength: float = 1.0) -> None:
    """Let a head read tokens by how much of a channel they have."""
    attn, width = model.encoder.layer[layer].attn, model.encoder.norm.normalized_shape[0]
    size = width // model.n_heads
    attn.project_in.bias[size * head] = 4.0
    attn.project_in.weight[width + size * head, channel] = strength


#: Words of a tokenizer in which the E-box is a word; its parts and a few others too.
EBOX_WORDS = BpeTokenizer(
    ["A", "C", "G", "T", "CG", "CA", "TG", "CACG", EBOX, "TT", "GG"],
    [("C", "G"), ("C", "A"), ("T", "G"), ("CA", "CG"), ("CACG", "TG"), ("T", "T"), ("G", "G")],
    bases_per_token=1.3,
    fewest_bases_per_token=1.0,
)
WORDS = {
    "overlapping": TokenizerConfig(kind="kmer", k=6, stride=1),
    "tiling": TokenizerConfig(kind="kmer", k=3, stride=3),
    "bpe": TokenizerConfig(kind="bpe", vocabulary=16),
}


def word_model(words: str) -> SequenceModel:
    """Model whose only head attends to the tokens whose word holds the E-box, or a whole third of it."""
    config = ModelConfig(
        tokenizer=WORDS[words], stem=StemConfig(kind="none", pool=1),
        d_model=4, n_layers=1, n_heads=1, d_feedforward=4, positions="none", dropout=0.0,
    )  # fmt: skip
    model = build_model(config, n_readouts=1, tokenizer=EBOX_WORDS if words == "bpe" else None, seed=0).eval()
    read = ("CAC", "GTG") if words == "tiling" else (EBOX,)
    with torch.no_grad():
        table = model.stem.table.weight
        table.copy_(torch.tensor([-1.0, 1.0, 0.0, 0.0]))
        for i in range(model.tokenizer.n_tokens):
            if model.tokenizer.word(i) in read:
                table[i] = torch.tensor([3.0, -3.0, 0.0, 0.0])
        attn = model.encoder.layer[0].attn
        attn.project_in.weight[:8].zero_()
        attn.project_in.bias.zero_()
        _read(model, 0, 0, channel=0)
    return model
