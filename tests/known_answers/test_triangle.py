"""Triangle attention and multiplication: every way to compute them against loops over the formulas."""

import math
import sys

import pytest
import torch
from torch import Tensor
from toy_attention import woken

from bioattn.errors import ConfigError, DataError
from bioattn.nn import taps
from bioattn.nn.pair import triangle
from bioattn.nn.pair.triangle import make_triangle_backend, triangle_pattern
from bioattn.nn.pair.updates import SharedDropout, TriangleAttention, TriangleMultiplication

B, H, C, N, P = 2, 3, 5, 7, 11
BACKENDS = ("chunked", "sdpa_exact")


def inputs(seed: int = 0, n: int = N, dtype: torch.dtype = torch.float64) -> list[Tensor]:
    """Query, key, value (B, I, H, J, C) and bias (B, H, J, K), all wanting gradients."""
    draw = torch.Generator().manual_seed(seed)
    shapes = [(B, n, H, n, C)] * 3 + [(B, H, n, n)]
    return [torch.randn(shape, generator=draw, dtype=dtype).requires_grad_() for shape in shapes]


def masks() -> dict[str, Tensor | None]:
    """No mask; one for all rows; one of its own for each row; and one with rows that may read nothing."""
    draw = torch.Generator().manual_seed(9)
    rows = torch.rand(B, N, N, generator=draw) < 0.6
    rows[:, torch.arange(N), torch.arange(N)] = True
    shared = torch.ones(B, 1, N, dtype=torch.bool)
    shared[1, 0, 4:] = False
    nothing = rows.clone()
    nothing[0, 2] = nothing[1, 5] = False
    return {"none": None, "shared": shared, "rows": rows, "nothing": nothing}


def by_loops(query: Tensor, key: Tensor, value: Tensor, bias: Tensor, keep: Tensor | None) -> Tensor:
    """Algorithm 13, one pair and head at a time."""
    result = torch.zeros_like(value)
    for b, i, h, j in torch.cartesian_prod(*(torch.arange(size) for size in query.shape[:4])).tolist():
        allowed = [k for k in range(query.shape[3]) if keep is None or keep[b, min(i, keep.shape[1] - 1), k]]
        if allowed:
            scores = torch.stack(
                [query[b, i, h, j] @ key[b, i, h, k] / math.sqrt(C) + bias[b, h, j, k] for k in allowed]
            )
            result[b, i, h, j] = torch.softmax(scores, 0) @ value[b, i, h, allowed]
    return result


@pytest.mark.parametrize("name", masks())
def test_the_reference_is_the_formula(name: str):
    """Values of the readable way equal the loops; rows without keys are zero."""
    keep = masks()[name]
    made = inputs()
    values = triangle.reference(*made, keep)
    torch.testing.assert_close(values, by_loops(*made, keep))
    assert values.isfinite().all() and (name == "nothing") == bool((values[0, 2] == 0).all())


@pytest.mark.parametrize("name", masks())
@pytest.mark.parametrize("backend", BACKENDS)
def test_all_backends_give_the_values_and_gradients_of_the_reference(
    backend: str, name: str, monkeypatch: pytest.MonkeyPatch
):
    """In float64, in chunks of two rows, with a random gradient; the bias has a gradient too."""
    monkeypatch.setattr(triangle, "MOST_SCORES", 2 * H * N * N)
    keep, made = masks()[name], inputs()
    weight = torch.randn(B, N, H, N, C, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    results = {}
    for kind in ("reference", backend):
        values = make_triangle_backend(kind)(*made, keep)
        results[kind] = [values, *torch.autograd.grad((values * weight).sum(), made)]
    for ours, theirs in zip(results[backend], results["reference"], strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-11)
    assert all(grad.abs().max() > 1e-3 for grad in results[backend][1:])


@pytest.mark.parametrize("name", ["none", "nothing"])
def test_gradients_are_those_of_finite_differences(name: str, monkeypatch: pytest.MonkeyPatch):
    """gradcheck in float64, rows one by one."""
    monkeypatch.setattr(triangle, "MOST_SCORES", 1)
    keep = masks()[name]
    small = [x[:1, :3, :2, :3, :2].detach().requires_grad_() for x in inputs()[:3]]
    small.append(inputs()[3][:1, :2, :3, :3].detach().requires_grad_())
    part = None if keep is None else keep[:1, :3, :3]
    assert torch.autograd.gradcheck(lambda *x: triangle.sdpa_exact(*x, part), small)


def test_single_precision_is_close():
    """float32 gradients within 1e-6 of the reference, relative to the largest."""
    made = inputs(n=23, dtype=torch.float32)
    exact = [x.detach().double().requires_grad_() for x in made]
    gradients = [
        torch.autograd.grad(make_triangle_backend(kind)(*given, None).square().sum(), given)
        for kind, given in (("reference", exact), ("sdpa_exact", made))
    ]
    for true, ours in zip(*gradients, strict=True):
        assert ((ours.double() - true).abs().max() / true.abs().max()) < 1e-6


def test_half_precision_keeps_its_type():
    """bfloat16 in, bfloat16 out, and gradients of that type."""
    made = [x.detach().bfloat16().requires_grad_() for x in inputs()]
    values = triangle.sdpa_exact(*made, masks()["rows"])
    assert values.dtype == torch.bfloat16
    values.sum().backward()
    assert all(x.grad.dtype == torch.bfloat16 and x.grad.isfinite().all() for x in made)
    torch.testing.assert_close(
        values.double(), by_loops(*(x.double() for x in made), masks()["rows"]), atol=0.05, rtol=0.05
    )


def test_chosen_rows_and_heads_are_exact():
    """Pattern rows by themselves are those of the whole pattern; their values are what the reference reads."""
    query, key, value, bias = inputs()
    keep = masks()["rows"]
    whole = triangle_pattern(query, key, bias, keep=keep)
    rows, heads = torch.tensor([1, 5]), torch.tensor([2])
    some = triangle_pattern(query[:, rows][:, :, heads], key[:, rows][:, :, heads], bias[:, heads], keep=keep[:, rows])
    torch.testing.assert_close(some, whole[:, rows][:, :, heads])
    torch.testing.assert_close(whole @ value, triangle.reference(query, key, value, bias, keep))


@pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")
def test_flex_gives_the_values_and_says_that_it_cannot_train_on_a_cpu():
    """Forward on a CPU; a gradient there is refused by name."""
    made, keep = inputs(), masks()["nothing"]
    with torch.no_grad():
        got = make_triangle_backend("flex")(*(x.float() for x in made), keep)
    torch.testing.assert_close(got.double(), triangle.reference(*made, keep), atol=1e-5, rtol=1e-4)
    with pytest.raises(ConfigError, match="'flex' of triangle attention has no gradient on a CPU"):
        make_triangle_backend("flex")(*made, keep)


def test_packages_for_gpus_are_imported_when_they_are_asked_for(monkeypatch: pytest.MonkeyPatch):
    """Without them the message names the package; with them masks have the polarity that each wants."""
    for name, package in (("cuequivariance", "cuequivariance-torch"), ("trifast", "trifast")):
        with pytest.raises(ConfigError, match=f"pip install '{package}'"):
            make_triangle_backend(name)
    made, keep = inputs(), masks()["nothing"]
    seen = {}

    class Valid:
        @staticmethod
        def triangle_attention(q: Tensor, k: Tensor, v: Tensor, bias: Tensor, mask: Tensor, scale: float) -> Tensor:
            seen["cuequivariance"] = (bias.shape, mask.shape)
            scores = (q @ k.transpose(-2, -1) * scale + bias).masked_fill(~mask, -1e9)
            return torch.softmax(scores, -1) @ v

    class Masked:
        @staticmethod
        def triangle_attention(q: Tensor, k: Tensor, v: Tensor, bias: Tensor, mask: Tensor) -> Tensor:
            seen["trifast"] = (q.shape, mask.shape)
            scores = q @ k.transpose(-2, -1) / math.sqrt(q.shape[-1]) + bias[:, :, None]
            return torch.softmax(scores.masked_fill(mask[:, None, :, None], -1e9), -1) @ v

    monkeypatch.setitem(sys.modules, "cuequivariance_torch", Valid)
    monkeypatch.setitem(sys.modules, "trifast", Masked)
    for name in ("cuequivariance", "trifast"):
        for mask in (None, keep):
            got = make_triangle_backend(name)(
                *made, keep if mask is not None else torch.ones(B, 1, N, dtype=torch.bool)
            )
            torch.testing.assert_close(got, triangle.reference(*made, mask))
    assert seen == {"cuequivariance": ((B, 1, H, N, N), (B, N, 1, 1, N)), "trifast": ((B, H, N, N, C), (B, N, N))}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda q, k, v, b, m: (q[0], k, v, b, m), "must have the axes"),
        (lambda q, k, v, b, m: (q, k, v, b[:, :, :-1], m), "bias must have shape"),
        (lambda q, k, v, b, m: (q, k, v, b, m.float()), "keep must be boolean"),
        (lambda q, k, v, b, m: (q, k, v, b, m[:, :3]), "keep must have shape"),
    ],
)
def test_shapes_that_do_not_fit_are_named(change, message: str):
    """What is allowed and what was found."""
    with pytest.raises(DataError, match=message):
        triangle.sdpa_exact(*change(*inputs(), masks()["rows"]))
    with pytest.raises(ConfigError, match="allowed: reference, chunked, sdpa_exact"):
        make_triangle_backend("fast")


# ----------------------------------------------------------------------- modules


def pairs(seed: int = 3) -> Tensor:
    return torch.randn(B, N, N, P, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def real() -> Tensor:
    """The second example has four real residues."""
    keep = torch.ones(B, N, dtype=torch.bool)
    keep[1, 4:] = False
    return keep[:, :, None] & keep[:, None, :]


@pytest.mark.parametrize("direction", ["outgoing", "incoming"])
def test_triangle_multiplication_is_its_formula(direction: str):
    """Algorithms 11 and 12 by loops over i, j and k, with padding."""
    module = woken(TriangleMultiplication(P, 3, direction=direction))
    z, keep = pairs(), real()
    got = module(z, keep=keep)
    x = module.norm_in(z)
    edges = module.edges(x) * torch.sigmoid(module.edge_gates(x)) * keep[..., None]
    a, b = edges[..., :3], edges[..., 3:]
    for e, i, j in ((0, 1, 4), (0, 2, 2), (1, 3, 0)):
        total = torch.zeros(3, dtype=torch.float64)
        for k in range(N):
            total += a[e, i, k] * b[e, j, k] if direction == "outgoing" else a[e, k, i] * b[e, k, j]
        expected = torch.sigmoid(module.gate(x[e, i, j])) * module.project_out(module.norm_out(total))
        torch.testing.assert_close(got[e, i, j], expected)


@pytest.mark.parametrize("backend", ["reference", *BACKENDS])
def test_the_ending_node_is_its_own_formula(backend: str):
    """Algorithm 14 by loops, not transposed: pair (i, j) reads (k, j), and the bias is that of (k, i)."""
    module = woken(TriangleAttention(P, 2, 3, node="ending", backend=backend))
    z, keep = pairs(), real()
    got = module(z, keep=keep)
    x = module.norm(z)
    query, key, value = (t.unflatten(-1, (2, 3)) for t in module.project_in(x).chunk(3, -1))
    bias = module.bias(x)
    for e, i, j in ((0, 1, 4), (0, 6, 6), (1, 3, 0)):
        heads = []
        for h in range(2):
            allowed = [k for k in range(N) if keep[e, k, j]]
            scores = torch.stack(
                [query[e, i, j, h] @ key[e, k, j, h] / math.sqrt(3) + bias[e, k, i, h] for k in allowed]
            )
            heads.append(torch.softmax(scores, 0) @ value[e, allowed, j, h])
        expected = module.project_out(torch.sigmoid(module.gate(x[e, i, j])) * torch.cat(heads))
        torch.testing.assert_close(got[e, i, j], expected)


@pytest.mark.parametrize("node", ["starting", "ending"])
def test_patterns_can_be_read(node: str):
    """Tapped, the layer gives the same; chosen rows are those of the tap; padding is not read."""
    module = woken(TriangleAttention(P, 2, 3, node=node))
    z, keep = pairs(), real()
    plain = module(z, keep=keep)
    with taps.record(module, ["pattern"]) as store:
        torch.testing.assert_close(module(z, keep=keep), plain)
    pattern = store["pattern"]
    rows = torch.tensor([0, 5])
    torch.testing.assert_close(module.rows(z, rows, keep=keep), pattern[:, rows])
    assert (pattern[1, :4, :, :, 4:] == 0).all()


def test_updates_start_as_none():
    """New layers add zeros."""
    z = torch.randn(B, N, N, P)
    for module in (
        TriangleMultiplication(P, 3, direction="outgoing"),
        TriangleAttention(P, 2, 3, node="starting"),
    ):
        assert (module(z) == 0).all()


@pytest.mark.parametrize("axis", [1, 2])
def test_shared_dropout_drops_along_one_axis(axis: int):
    """All rows, or all columns, share their fate; the mean stays; nothing happens in evaluation."""
    torch.manual_seed(0)
    module = SharedDropout(0.25, axis=axis)
    ones = torch.ones(40, 13, 17, 5)
    out = module(ones)
    assert (out.std(axis) == 0).all() and (out.std(3 - axis) > 0).any()
    assert out.mean() == pytest.approx(1, abs=0.05) and out.unique().tolist() == pytest.approx([0, 4 / 3])
    assert (module.eval()(ones) == 1).all()


def test_words_that_are_no_direction_are_refused():
    """Directions and nodes by name."""
    with pytest.raises(ConfigError, match="outgoing or incoming"):
        TriangleMultiplication(P, 3, direction="up")
    with pytest.raises(ConfigError, match="starting or ending"):
        TriangleAttention(P, 2, 3, node="middle")
