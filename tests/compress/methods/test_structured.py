"""Structured pruning beyond the common checks: budgets, Kwon et al.'s search and tuning, blocks, sublayers."""

import itertools
import warnings

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from compress.algorithms.budget import Budget, budget, flops, select
from compress.algorithms.least_squares import Pair
from compress.algorithms.options import Limits
from compress.algorithms.resume import Progress
from compress.methods import depth, kwon, sublayer
from compress.model import io, latency, structure, walk
from compress.model.modeling import changes
from compress.model.structure import Sublayer, set_parameter, sublayers
from compress.model.walk import mean_length
from tests.compress.model.test_structure import BATCH, MODELS, build, every_model, logits
from tests.conftest import compressed
from transmeter.util.checkpoint import bytes_of

UNITS = ["magnitude", "kprune", "kwon"]  # the methods that remove single units


@pytest.fixture
def flat_clock(monkeypatch):
    """A machine whose seconds are a thousandth and a billionth of the FLOPs."""

    def seconds(nets, tokens, batch=1, timer=None):
        return [1e-3 + 1e-9 * flops(net, tokens) for net in nets]

    monkeypatch.setattr(latency, "seconds", seconds)


@given(
    st.lists(st.lists(st.floats(0, 1), min_size=1, max_size=9), min_size=1, max_size=3),
    st.lists(st.integers(1, 4), min_size=3, max_size=3),
    st.floats(0, 1),
)
def test_selection_keeps_multiples_of_the_best(scores, multiples, share):
    scores, multiples = [torch.tensor(s) for s in scores], multiples[: len(scores)]
    allowed = share * sum(len(s) for s in scores)
    kept = select(scores, [1.0] * len(scores), allowed, multiples)
    assert sum(int(k.sum()) for k in kept) <= allowed + 1e-9
    for score, keep, multiple in zip(scores, kept, multiples):
        assert keep.all() or int(keep.sum()) % multiple == 0
        assert keep.all() or not keep.any() or score[keep].min() >= score[~keep].max()


@pytest.mark.parametrize("name", UNITS)
@pytest.mark.parametrize("kind", ["parameters", "bytes"])
def test_a_model_of_the_size_asked_for(name, kind, decoder, calibration, tmp_path):
    model, tokenizer = decoder
    each = {"parameters": 1, "bytes": model.config.dtype.itemsize}[kind]
    wanted = round(0.7 * each * sum(p.numel() for p in model.parameters()))
    small = compressed(name, model, calibration, **{kind: wanted})
    assert 0.995 * wanted <= each * sum(p.numel() for p in small.parameters()) <= 1.005 * wanted
    if kind == "bytes":
        io.save(small, tokenizer, tmp_path / "m", {})
        assert bytes_of(tmp_path / "m") == pytest.approx(wanted, rel=0.01)


@pytest.mark.parametrize("name", UNITS)
def test_seconds_asked_for(name, decoder, calibration, flat_clock):
    tokens = round(mean_length(calibration))
    wanted = 0.6 * latency.seconds([decoder[0]], tokens)[0]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        small = compressed(name, decoder[0], calibration, latency=wanted)
    assert latency.seconds([small], tokens)[0] == pytest.approx(wanted, rel=0.02)


def test_seconds_that_are_missed_are_told(encoder, calibration, flat_clock, monkeypatch):
    monkeypatch.setattr(latency.Clock, "measure", lambda self, nets: [self.dense for _ in nets])
    wanted = 0.99 * latency.seconds([encoder], 40)[0]
    clock = latency.Clock(encoder, 40, wanted / 2)
    with pytest.warns(UserWarning, match="seconds requested, .* measured on one sequence of 40 tokens"):
        clock.check(encoder)


@pytest.mark.parametrize("piece", ["unit", "sublayer", "block"])
def test_the_table_of_a_real_clock_adds_up(piece, encoder):
    clock = latency.Clock(encoder, 40, 1.0)
    rest, costs = latency.table(clock, sublayers(encoder), piece)
    assert min(costs) > 0 and rest < clock.dense
    assert rest + sum(s.units * c for s, c in zip(sublayers(encoder), costs)) == pytest.approx(clock.dense)


@pytest.mark.parametrize("name", UNITS)
def test_multiples_of_neurons(name, decoder, calibration):
    small = compressed(name, decoder[0], calibration, ratio=0.5, multiple=16)
    widths = [s.units for s in sublayers(small) if s.kind == "ffn"]
    assert widths and all(w % 16 == 0 for w in widths) and len(set(widths)) > 1
    length = mean_length(calibration)
    assert 1 - flops(small, length) / flops(decoder[0], length) == pytest.approx(0.5, abs=0.01)


def test_a_budget_that_cannot_be_kept_is_refused(encoder, calibration):
    for name in [*UNITS, "depth", "sublayer"]:
        with pytest.raises(ValueError, match="cannot be reached by removing heads and neurons"):
            compressed(name, encoder, calibration, parameters=100)
    with pytest.raises(ValueError, match="no block would be left"):
        compressed(depth, encoder, calibration, ratio=0.6)
    with pytest.raises(ValueError, match="give one limit"):
        compressed(depth, encoder, calibration, ratio=0.5, bytes=1000)


def fake_budget(heads, neurons, costs, allowed):
    """A budget over sublayers of so many heads and neurons, with one cost for each kind."""
    kinds = ["attention"] * len(heads) + ["ffn"] * len(neurons)
    found = [Sublayer(k, i, {}, f"{k}{i}", "", 1, n, 1) for i, (k, n) in enumerate(zip(kinds, heads + neurons))]
    each = [costs[s.kind == "ffn"] for s in found]
    dense = sum(s.units * c for s, c in zip(found, each))
    return Budget("FLOPs", found, each, allowed * dense, dense, [1] * len(found), "unit")


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.integers(1, 3), min_size=0, max_size=2),
    st.lists(st.integers(1, 4), min_size=1, max_size=2),
    st.tuples(st.integers(1, 7), st.integers(1, 3)),
    st.floats(0, 1),
    st.integers(0, 1000),
)
def test_the_search_removes_the_least_importance_possible(heads, neurons, costs, allowed, seed):
    limit = fake_budget(heads, neurons, costs, allowed)
    sizes = [s.units for s in limit.found]
    g = torch.Generator().manual_seed(seed)
    importance = [torch.rand(n, generator=g, dtype=torch.float64) for n in sizes]
    kept = torch.cat(kwon.search(importance, limit))
    cost = torch.tensor([c for n, c in zip(sizes, limit.costs) for _ in range(n)]).double()
    every = torch.cat(importance)
    masks = torch.tensor(list(itertools.product([False, True], repeat=len(every))))
    fits = (masks * cost).sum(1) <= limit.allowed * (1 + 1e-12)
    assert float(cost[kept].sum()) <= limit.allowed * (1 + 1e-12)
    assert float(every[~kept].sum()) == pytest.approx(float((~masks[fits] * every).sum(1).min()))


@given(st.integers(1, 6), st.integers(2, 9), st.integers(0, 1000))
def test_swapping_keeps_the_number_and_never_loses(samples, units, seed):
    g = torch.Generator().manual_seed(seed)
    gradients, keep = torch.randn(samples, units, generator=g), torch.rand(units, generator=g) < 0.5
    found = kwon.swapped(gradients, keep)
    before, after = (float(gradients[:, ~k].sum(1).square().sum()) for k in (keep, found))
    assert found.sum() == keep.sum() and after <= before + 1e-6


@pytest.mark.parametrize("kind", ["encoder", "decoder"])
@pytest.mark.parametrize("index", [2, 3])
def test_mask_values_are_those_of_least_squares(kind, index, request, calibration):
    """Against numpy's solver, on a student that lost units below."""
    model = request.getfixturevalue(kind)
    teacher = model if kind == "encoder" else model[0]
    student = structure.shallow_copy(teacher)
    below, sub = sublayers(teacher)[0], sublayers(teacher)[index]
    structure.remove(student, below, torch.arange(below.units) < 2)
    keep = torch.arange(sub.units) % 2 == 0
    pair = Pair(teacher, student, calibration)
    pair.advance(sub.block)
    found = kwon.tuned(pair, sub, keep, 0.0)
    output, columns = student.get_submodule(sub.output), keep.repeat_interleave(sub.columns)
    left, right = [], []
    for batch, t_in, s_in in zip(calibration, pair.teacher_in, pair.student_in):
        with torch.no_grad(), walk.inputs(teacher, [sub.entry, sub.output]) as t:
            walk.run(teacher, batch, sub.block, sub.block + 1, t_in)
        with torch.no_grad(), walk.inputs(student, [sub.entry, sub.output]) as s:
            walk.run(student, batch, sub.block, sub.block + 1, s_in)
        with torch.no_grad():
            bias = 0 if output.bias is None else output.bias
            right.append(walk.drop_padding(batch, t[sub.entry] + output(t[sub.output]) - s[sub.entry] - bias))
            features = walk.drop_padding(batch, s[sub.output])[:, columns].view(len(right[-1]), -1, sub.columns)
            weight = output.weight[:, columns].view(sub.width, -1, sub.columns)
            left.append(torch.einsum("tuc,ouc->tou", features, weight))
    a, b = torch.cat(left).flatten(0, 1).double(), torch.cat(right).flatten().double()
    torch.testing.assert_close(found, torch.linalg.lstsq(a, b[:, None]).solution[:, 0], rtol=1e-4, atol=1e-4)


def test_gradients_are_those_of_single_samples_and_of_the_labels(encoder, calibration):
    batch = calibration[0] | {"labels": torch.arange(len(calibration[0]["input_ids"])) % 3}
    found = sublayers(encoder)
    together = kwon.mask_gradients(encoder, [batch], found, 0)
    alone = kwon.mask_gradients(encoder, [{k: v[2:3] for k, v in batch.items()}], found, 0)
    for a, b in zip(together, alone):
        torch.testing.assert_close(a[2:3], b, rtol=1e-3, atol=1e-5)
    sub, step = found[1], 1e-3
    loss = []
    for value in (1 - step, 1 + step):
        masks = torch.ones(len(batch["labels"]), sub.units)
        masks[:, 5] = value
        with torch.no_grad(), walk.masked(encoder, [sub], [masks]):
            logs = walk.run(encoder, batch).double().log_softmax(-1)[:, 0]
        loss.append(-logs[range(len(logs)), batch["labels"]])
    numeric = (loss[1] - loss[0]) / (2 * step)
    torch.testing.assert_close(together[1][:, 5].double(), numeric, rtol=0.05, atol=2e-4)


def test_labels_that_do_not_fit_are_refused(encoder, decoder, calibration):
    count = len(calibration[0]["input_ids"])
    for model, shape in ((encoder, (count, 2)), (decoder[0], (count,))):
        data = [calibration[0] | {"labels": torch.zeros(shape, dtype=torch.long)}]
        with pytest.raises(ValueError, match="give one label a sequence"):
            compressed(kwon, model, data, ratio=0.5)


@every_model
def test_a_model_without_a_block_is_a_plain_one(name, tmp_path):
    model, small = build(name), build(name)
    structure.keep_blocks(small, [1])
    with torch.no_grad():
        hidden = walk.run(model, BATCH, stop=0)
        torch.testing.assert_close(logits(small), walk.run(model, BATCH, 1, hidden=hidden))
    assert small.config.num_hidden_layers == 1
    if name == "modernbert":  # its first block has no norm before attention, which the one that is now first has
        assert list(changes(small)["layers"]) == ["model.layers.0.attn_norm"] and not changes(small)["tied"]
        return
    assert not any(changes(small).values())
    structure.modeling.convolve(small)
    small.save_pretrained(tmp_path)
    again = MODELS[name][1].from_pretrained(tmp_path).eval()
    assert torch.equal(logits(again), logits(small))


def test_depth_takes_the_blocks_of_least_influence(decoder, calibration, tmp_path):
    model, tokenizer = decoder
    planted = structure.shallow_copy(model)
    for sub in sublayers(planted):
        if sub.block in (1, 4):  # these do nothing now
            set_parameter(planted, f"{sub.output}.weight", torch.zeros_like(planted.get_submodule(sub.output).weight))
    small = compressed(depth, planted, calibration, ratio=0.3)
    assert small.config.num_hidden_layers == 4 and not any(changes(small).values())
    with torch.no_grad():
        torch.testing.assert_close(small(**BATCH).logits, planted(**BATCH).logits)
    io.save(small, tokenizer, tmp_path / "m", {})
    alone = MODELS["llama"][1].from_pretrained(tmp_path / "m", dtype=torch.float32).eval()
    words = BATCH["input_ids"]
    cached, anew = (alone.generate(words, max_new_tokens=5, do_sample=False, use_cache=c) for c in (True, False))
    assert torch.equal(cached, anew)


@pytest.mark.parametrize("useless", [1, 2])
@pytest.mark.parametrize("tried", [0, 2])
def test_the_useless_sublayer_goes_first(useless, tried, encoder, calibration):
    planted = structure.shallow_copy(encoder)
    output = sublayers(encoder)[useless].output
    set_parameter(planted, f"{output}.weight", torch.zeros_like(encoder.get_submodule(output).weight))
    small = compressed(sublayer, planted, calibration, ratio=0.05, tried=tried)
    assert {s.output for s in sublayers(planted)} - {s.output for s in sublayers(small)} == {output}
    torch.testing.assert_close(logits(small), logits(planted), rtol=1e-3, atol=1e-3)


def test_the_neighbour_makes_up_for_a_sublayer(decoder, calibration):
    def distance(tried):
        small = compressed(sublayer, decoder[0], calibration[:1], ratio=0.1, tried=tried)
        return sublayer.sensitivities(decoder[0], small, [], calibration[:1])[0]

    assert distance(2) < 0.8 * distance(0)


def test_removed_sublayers_take_no_time(decoder):
    """A linear layer without inputs is nearly free: what goes is saved in fact."""
    model, small = decoder[0], structure.shallow_copy(decoder[0])
    for sub in sublayers(model):
        if sub.block < 4:
            structure.remove(small, sub, torch.zeros(sub.units, dtype=torch.bool))
    clock = latency.Clock(model, 128, 1.0)
    with torch.no_grad():
        found = clock.measure([small])[0]
    assert found < 0.75 * clock.dense


@pytest.mark.parametrize("method", [sublayer, "kprune"])
def test_a_killed_run_goes_on(method, encoder, calibration, tmp_path):
    whole = compressed(method, encoder, calibration, ratio=0.7, progress=Progress(tmp_path))
    steps = sorted(tmp_path.iterdir())
    finished = [step for step in steps if step.suffix == ".safetensors"]
    assert len(finished) >= 2
    finished[-1].unlink()
    again = compressed(method, encoder, calibration, ratio=0.7, progress=Progress(tmp_path))
    assert torch.equal(logits(again), logits(whole)) and sorted(tmp_path.iterdir()) == steps


def test_the_gradient_is_not_measured_before_anything_is_cut(encoder, calibration):
    with pytest.raises(ValueError, match="give iterative=true with it"):
        compressed("kprune", encoder, calibration, ratio=0.5, knowledge="gradient")


def test_pieces_of_a_budget(encoder):
    steps = [budget(encoder, 40, Limits(0.5), piece).step for piece in ("unit", "sublayer", "block")]
    blocks = encoder.config.num_hidden_layers
    assert steps[0] < steps[1] < steps[2] == pytest.approx(flops(encoder, 40) / blocks)
