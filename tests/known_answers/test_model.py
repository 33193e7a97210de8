"""The sequence model: padding, batch mates, strands and taps do not change what they must not change."""

import numpy as np
import pytest
import torch

from bioattn.config import ModelConfig, StemConfig
from bioattn.data import alphabet
from bioattn.data.motif import Motif
from bioattn.errors import ConfigError, DataError
from bioattn.models import build_model, load_model, reverse_complement, save_model
from bioattn.nn import taps
from bioattn.nn.readouts import pooling
from bioattn.tokens import nucleotide

MOTIFS = [Motif("GATAAGC", "M1", np.full((4, 7), 0.02) + 0.92 * np.eye(4)[[2, 0, 3, 0, 0, 2, 1]].T)]
STEMS = {
    "none": StemConfig(kind="none", pool=1),
    "conv": StemConfig(kind="conv", n_filters=5, width=7, pool=3),
    "gelu": StemConfig(kind="conv", n_filters=5, width=7, pool=3, activation="gelu"),
    "pwm": StemConfig(kind="pwm", n_filters=3, width=5, pool=4),
}
POSITIONS = ["none", "sinusoidal", "learned", "rope", "relative"]


def make_model(stem: str = "conv", seed: int = 0, **more) -> torch.nn.Module:
    """Model in float64 with random relative biases, so that no position is neutral."""
    settings = {"d_model": 12, "n_layers": 2, "n_heads": 3, "d_feedforward": 17, "dropout": 0.0} | more
    model = build_model(ModelConfig(stem=STEMS[stem], **settings), n_readouts=2, motifs=MOTIFS, seed=seed).double()
    for name, parameter in model.named_parameters():
        if "relative" in name:
            torch.nn.init.normal_(parameter, generator=torch.Generator().manual_seed(seed))
    return model.eval()


def sequences(*lengths: int, seed: int = 0) -> list[str]:
    generator = np.random.default_rng(seed)
    return ["".join(generator.choice(list("ACGT"), n)) for n in lengths]


@pytest.mark.parametrize("stem", list(STEMS))
@pytest.mark.parametrize(
    ("positions", "pooling"), [*((p, "mean") for p in POSITIONS), ("rope", "sum"), ("rope", "attention")]
)
def test_padding_and_batch_mates_change_nothing(stem: str, positions: str, pooling: str):
    """A sequence alone equals the same sequence beside longer ones, for every stem, position and pooling."""
    model = make_model(stem, positions=positions, pooling=pooling)
    texts = sequences(23, 41, 12)
    together = model(nucleotide.encode(texts))
    for row, text in zip(together, texts, strict=True):
        torch.testing.assert_close(model(nucleotide.encode([text]))[0], row, rtol=1e-10, atol=1e-11)


@pytest.mark.parametrize("defence", ["keys masked", "rows zeroed"])
def test_both_defences_against_padding_are_needed(defence: str, monkeypatch: pytest.MonkeyPatch):
    """With padded keys unmasked, or padded rows left as they are, the length of the padding shows in the readout."""
    from bioattn.nn import blocks, encoder, readouts

    model = make_model("conv", positions="rope", pooling="sum")
    if defence == "keys masked":
        monkeypatch.setattr(blocks.MultiHeadAttention, "forward", _without_mask(blocks.MultiHeadAttention.forward))
    else:
        for module in (blocks, encoder):
            monkeypatch.setattr(module, "zero_padding", lambda x, keep: x)
        monkeypatch.setattr(readouts.SumPooling, "forward", lambda self, x, *, keep=None: x.sum(1))
    short = nucleotide.encode(sequences(23))
    padded = torch.nn.functional.pad(short, (0, 18), value=alphabet.PAD)
    assert not torch.allclose(model(short), model(padded), rtol=1e-6, atol=1e-6)


def _without_mask(forward):
    return lambda self, x, *, keep=None: forward(self, x)


def test_readout_of_both_strands_is_the_same_when_averaged():
    """With strand averaging a sequence and its reverse complement have one readout; without, they do not."""
    tokens = nucleotide.encode(sequences(23, 31))
    averaged, single = (make_model("conv", reverse_complement=kind) for kind in ("average", "none"))
    torch.testing.assert_close(averaged(tokens), averaged(reverse_complement(tokens)), rtol=1e-10, atol=1e-11)
    assert not torch.allclose(single(tokens), single(reverse_complement(tokens)), atol=1e-6)


def test_reverse_complement_of_padded_tokens_is_that_of_the_text():
    """Padding stays on the right; twice gives the original."""
    texts = [*sequences(9, 4), "ACNNT"]
    tokens = nucleotide.encode(texts)
    assert nucleotide.decode(reverse_complement(tokens)) == [alphabet.reverse_complement(t) for t in texts]
    assert torch.equal(reverse_complement(reverse_complement(tokens)), tokens)


def test_pwm_stem_sees_a_site_on_either_strand():
    """The motif feature is one for the best site, the same on both strands, and zero for a poor one."""
    model = make_model("pwm").float()
    x = torch.from_numpy(alphabet.one_hot(alphabet.encode_batch(["CCCCGATAAGCC", "TTGCTTATCTTT", "CCCCCCCCCCCC"])))
    feature = model.stem._motif_features(x).amax((1, 2))
    torch.testing.assert_close(feature, torch.tensor([1.0, 1.0, 0.0]))


def test_saving_and_loading_gives_the_same_model(tmp_path):
    """Weights, architecture and the readout scale survive; nothing on disk is a pickle."""
    model = make_model("pwm").float()
    model.set_readout_scale(torch.tensor([3.0, -1.0]), torch.tensor([2.0, 0.5]))
    config = ModelConfig(stem=STEMS["pwm"], d_model=12, n_layers=2, n_heads=3, d_feedforward=17, dropout=0.0)
    save_model(tmp_path / "m", model, config=config, motifs=MOTIFS, record={"seed": 7})
    again, record = load_model(tmp_path / "m")
    tokens = nucleotide.encode(sequences(23))
    assert torch.equal(again(tokens), model(tokens)) and record["seed"] == 7
    assert sorted(p.name for p in (tmp_path / "m").iterdir()) == ["model.json", "weights.safetensors"]


def test_half_a_model_is_refused(tmp_path):
    """A weights file that was cut short is named, not loaded."""
    model = make_model("conv").float()
    config = ModelConfig(stem=STEMS["conv"], d_model=12, n_layers=2, n_heads=3, d_feedforward=17)
    save_model(tmp_path, model, config=config, motifs=[], record={})
    weights = tmp_path / "weights.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    with pytest.raises(DataError, match="not a whole model"):
        load_model(tmp_path)


def test_taps_read_and_replace_without_changing_the_model():
    """Replacing with the recorded value changes nothing, with zeros something; afterwards all is as before."""
    model = make_model("conv")
    tokens = nucleotide.encode(sequences(23, 31))
    plain = model(tokens)
    name = "layer.1.attn.head_output"
    with taps.record(model, [name]) as store:
        model(tokens)
    with taps.edit(model, {name: lambda x: store[name]}):
        torch.testing.assert_close(model(tokens), plain)
    with taps.edit(model, {name: torch.zeros_like}):
        assert not torch.allclose(model(tokens), plain)
    torch.testing.assert_close(model(tokens), plain, rtol=0, atol=0)


def test_unknown_pooling_lists_the_known_ones():
    """The name that was given and the allowed ones are in the message."""
    with pytest.raises(ConfigError, match="'max' is not a kind of pooling; allowed: mean, sum, attention"):
        pooling("max", 8)


def test_unknown_tap_lists_near_names():
    """A wrong tap name is answered with the right ones."""
    near = r"near names: .*layer\.0\.attn\.pattern"
    with pytest.raises(DataError, match=near), taps.record(make_model(), ["layer.0.attn.paterns"]):
        pass
