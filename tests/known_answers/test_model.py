"""The sequence model: padding, batch mates, strands and taps do not change what they must not change."""

import numpy as np
import pytest
import torch
from toy_attention import BACKENDS, draw, real_tokens, small_blocks, toy_encoder

from bioattn.config import MaskConfig, ModelConfig, StemConfig
from bioattn.data import alphabet
from bioattn.data.motif import Motif
from bioattn.errors import ConfigError, DataError
from bioattn.models import build_mask, build_model, load_model, reverse_complement, save_model
from bioattn.nn import taps
from bioattn.nn.blocks import Block
from bioattn.nn.readouts import pooling
from bioattn.tokens import nucleotide

MOTIFS = [Motif("GATAAGC", "M1", np.full((4, 7), 0.02) + 0.92 * np.eye(4)[[2, 0, 3, 0, 0, 2, 1]].T)]
STEMS = {
    "none": StemConfig(kind="none", pool=1),
    "conv": StemConfig(kind="conv", n_filters=5, width=7, pool=3),
    "gelu": StemConfig(kind="conv", n_filters=5, width=7, pool=3, activation="gelu"),
    "pwm": StemConfig(kind="pwm", n_filters=3, width=5, pool=4),
}
POSITIONS = ["none", "sinusoidal", "learned", "rope", "relative", "alibi"]


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
    ("positions", "pooling"), [*((p, "mean") for p in POSITIONS), *(("rope", p) for p in ("sum", "attention", "cls"))]
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


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("positions", ["rope", "relative"])
def test_checkpointing_changes_neither_loss_nor_gradients(
    backend: str, positions: str, monkeypatch: pytest.MonkeyPatch
):
    """With dropout and padding, in training mode, loss and all gradients are the same to the last bit."""
    small_blocks(monkeypatch)
    results = []
    for checkpointing in (False, True):
        encoder = toy_encoder(
            backend, "window|dilated|global", positions=positions, dropout=0.3, checkpointing=checkpointing
        ).train()
        x = draw(2, 23, 12).requires_grad_()
        torch.manual_seed(7)
        loss = (encoder(x, keep=real_tokens(23, 11)) * draw(2, 23, 12, seed=1)).sum()
        loss.backward()
        results.append([loss.detach(), x.grad, *(p.grad for p in encoder.parameters())])
        torch.manual_seed(8)
        assert not torch.equal(encoder(x, keep=real_tokens(23, 11)), encoder(x, keep=real_tokens(23, 11)))  # dropout
    assert all(torch.equal(plain, again) for plain, again in zip(*results, strict=True))


def test_checkpointing_of_a_model_from_its_configuration():
    """The setting reaches the encoder: readouts and gradients of a sequence model are the same with it and without."""
    results = []
    for checkpointing in (False, True):
        model = make_model("conv", positions="relative", checkpointing=checkpointing, pooling="cls").train()
        assert model.encoder.checkpointing == checkpointing
        readout = model(nucleotide.encode(sequences(23, 41)))
        readout.square().sum().backward()
        results.append([readout.detach(), *(p.grad for p in model.parameters() if p.grad is not None)])
    assert all(torch.equal(plain, again) for plain, again in zip(*results, strict=True))


def test_checkpointing_runs_each_block_twice(monkeypatch: pytest.MonkeyPatch):
    """Once forward and once more for the gradient; only once where no gradient is wanted."""
    calls = []
    forward = Block.forward
    monkeypatch.setattr(Block, "forward", lambda self, x, **more: (calls.append(self), forward(self, x, **more))[1])
    encoder = toy_encoder("sdpa", n_layers=3, checkpointing=True)
    encoder(draw(2, 7, 12)).sum().backward()
    assert [calls.count(block) for block in encoder.layer] == [2, 2, 2]
    calls.clear()
    with torch.no_grad():
        encoder(draw(2, 7, 12))
    assert [calls.count(block) for block in encoder.layer] == [1, 1, 1]


def test_checkpointing_keeps_edits_and_recorded_activations():
    """Gradients taken after an edit or a recording was closed are those of the pass it was open in."""
    name = "layer.0.attn.query"
    results = []
    for checkpointing in (False, True):
        encoder = toy_encoder("sdpa", checkpointing=checkpointing)
        with (
            taps.edit(encoder, {name: taps.zero(np.s_[:, 1])}),
            taps.record(encoder, ["layer.1.attn.pattern"]) as store,
        ):
            loss = encoder(draw(2, 7, 12)).square().sum()
        results.append(torch.autograd.grad(loss, [*store.values(), *encoder.parameters()]))
    assert all(torch.equal(plain, again) for plain, again in zip(*results, strict=True))
    assert results[0][1].abs().sum() > 0


MASK_CONFIGS = {
    "window": (MaskConfig(window=2), lambda q, k: abs(q - k) <= 2),
    "causal": (MaskConfig(causal=True), lambda q, k: k <= q),
    "dilated": (MaskConfig(window=1, dilated_step=5, dilated_reach=2), lambda q, k: abs(q - k) in (0, 1, 5, 10)),
    "global": (MaskConfig(window=2, global_tokens=3), lambda q, k: abs(q - k) <= 2 or q < 3 or k < 3),
    "causal global": (
        MaskConfig(window=2, global_tokens=3, causal=True),
        lambda q, k: k <= q and (q - k <= 2 or q < 3 or k < 3),
    ),
}


@pytest.mark.parametrize("name", list(MASK_CONFIGS))
def test_mask_of_a_configuration(name: str):
    """Window, dilated and global tokens add up, causal takes away; a CLS token is one more global token."""
    config, allowed = MASK_CONFIGS[name]
    n = 17
    expected = torch.tensor([[allowed(q, k) for k in range(n)] for q in range(n)])
    assert torch.equal(build_mask(config).dense(n), expected)
    if config.sparse and not config.causal:
        with_cls = build_mask(config, n_prefix=1).dense(n + 1)
        assert with_cls[0].all() and with_cls[:, 0].all()
        first = config.global_tokens + 1
        assert torch.equal(with_cls[first:, first:], expected[first - 1 :, first - 1 :])


def test_no_mask_without_settings():
    """By default every token reads all, also with a CLS token; random blocks always hold their own."""
    assert build_mask(MaskConfig()) is None and build_mask(MaskConfig(), n_prefix=1) is None
    dense = build_mask(MaskConfig(random_blocks=2, block=3), max_length=31).dense(31)
    own = torch.arange(31) // 3
    assert dense[own[:, None] == own].all() and not dense.all()


@pytest.mark.parametrize("backend", BACKENDS)
def test_backends_give_one_model(backend: str):
    """The same weights give the same readouts with every backend, window, CLS token and both strands included."""
    more = {"mask": MaskConfig(window=2), "pooling": "cls", "reverse_complement": "average"}
    tokens = nucleotide.encode(sequences(23, 41, 4))
    ours, reference = (make_model("conv", backend=b, **more)(tokens) for b in (backend, "reference"))
    torch.testing.assert_close(ours, reference, rtol=1e-10, atol=1e-11)
    full = make_model("conv", pooling="cls", reverse_complement="average")(tokens)
    assert not torch.isclose(full, reference, atol=1e-6)[1].any()


def test_cls_token_stands_before_the_sequence():
    """Readouts come from the first token, which is learned; taps hold one more token than the sequence."""
    model = make_model("none", pooling="cls", n_layers=1)
    tokens = nucleotide.encode(sequences(23, 11))
    assert model.n_prefix == 1 and make_model("none").n_prefix == 0
    with taps.record(model, ["embed", "layer.0.resid", "layer.0.attn.pattern"]) as store:
        readout = model(tokens)
    assert store["embed"].shape == (2, 24, 12)
    assert torch.equal(store["embed"][:, 0], model.prefix.expand(2, -1))
    expected = model.readout(model.encoder.norm(store["layer.0.resid"][:, 0]))
    torch.testing.assert_close(readout, expected, rtol=1e-12, atol=1e-13)
    read = store["layer.0.attn.pattern"][:, :, 0] > 0
    assert torch.equal(read, real_tokens(24, 12)[:, None].expand(2, 3, 24))
    readout.sum().backward()
    assert model.prefix.grad.abs().sum() > 0


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
    with pytest.raises(ConfigError, match="'max' is not a kind of pooling; allowed: mean, sum, attention, cls"):
        pooling("max", 8)


def test_unknown_tap_lists_near_names():
    """A wrong tap name is answered with the right ones."""
    near = r"near names: .*layer\.0\.attn\.pattern"
    with pytest.raises(DataError, match=near), taps.record(make_model(), ["layer.0.attn.paterns"]):
        pass
