"""Codebooks and mixed precision against plain arithmetic, and against uniform grids on a real model."""

import itertools

import pytest
import torch

from compress.algorithms.codebooks import refitted, rows_of_a_book, swept
from compress.algorithms.hessian import inverse_factor
from compress.algorithms.resume import Progress
from compress.calibration.texts import batches, cut, read_texts
from compress.methods import gptq, kmeans, mixed, round_to_nearest, svd, vector
from compress.model import io
from compress.model.layers import Codebook, PackedLinear
from compress.model.structure import block_linears
from tests.conftest import compressed, strayed
from transmeter.util.checkpoint import bytes_of


@pytest.fixture(scope="module")
def text(root, tokenizer):
    """(calibration, a held-out batch) of the decoder's domains."""
    names = ("math", "code", "novels", "web")
    sequences = [s for n in names for s in cut(tokenizer, read_texts(root / f"data/text/{n}.txt"), 2000, 128, seed=0)]
    held = [s for n in names for s in cut(tokenizer, read_texts(root / f"data/text/{n}.txt"), 600, 128, seed=1)]
    return batches(tokenizer, sequences), batches(tokenizer, held, size=len(held))[0]


def loss(model, batch):
    """Mean cross entropy in nats."""
    labels = batch["input_ids"].masked_fill(batch["attention_mask"] == 0, -100)
    with torch.no_grad():
        return float(model(**batch, labels=labels).loss)


def test_one_dimensional_k_means_against_every_partition():
    """Near the best split of few numbers into ranges, and centers are the means of what is nearest to them."""
    generator = torch.Generator().manual_seed(0)
    numbers = torch.randn(6, 12, generator=generator, dtype=torch.float64)
    importance = torch.rand(6, 12, generator=generator, dtype=torch.float64) + 0.1
    found = kmeans.centers(numbers, importance, 4)
    total, best = 0.0, 0.0
    for x, h, c in zip(numbers, importance, found):
        near = (x[:, None] - c).abs().argmin(1)
        for code in near.unique():
            mine = near == code
            torch.testing.assert_close(c[code], (h[mine] * x[mine]).sum() / h[mine].sum())
        total += float((h * (x - c[near]).square()).sum())
        order = x.argsort()
        parts = []
        for cuts in itertools.combinations(range(1, 12), 3):
            pieces = [order[a:b] for a, b in itertools.pairwise((0, *cuts, 12))]
            means = [(h[p] * x[p]).sum() / h[p].sum() for p in pieces]
            parts.append(sum(float((h[p] * (x[p] - m).square()).sum()) for p, m in zip(pieces, means)))
        best += min(parts)
    assert total <= 1.3 * best


def test_vectors_are_the_means_of_what_is_nearest():
    generator = torch.Generator().manual_seed(0)
    points, importance = torch.randn(200, 3, generator=generator), torch.rand(200, 3, generator=generator) + 0.1
    found = vector.centers(points, importance, 8, torch.Generator().manual_seed(1))
    codes = vector.nearest(points, importance, found)
    away = (importance[:, None] * (points[:, None] - found).square()).sum(2)
    assert torch.equal(codes, away.argmin(1))
    for code in range(8):
        mine = codes == code
        mean = (importance[mine] * points[mine]).sum(0) / importance[mine].sum(0)
        torch.testing.assert_close(found[code], mean)
    again = vector.centers(points, importance, 8, torch.Generator().manual_seed(1))
    assert torch.equal(found, again)
    same = vector.centers(torch.ones(20, 3), torch.ones(20, 3), 8, torch.Generator().manual_seed(1))
    assert torch.equal(same, torch.ones(8, 3))


@pytest.mark.parametrize("width, books", [(1, 1), (2, 3), (4, 2)])
def test_the_sweep_against_its_definition(width, books):
    """Sub-vector after sub-vector: the value of least |(w - q) U_jj^-1|^2, and errors taken from all later columns."""
    generator = torch.Generator().manual_seed(0)
    weight, x = torch.randn(6, 12, generator=generator).double(), torch.randn(40, 12, generator=generator).double()
    values = torch.randn(books, 4, width, generator=generator).double()
    factor = inverse_factor(x.T @ x, 0.01)
    left, expected = weight.clone(), torch.zeros(6, 12 // width, dtype=torch.uint8)
    for j in range(0, 12, width):
        now = slice(j, j + width)
        inverse = torch.linalg.inv(factor[now, now])
        for row in range(6):
            options = values[row * books // 6]
            away = ((left[row, now] - options) @ inverse).square().sum(1)
            code = int(away.argmin())
            error = (left[row, now] - options[code]) @ inverse
            expected[row, j // width] = code
            left[row, j + width :] -= error @ factor[now, j + width :]
    assert torch.equal(swept(weight, factor, values), expected)


def test_refitted_values_against_least_squares():
    generator = torch.Generator().manual_seed(0)
    weight, x = torch.randn(6, 8, generator=generator).double(), torch.randn(30, 8, generator=generator).double()
    codes = torch.randint(0, 3, (6, 4), generator=generator, dtype=torch.uint8)
    start = torch.randn(2, 4, 2, generator=generator).double()
    found = refitted(weight, x.T @ x, codes, start)
    columns = []  # of the outputs x Q^T, one for every number of the books
    for i in range(start.numel()):
        one = torch.zeros(start.numel(), dtype=torch.float64)
        one[i] = 1
        columns.append((x @ Codebook.pack(codes, one.view_as(start)).unpack().T).flatten())
    exact = torch.linalg.lstsq(torch.stack(columns, 1), (x @ weight.T).flatten()[:, None], driver="gelsd").solution
    used = torch.stack(columns, 1).abs().sum(0) > 0
    torch.testing.assert_close(found.flatten()[used], exact.flatten()[used], rtol=1e-4, atol=1e-5)
    assert torch.equal(found[:, 3], start[:, 3])  # code 3 stands nowhere


def test_rows_of_a_book_divide():
    assert [rows_of_a_book(192, 16), rows_of_a_book(30522, 16), rows_of_a_book(3, 16)] == [16, 5087, 3]
    assert rows_of_a_book(512, None) == 512


def test_free_values_beat_a_grid(two_blocks, tokenizer, text, tmp_path):
    """In 3 bits k-means, in 2 bits vectors, with fewer bytes than round to nearest; with and without the update."""
    data, held = text
    found = {
        "kmeans": compressed(kmeans, two_blocks, data, bits=3),
        "vector": compressed(vector, two_blocks, data),
        "vector, no update": compressed(vector, two_blocks, data, update=False),
        "grid 3": compressed(round_to_nearest, two_blocks, [], bits=3),
        "grid 2": compressed(round_to_nearest, two_blocks, [], bits=2),
        "gptq 2": compressed(gptq, two_blocks, data, bits=2),
    }
    with torch.no_grad():
        expected = two_blocks(**held).logits
        losses = {name: strayed(model(**held).logits, expected) for name, model in found.items()}
    size = {}
    for name, model in found.items():
        io.save(model, tokenizer, tmp_path / name, {})
        size[name] = bytes_of(tmp_path / name)
    assert losses["kmeans"] < losses["grid 3"] and size["kmeans"] < size["grid 3"]
    for name, other in itertools.product(("vector", "vector, no update"), ("grid 2", "gptq 2")):
        assert losses[name] < losses[other] or (name, other) == ("vector, no update", "gptq 2")
        assert size[name] < size[other]


@pytest.mark.parametrize("tokens", [3, 40])
def test_few_tokens_will_do(tokens, encoder, tokenizer, texts):
    data = batches(tokenizer, cut(tokenizer, texts, tokens, 16, seed=0))
    for method, options in ((vector, {"bits": 4, "width": 2}), (kmeans, {"bits": 3}), (svd, {"ratio": 0.5})):
        small = compressed(method, encoder, data, **options)
        with torch.no_grad():
            assert 0 < strayed(small(**data[0]).logits, encoder(**data[0]).logits) < 2, method


def test_mixed_bits_beat_one_number_of_bits(decoder, text, tmp_path):
    """Nearer to the dense model than 3 bits for all, at no more bytes; no more bits than asked for, and several."""
    data, held = text
    found = {"mixed": compressed(mixed, decoder[0], data), "one": compressed(gptq, decoder[0], data, bits=3)}
    for name, model in found.items():
        io.save(model, decoder[1], tmp_path / name, {})
    assert loss(found["mixed"], held) < loss(found["one"], held)
    # the list of bits in a file's header is not of one length
    assert bytes_of(tmp_path / "mixed") <= bytes_of(tmp_path / "one") + 100
    forms = [m.packed for m in found["mixed"].modules() if isinstance(m, PackedLinear)]
    weights = [f.rows * f.columns for f in forms]
    mean = sum(f.bits * n for f, n in zip(forms, weights)) / sum(weights)
    assert 2.95 <= mean <= 3 and len({f.bits for f in forms}) > 1


@pytest.mark.parametrize("unit", [1.0, 1e-60])  # float32 has nothing as small as the squares of small gradients
def test_sensitive_layers_get_more_bits(unit, encoder, calibration, monkeypatch):
    linears = [path for block in range(2) for path, _ in block_linears(encoder, block)]
    sizes = {path: sum(encoder.get_submodule(path).weight.shape) for path in linears}
    level = {path: 1e6 if "query" in path else 1e-6 for path in linears}
    squared = {path: torch.full((sizes[path],), unit * level[path], dtype=torch.float64) for path in linears}
    monkeypatch.setattr(mixed, "fisher", lambda *_: squared)
    small = compressed(mixed, encoder, calibration, bits=3.0, group=8, choices="2,8")
    bits = {path: small.get_submodule(path).packed.bits for path in linears}
    assert all(bits[p] == 8 for p in linears if "query" in p) and 2 in bits.values()


@pytest.mark.parametrize("method, options", [(kmeans, {"bits": 3}), (vector, {"bits": 6, "width": 2})])
def test_embeddings_and_head_take_the_bytes_they_should(method, options, decoder, calibration, tmp_path):
    """Codes and books of all weights, within 5 % beside norms and file headers; embedding and head stay one."""
    small = compressed(method, decoder[0], calibration, embeddings=True, head=True, **options)
    io.save(small, decoder[1], tmp_path / "m", {})
    books = {id(m.values): m for m in small.modules() if isinstance(m, Codebook)}.values()
    width = options.get("width", 1)
    bits = sum(options["bits"] * m.rows * m.columns / width + 16 * m.values.numel() for m in books)
    norms = 2 * sum(p.numel() for n, p in small.named_parameters() if "norm" in n)
    header = 120 * sum(1 for _ in small.named_parameters()) + 1000
    assert bytes_of(tmp_path / "m") <= 1.05 * bits / 8 + norms + header
    assert small.lm_head.packed is small.model.embed_tokens.packed


@pytest.mark.parametrize(
    "method, options",
    [
        (kmeans, {"bits": 3}),
        (vector, {"bits": 4, "width": 2}),
        (mixed, {"group": 8}),
        (svd, {"ratio": 0.5}),
        (svd, {"ratio": 0.5, "kind": "plain"}),
    ],
)
def test_a_killed_run_goes_on(method, options, encoder, calibration, tmp_path):
    def run(folder):
        return compressed(method, encoder, calibration, progress=Progress(folder), **options)

    whole = run(tmp_path / "p").state_dict()
    (tmp_path / "p/00001.safetensors").unlink(missing_ok=True)
    again = run(tmp_path / "p").state_dict()
    assert whole.keys() == again.keys() and all(torch.equal(whole[k], again[k]) for k in whole)


@pytest.mark.parametrize(
    "method, options, message",
    [
        (kmeans, {"bits": 1}, "give 2 to 8"),
        (kmeans, {"rows": 0}, "1 or more"),
        (kmeans, {"damping": 0.0}, "above 0"),
        (vector, {"bits": 9}, "give 2 to 8"),
        (vector, {}, "1024 numbers in books for the 32 x 32 weights of .* save nothing: give fewer bits"),
        (mixed, {"bits": 1.5}, "bits 1.5 cannot be the mean of 2,3,4,8: give 2 to 8"),
        (mixed, {"choices": "two"}, "such as 2,3,4,8"),
        (mixed, {"choices": "1,4"}, "give 2 to 8"),
        (mixed, {"group": 5}, "group 5 does not divide the 32 inputs of .*: the nearest is 4"),
        (mixed, {"damping": 0.0}, "more than 0"),
        (vector, {"width": 5}, "width 5 does not divide the 32 inputs of .*: the nearest is 4"),
    ],
)
def test_options_out_of_range_are_refused(method, options, message, encoder, calibration):
    with pytest.raises(ValueError, match=message):
        compressed(method, encoder, calibration, **options)
