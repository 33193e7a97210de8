"""The sequence model: padding, batch mates, strands and taps do not change what they must not change."""

import json

import numpy as np
import pandas as pd
import pytest
import torch
from toy_attention import BACKENDS, draw, randomised, real_tokens, small_blocks, toy_encoder
from toy_tokens import BPE, related

from bioattn.causal.motif_ablation import knock_out
from bioattn.config import MaskConfig, ModelConfig, StemConfig, TokenizerConfig
from bioattn.data import alphabet
from bioattn.data.motif import Motif
from bioattn.errors import ConfigError, DataError
from bioattn.explain.coattention import pair_attention
from bioattn.explain.hits import pair_instances
from bioattn.explain.pairs import Geometry
from bioattn.models import build_mask, build_model, load_model, reverse_complement, save_model
from bioattn.nn import taps
from bioattn.nn.blocks import Block
from bioattn.nn.embedding import TokenEmbedding
from bioattn.nn.readouts import pooling
from bioattn.tokens import nucleotide
from bioattn.tokens.base import MASK_ID, PAD_ID, UNKNOWN_ID

MOTIFS = [Motif("GATAAGC", "M1", np.full((4, 7), 0.02) + 0.92 * np.eye(4)[[2, 0, 3, 0, 0, 2, 1]].T)]
STEMS = {
    "none": StemConfig(kind="none", pool=1),
    "conv": StemConfig(kind="conv", n_filters=5, width=7, pool=3),
    "gelu": StemConfig(kind="conv", n_filters=5, width=7, pool=3, activation="gelu"),
    "pwm": StemConfig(kind="pwm", n_filters=3, width=5, pool=4),
}
WORDS = {
    "3-mers": TokenizerConfig(kind="kmer", k=3, stride=3),
    "4-mers, stride 1": TokenizerConfig(kind="kmer", k=4, stride=1),
    "4-mers, stride 3": TokenizerConfig(kind="kmer", k=4, stride=3),
    "bpe": TokenizerConfig(kind="bpe", vocabulary=40),
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


def word_config(words: str, **more) -> ModelConfig:
    """Configuration of a small model that looks words up."""
    settings = {"d_model": 12, "n_layers": 2, "n_heads": 3, "d_feedforward": 17, "dropout": 0.0} | more
    return ModelConfig(tokenizer=WORDS[words], stem=STEMS["none"], **settings)


def word_model(words: str, seed: int = 0, **more) -> torch.nn.Module:
    """Model of `word_config` in float64, in evaluation mode, in which no parameter is neutral."""
    learned = BPE if words == "bpe" else None
    return randomised(build_model(word_config(words, **more), n_readouts=2, tokenizer=learned), seed).eval()


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
    return lambda self, x, *, keep=None, bias=None: forward(self, x, bias=bias)


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


def test_pwm_stem_can_tell_strands_apart():
    """A feature for each strand: turning the site round swaps them, and the better one is what merged strands give."""
    config = STEMS["pwm"].model_copy(update={"motif_strands": "separate"})
    models = [
        build_model(
            ModelConfig(stem=stem, d_model=12, n_layers=1, n_heads=3, d_feedforward=17), n_readouts=1, motifs=MOTIFS
        )
        for stem in (config, STEMS["pwm"])
    ]
    site = alphabet.encode(MOTIFS[0].consensus)
    codes = np.zeros((2, 40), dtype=int)
    codes[0, 12 : 12 + len(site)], codes[1, 12 : 12 + len(site)] = site, 3 - site[::-1]
    x = torch.from_numpy(alphabet.one_hot(codes.astype(np.uint8)))
    apart, merged = (model.stem._motif_features(x).amax(-1).detach() for model in models)
    n = len(MOTIFS)
    assert apart.shape == (2, 2 * n) and apart[0, 0] == pytest.approx(1, abs=0.01) and apart[0, n] < 0.5
    assert apart[1, n] == pytest.approx(1, abs=0.01) and apart[1, 0] < 0.5
    torch.testing.assert_close(apart.unflatten(1, (2, n)).amax(1), merged)
    assert models[0].stem.project.in_features == models[1].stem.project.in_features + n


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


def test_a_model_of_another_kind_is_refused(tmp_path):
    """A model of other letters, of weights for other letters or words, or without a description, is named with why."""
    config = ModelConfig(stem=STEMS["conv"], d_model=12, n_layers=2, n_heads=3, d_feedforward=17)
    model = make_model("conv").float()
    save_model(tmp_path, model, config=config, motifs=[], record={})
    file = tmp_path / "model.json"
    whole = json.loads(file.read_text())
    architecture = whole["architecture"]
    for changed, message in (
        (architecture | {"letters": "ACDEFGHIKLMNPQRSTVWY"}, "reads the letters 'ACDEFGHIKLMNPQRSTVWY', not 'ACGT'"),
        (architecture | {"model": architecture["model"] | {"n_head": 3}}, "describes no model that can be built"),
        ({"n_readouts": 1}, "KeyError: 'model'"),
        (architecture | {"n_readouts": 7}, "does not belong to model.json and tokenizer.json beside it: size mismatch"),
    ):
        file.write_text(json.dumps(whole | {"architecture": changed}))
        with pytest.raises(DataError, match=message):
            load_model(tmp_path)
    file.write_text(json.dumps({"seed": 1}))
    with pytest.raises(DataError, match="KeyError: 'architecture'"):
        load_model(tmp_path)


def test_a_tokenizer_of_another_model_is_refused(tmp_path):
    """Words that are not those that the weights were trained with are named, not looked up in them."""
    save_model(tmp_path, word_model("bpe"), config=word_config("bpe"), motifs=[], record={})
    file = tmp_path / "tokenizer.json"
    words = json.loads(file.read_text())
    words["words"] = words["words"][:-1]
    words["merges"] = [pair for pair in words["merges"] if "".join(pair) in words["words"]]
    file.write_text(json.dumps(words))
    with pytest.raises(DataError, match="does not belong to model.json and tokenizer.json"):
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


# --------------------------------------------------------------------- words


@pytest.mark.parametrize("words", list(WORDS))
@pytest.mark.parametrize(
    ("positions", "pooling"), [*((p, "mean") for p in POSITIONS), *(("rope", p) for p in ("sum", "attention", "cls"))]
)
def test_padding_and_batch_mates_change_nothing_for_words(words: str, positions: str, pooling: str):
    """A sequence alone equals the same sequence beside longer ones and padded, for every way to find words."""
    model = word_model(words, positions=positions, pooling=pooling)
    texts = [*sequences(23, 41, 12), "ACGNNTATAATC", "A"]
    together = model(torch.nn.functional.pad(nucleotide.encode(texts), (0, 7), value=alphabet.PAD))
    for row, text in zip(together, texts, strict=True):
        torch.testing.assert_close(model(nucleotide.encode([text]))[0], row, rtol=1e-10, atol=1e-11)


@pytest.mark.parametrize("words", list(WORDS))
def test_words_are_looked_up(words: str):
    """The stream before the first layer holds the vector of each token; padding none."""
    model = word_model(words, positions="none")
    codes = nucleotide.encode(["ACGNNTATAATC", "ACGTA"])
    ids = model.tokenizer.encode(codes).ids
    with taps.record(model, ["embed"]) as store:
        model(codes)
    expected = model.stem.table.weight[ids] * (ids != PAD_ID)[..., None]
    assert torch.equal(store["embed"], expected) and (ids == UNKNOWN_ID).any()
    assert torch.equal(model.real_tokens(codes), ids != PAD_ID)


@pytest.mark.parametrize("words", list(WORDS))
def test_words_of_both_strands_are_averaged(words: str):
    """With strand averaging a sequence and its reverse complement, which has words of its own, have one readout."""
    codes = nucleotide.encode([*related(2), "ACNGT"])
    averaged, single = (word_model(words, reverse_complement=kind) for kind in ("average", "none"))
    torch.testing.assert_close(averaged(codes), averaged(reverse_complement(codes)), rtol=1e-10, atol=1e-11)
    assert not torch.allclose(single(codes), single(reverse_complement(codes)), atol=1e-6)


@pytest.mark.parametrize("words", list(WORDS))
def test_saving_and_loading_a_model_with_words(words: str, tmp_path):
    """The tokenizer comes back with the weights: readouts are the same to the last bit."""
    model, config = word_model(words).float(), word_config(words)
    save_model(tmp_path / "m", model, config=config, motifs=[], record={"seed": 7})
    again, _record = load_model(tmp_path / "m")
    codes = nucleotide.encode([*related(5), "ACGNNTA"])
    assert torch.equal(again(codes), model(codes))
    files = ["model.json", *(["tokenizer.json"] if words == "bpe" else []), "weights.safetensors"]
    assert sorted(p.name for p in (tmp_path / "m").iterdir()) == files


def test_model_without_its_tokenizer_is_refused(tmp_path):
    """A missing, broken or foreign tokenizer file is named."""
    save_model(tmp_path, word_model("bpe"), config=word_config("bpe"), motifs=[], record={})
    file = tmp_path / "tokenizer.json"
    for text, message in (
        (None, "no such file: a model with a learned tokenizer has one"),
        ("{", "train the model again"),
        ("[1]", "not the description of a tokenizer"),
        ('{"kind": "nucleotide"}', "of another kind than 'bpe'"),
    ):
        file.unlink()
        if text is not None:
            file.write_text(text)
        with pytest.raises(DataError, match=message):
            load_model(tmp_path)
        file.touch()


def test_a_learned_tokenizer_is_needed_exactly_for_bpe():
    """A model of kind bpe is not built without the tokenizer, and no other with one."""
    with pytest.raises(ConfigError, match="learned from the training sequences: see bioattn.tokens.bpe.train_bpe"):
        build_model(word_config("bpe"), n_readouts=1)
    with pytest.raises(ConfigError, match="for model.tokenizer.kind 'bpe' only, got kind 'kmer'"):
        build_model(word_config("3-mers"), n_readouts=1, tokenizer=BPE)


def test_a_stem_draws_the_weights_it_always_drew():
    """A model without words is what it was before there were any: its weights follow from the seed alone."""
    model = build_model(ModelConfig(stem=STEMS["none"], d_model=12, n_heads=3), n_readouts=2, seed=5)
    with torch.random.fork_rng():
        torch.manual_seed(5)
        assert torch.equal(model.stem.project.weight, torch.nn.Linear(4, 12).weight)
    assert model.tokenizer is None


@pytest.mark.parametrize("stem", ["none", "conv", "pwm", *WORDS])
def test_spans_of_tokens(stem: str):
    """Spans are those of the tokenizer, or of the stem's pooling cut at the end of the sequence; padding has none."""
    model = make_model(stem) if stem in STEMS else word_model(stem)
    texts = [*sequences(23, 41, 12), "ACGNNTATAATC"]
    codes = nucleotide.encode(texts)
    start, end = model.token_spans(codes)
    real = model.real_tokens(codes)
    assert start.shape == end.shape == real.shape == model.embed(codes)[0].shape[:2]
    for i, text in enumerate(texts):
        covered = sorted({b for s, e in zip(start[i].tolist(), end[i].tolist(), strict=True) for b in range(s, e)})
        assert covered == list(range(len(text)))
        assert torch.equal(end[i] > start[i], real[i]) and not start[i][~real[i]].any()
        if stem in (*STEMS, "3-mers"):
            bases = torch.arange(real.shape[1])[real[i]] * model.token_bp
            assert torch.equal(start[i][real[i]], bases)
            assert torch.equal(end[i][real[i]], (bases + model.token_bp).clamp(max=len(text)))


def test_geometry_of_words():
    """What tiles says how many bases a token has; what does not says what cannot be done, and never gives a number."""
    assert word_model("3-mers").token_bp == 3
    for words in ("4-mers, stride 1", "4-mers, stride 3", "bpe"):
        with pytest.raises(DataError, match="do not tile .* motif pairs cannot be tested"):
            _ = word_model(words).token_bp
    for words in ("3-mers", "4-mers, stride 1"):
        assert word_model(words).receptive_field_bp == 1
    with pytest.raises(DataError, match="a changed base may move where other tokens begin"):
        _ = word_model("bpe").receptive_field_bp
    for words in WORDS:
        codes = nucleotide.encode(sequences(12))
        with pytest.raises(DataError, match="no gradient with respect to bases: use mutagenesis"):
            word_model(words).embed_one_hot(torch.zeros(1, 4, 12), codes != alphabet.PAD)


def test_pairs_are_tested_in_tokens_that_tile_or_not_at_all():
    """Co-attention and knock-outs read k-mers that tile as they are, and refuse other words before they do anything."""
    codes = alphabet.encode_batch(sequences(60, 60, 60))
    hits = pd.DataFrame(
        {"sequence": [0, 0, 1, 1], "motif": [0, 1] * 2, "start": [3, 30, 8, 45], "end": [9, 36, 14, 52]}
    ).assign(copy=0)
    instances = pair_instances(hits, margin_bp=2, token_bp=3)
    arguments = {"occupied": hits, "flank_bp": 2, "draws": 1, "readout": 1, "seed": 0}
    pwms = [np.full((4, 6), -1.0)] * 2
    model = word_model("3-mers", positions="relative")
    assert Geometry.of(model) == (1, 3) and len(instances) == 2
    tokens = torch.from_numpy(codes).long()
    with torch.no_grad(), taps.record(model, ["layer.1.attn.pattern"]) as store:
        readouts = model(tokens)
    found = pair_attention(model, codes, hits, instances)
    pattern = store["layer.1.attn.pattern"][0, 2, 1:3, 10:12].max()
    assert found[0, 3 + 2, 0] == pytest.approx(float(pattern), rel=1e-5)
    cells = knock_out(model, codes, hits, instances, pwms, **arguments)
    np.testing.assert_allclose(cells["y11"], readouts.numpy()[[0, 1], 1], rtol=1e-6)
    for words in ("4-mers, stride 1", "bpe"):
        other = word_model(words)
        for call in (
            lambda other=other: Geometry.of(other),
            lambda other=other: pair_attention(other, codes, hits, instances),
            lambda other=other: knock_out(other, codes, hits, instances, pwms, **arguments),
        ):
            with pytest.raises(DataError, match="use model.tokenizer.kind 'nucleotide'"):
                call()


@pytest.mark.parametrize("words", ["3-mers", "4-mers, stride 1"])
def test_a_changed_base_changes_the_tokens_over_it_alone(words: str):
    """The receptive field of k-mers is one base: of a substitution, only tokens whose span holds it see anything."""
    model = word_model(words, positions="none")
    codes = nucleotide.encode(sequences(23))
    start, end = model.token_spans(codes)
    for position in range(23):
        changed = codes.clone()
        changed[0, position] = (codes[0, position] + 1) % 4
        differs = (model.embed(changed)[0] != model.embed(codes)[0]).any(-1)
        assert torch.equal(differs, (start <= position) & (position < end))


@pytest.mark.parametrize("words", list(WORDS))
def test_hidden_bases_hide_the_words_that_touch_them(words: str):
    """Words over a hidden base are one and the same hidden token, wherever they are; all others stay as they were."""
    model = word_model(words, positions="none")
    codes = nucleotide.encode([*related(2, seed=4), "ACGTA"])
    masked = torch.zeros_like(codes, dtype=torch.bool)
    masked[0, 5:8] = masked[1, 0] = masked[2, 4] = masked[2, 9] = True  # the last one is padding
    start, end = model.token_spans(codes)
    hit = torch.stack([
        torch.stack([masked[i, s:e].any() for s, e in zip(start[i], end[i], strict=True)]) for i in range(3)
    ])  # fmt: skip
    plain, keep = model.embed(codes)
    hidden, keep_hidden = model.embed(codes, masked)
    assert torch.equal(keep, keep_hidden) and 3 <= int(hit.sum()) < int(keep.sum())
    assert torch.equal(hidden[~hit], plain[~hit])
    assert (hidden[hit] == model.stem.table.weight[MASK_ID]).all()


@pytest.mark.parametrize("stem", ["none", "conv", "pwm"])
def test_hidden_bases_are_unknown_to_a_stem(stem: str):
    """What a stem sees of hidden bases is what it sees of unknown ones, and hidden padding stays padding."""
    model = make_model(stem)
    codes = nucleotide.encode(sequences(23, 12))
    masked = torch.zeros_like(codes, dtype=torch.bool)
    masked[0, 5:8] = masked[1, 0] = masked[1, 20] = True
    unknown = codes.clone()
    unknown[0, 5:8] = unknown[1, 0] = alphabet.UNKNOWN
    for ours, theirs in zip(model.embed(codes, masked), model.embed(unknown), strict=True):
        assert torch.equal(ours, theirs)
    assert not torch.equal(model.embed(codes, masked)[0], model.embed(codes)[0])


@pytest.mark.parametrize("words", list(WORDS))
def test_gradients_reach_the_words_that_occur(words: str):
    """The vectors of words that occur get a gradient, no others; padding gets none."""
    model = word_model(words)
    codes = nucleotide.encode(["ACGNNTATAATC", "ACGTA"])
    model(codes).square().sum().backward()
    touched = model.stem.table.weight.grad.abs().sum(1) > 0
    occur = model.tokenizer.encode(codes).ids.unique()
    assert touched.nonzero().flatten().tolist() == [i for i in occur.tolist() if i != PAD_ID]


@pytest.mark.parametrize("words", list(WORDS))
def test_words_can_be_learned_by_heart(words: str):
    """32 random sequences with random labels are learned to a loss below 0.05."""
    learned = BPE if words == "bpe" else None
    model = build_model(word_config(words, d_model=24), n_readouts=1, tokenizer=learned, seed=1)
    codes = nucleotide.encode(sequences(*([19, 23] * 16), seed=3))
    target = torch.from_numpy(np.random.default_rng(1).integers(0, 2, (32, 1))).float()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    for _ in range(60):
        loss = torch.nn.functional.binary_cross_entropy_with_logits(model(codes), target)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert float(loss.detach()) < 0.05


@pytest.mark.parametrize("words", list(WORDS))
def test_compiled_models_find_the_same_words(words: str):
    """A compiled model gives what the model gives: words are found in the sequence, not in a stand-in for it."""
    model = word_model(words)
    codes = nucleotide.encode([*related(3), "ACGNNTATAATC"])
    torch._dynamo.reset()
    torch.testing.assert_close(torch.compile(model, backend="eager")(codes), model(codes), rtol=1e-12, atol=1e-12)


def test_vectors_of_words_start_with_a_length_of_about_one():
    """At any width."""
    torch.manual_seed(0)
    for width in (8, 512):
        length = TokenEmbedding(500, width).table.weight.detach().norm(dim=1)
        assert float(length.mean()) == pytest.approx(1, abs=0.05)
