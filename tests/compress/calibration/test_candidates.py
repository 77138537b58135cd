"""Choosing calibration texts: hidden states, ways of choosing, the set that comes of it, and where it comes from."""

import json
from collections import Counter
from functools import partial

import numpy as np
import pytest
import torch
from datasets import load_from_disk
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from transformers import AutoTokenizer

import compress
from compress.calibration import calibrate as whole
from compress.calibration import candidates as calibration
from compress.calibration import contamination, generation, hidden_states, sampling, screening, selection
from compress.calibration.calibrate import CalibrationSet
from compress.calibration.candidates import Target
from compress.calibration.texts import batches, cut, cut_with_texts, first, pack, read_texts, spread
from compress.calibration.uncertainty import Sample, Uncertainty
from tests.conftest import DATA
from transmeter.scorers.alignment import Points, closeness

DOMAINS = ("code", "drama", "math")


@pytest.fixture(scope="module")
def pools() -> dict[str, list]:
    return {name: read_texts(DATA / f"text/{name}.txt") for name in DOMAINS}


@pytest.fixture(scope="module")
def views(decoder, pools) -> dict[str, hidden_states.HiddenStates]:
    net, tokenizer = decoder
    return {n: hidden_states.collect(net, tokenizer, n, cut(tokenizer, t, 900, 48, 0)) for n, t in pools.items()}


@pytest.fixture(scope="module")
def target(decoder) -> hidden_states.HiddenStates:
    net, tokenizer = decoder
    return hidden_states.collect(
        net, tokenizer, "t", cut(tokenizer, read_texts(DATA / "text/math_sample.txt"), 900, 48, 5)
    )


def test_hidden_states_have_rows_of_tokens_of_a_decoder_and_texts_of_a_classifier(decoder, encoder, tokenizer, texts):
    net, own = decoder
    found = hidden_states.collect(net, own, "a", cut(own, texts, 500, 64))
    assert found.states.shape == (500, 3, 192) and set(found.labels) <= set(range(hidden_states.CLUSTERS))
    assert len(found.nll) == len(found.sequences) and (np.diff(found.lengths) <= 0).all()
    one = hidden_states.collect(encoder, tokenizer, "a", cut(tokenizer, texts, 500, 64))
    assert one.states.shape == (len(one.sequences), 3, 32) and set(one.labels) <= {0, 1, 2}
    assert 0 <= one.nll.min() and one.nll.max() <= np.log(3) + 1e-6
    with pytest.raises(ValueError, match="empty has no text of two tokens"):
        hidden_states.collect(encoder, tokenizer, "empty", [])


def test_what_enters_the_first_block_is_the_first_depth_without_a_prediction(decoder, encoder, tokenizer, texts):
    for net, own in (decoder, (encoder, tokenizer), (encoder.base_model, tokenizer)):
        ids, groups = cut(own, texts, 500, 64), hidden_states.clusters(net, 0)
        whole = hidden_states.collect(net, own, "a", ids, groups=groups)
        found = hidden_states.embed(net, own, ids, whole.by_text, groups=groups)
        states, labels = found.spaces["first"], found.labels
        assert whole.by_text == (net is encoder)
        rows = [np.lexsort(x.T) for x in (states.round(4), whole.states[:, 0].round(4))]  # in another order
        assert np.allclose(states[rows[0]], whole.states[rows[1], 0], atol=1e-4)
        if net is encoder.base_model:
            assert sorted(labels) == sorted(whole.labels)
        else:
            assert not labels.any()


def test_likelihood_is_the_loss_of_the_next_token(decoder, texts):
    net, tokenizer = decoder
    ids = cut(tokenizer, texts, 200, 64)
    found = hidden_states.collect(net, tokenizer, "a", ids)
    for sequence, nats in zip(found.sequences, found.nll):
        x = torch.tensor([sequence])
        with torch.no_grad():
            assert float(net(input_ids=x, labels=x).loss) == pytest.approx(float(nats), rel=1e-4)


def test_mean_states_do_not_depend_on_padding(encoder, tokenizer, texts):
    ids = cut(tokenizer, texts, 400, 64)
    alone = hidden_states.collect(encoder, tokenizer, "a", ids[:1]).means()[0]
    among = hidden_states.collect(encoder, tokenizer, "a", ids).means()
    assert np.abs(among - alone).max((1, 2)).min() < 1e-4


def test_hidden_states_merge_and_take(views):
    pool = hidden_states.merge(list(views.values()))
    assert set(pool.origins) == set(DOMAINS) and len(pool.owners) == sum(len(v.owners) for v in views.values())
    some = [len(pool.sequences) - 1, 0]
    taken = pool.take(some)
    assert taken.sequences == [pool.sequences[i] for i in some] and taken.origins == [pool.origins[i] for i in some]
    assert np.allclose(taken.means(), pool.means()[some])


def test_hidden_states_are_collected_once(decoder, texts, tmp_path, monkeypatch):
    net, tokenizer = decoder
    ids = cut(tokenizer, texts, 300, 64)
    made = hidden_states.collect_cached(tmp_path, "hash", net, tokenizer, "a", ids)
    (file,) = tmp_path.iterdir()
    whole = file.read_bytes()
    for damaged in (b"", whole[:100], whole[:-1]):
        file.write_bytes(damaged)
        hidden_states.collect_cached(tmp_path, "hash", net, tokenizer, "a", ids)
        assert file.read_bytes() == whole
    monkeypatch.setattr(hidden_states, "collect", None)
    again = hidden_states.collect_cached(tmp_path, "hash", net, tokenizer, "b", ids)
    assert again.sequences == made.sequences and set(again.origins) == {"b"}
    for field in ("nll", "states", "labels", "owners"):
        assert np.array_equal(getattr(again, field), getattr(made, field))


@pytest.mark.parametrize("way", selection.WAYS)
def test_every_way_gives_an_order_of_all_sequences(way, views, target):
    pool, state = hidden_states.merge(list(views.values())), torch.get_rng_state()
    order = selection.WAYS[way](pool, target, 1000, 3)
    assert sorted(order) == list(range(len(pool.sequences)))
    assert np.array_equal(order, selection.WAYS[way](pool, target, 1000, 3))
    assert torch.equal(state, torch.get_rng_state())
    chosen = pool.take(selection.fill(pool, order, 1000))
    assert 900 < chosen.lengths.sum() <= 1000


def test_the_ways_choose_what_they_say(views, target):
    pool = hidden_states.merge(list(views.values()))

    def chosen(way):
        return pool.take(selection.fill(pool, selection.WAYS[way](pool, target, 1000, 0), 1000))

    def tokens_of(found, name):
        return sum(len(s) for s, origin in zip(found.sequences, found.origins) if origin == name)

    shares = [tokens_of(chosen("uniform"), name) for name in DOMAINS]
    assert max(shares) - min(shares) <= 2 * pool.lengths.max()
    anyhow = chosen("random")
    assert chosen("longest").lengths.mean() >= anyhow.lengths.mean()
    assert chosen("lowest_perplexity").nll.mean() < anyhow.nll.mean()
    kinds = {way: len({t for s in chosen(way).sequences for t in s}) for way in ("lexical_diversity", "random")}
    assert kinds["lexical_diversity"] > kinds["random"]
    for way in selection.NEED_TARGET:
        assert tokens_of(chosen(way), "math") > 600


def test_lexical_diversity_against_a_plain_greedy_search(views, target):
    pool = hidden_states.merge(list(views.values())).take(range(12))
    known, left, expected = set(), set(range(12)), []
    while left:
        value = {i: len(set(pool.sequences[i]) - known) / len(pool.sequences[i]) for i in left}
        best = max(value.values())
        expected.append(best)
        order = selection.WAYS["lexical_diversity"](pool, target, 0, 0)
        known |= set(pool.sequences[order[len(expected) - 1]])
        assert value[int(order[len(expected) - 1])] == pytest.approx(best)
        left.remove(int(order[len(expected) - 1]))


def test_the_activation_centroid_against_the_definition(views, target):
    pool = hidden_states.merge(list(views.values()))
    means = [[pool.states[pool.owners == i, d].mean(0) for d in range(3)] for i in range(len(pool.sequences))]
    aims = [[target.states[target.owners == i, d].mean(0) for d in range(3)] for i in range(len(target.sequences))]
    centre = np.mean(aims, axis=0)
    distance = [
        np.mean([np.linalg.norm(m[d] - centre[d]) / np.linalg.norm(centre[d]) for d in range(3)]) for m in means
    ]
    order = selection.WAYS["activation_centroid"](pool, target, 1000, 0)
    assert np.allclose(np.sort(distance), np.array(distance)[order], rtol=1e-4)


def test_the_targets_own_domain_is_found(views, target):
    found = calibration.choose(views, [Target(target)], tokens=800)
    scores = found.scores
    assert found.name == calibration.pick(scores) and set(scores) == {*DOMAINS, *selection.PROPOSED}
    assert scores["math"] == max(scores[name] for name in DOMAINS)
    assert found.by_target == [scores]
    parts = CalibrationSet(found.states.sequences, found.states.origins, None).parts
    assert parts[0].name == "math" and sum(p.share for p in parts) == pytest.approx(1)
    assert sum(p.tokens for p in parts) == found.states.lengths.sum() <= 800


def test_sequences_say_which_text_they_are_of(decoder, pools):
    net, tokenizer = decoder
    texts = [" ".join(pools["math"][:9]), pools["math"][9]]
    found = cut_with_texts(tokenizer, texts, 300, 48)
    assert [ids for ids, _ in found] == cut(tokenizer, texts, 300, 48) and {text for _, text in found[:3]} == {0}
    ids, of = [ids for ids, _ in found], [text for _, text in found]
    view = hidden_states.collect(net, tokenizer, "a", ids, texts=of)
    assert [of[ids.index(sequence)] for sequence in view.sequences] == view.texts.tolist()
    pool = hidden_states.merge([view, view])
    assert len(set(pool.texts)) == 2 * len(set(of)) and pool.take([1]).texts == pool.texts[1]


def test_every_closeness_has_an_interval_over_other_samples(views, target):
    found = calibration.choose(views, [Target(target)], tokens=800)
    assert set(found.intervals) == set(found.scores) and found.name not in found.tied
    for name, (low, high) in found.intervals.items():
        assert low < found.scores[name] < high < 2 * low
    assert not {"code", "drama"} & set(found.tied)
    twins = {"a": views["math"], "b": views["math"], "c": views["drama"]}
    same = calibration.choose(twins, [Target(target)], tokens=800)
    assert {"a", "b"} <= {same.name, *same.tied} and "c" not in same.tied
    one = calibration.choose({"a": views["math"].take([0])}, [Target(target)], tokens=800)
    assert one.intervals == {"a": None} and one.tied == []


@given(st.lists(st.text("ab .é", max_size=90), max_size=6), st.integers(1, 60), st.integers(5, 20), st.integers(0, 3))
@settings(deadline=None, max_examples=60)
def test_what_is_measured_is_spread_over_texts(tokenizer, texts, tokens, length, seed):
    found = spread(tokenizer, texts, tokens, length, seed)
    every = cut_with_texts(tokenizer, texts, 10**6, length)
    whole = Counter((tuple(ids), i) for ids, i in every)
    cut_short = 0 if sum(len(ids) for ids, _ in every) <= tokens else 1
    assert not Counter((tuple(ids), i) for ids, i in found[: len(found) - cut_short]) - whole  # none twice
    used = sum(len(ids) for ids, _ in found)
    assert used <= tokens
    if not cut_short:
        assert len(found) == len(every)
    turns = Counter(i for _, i in found)
    sizes = Counter(i for _, i in every)
    for text in sizes:  # whoever could have given another one is at most one turn behind
        assert turns[text] in (sizes[text], max(turns.values(), default=0), max(turns.values(), default=1) - 1)
    if max(sizes.values(), default=0) <= 1:
        assert found == cut_with_texts(tokenizer, texts, tokens, length, seed)


def test_long_texts_widen_the_interval_by_what_their_sequences_share():
    values = np.repeat([1.0, -1.0, 2.0, -2.0], 4)
    alone, together = Sample(values, np.arange(16)), Sample(values, np.repeat(range(4), 4))
    assert (alone.long, together.long, together.number) == (False, True, 4)
    assert alone.variance() == pytest.approx(16 / 15 * 40)
    assert together.variance_of_texts() == pytest.approx(4 / 3 * 160)
    sure = [Uncertainty({"a": 2.0}, {"a": sample}, {"a": []}) for sample in (alone, together)]
    assert sure[0].effect == (1.0, 0) and sure[1].effect == (pytest.approx(5), 3)
    for found, variance, freedom in zip(sure, (16 / 15 * 40, 4 / 3 * 160), (15, 3)):
        reach = stats.t.ppf(0.975, freedom) * variance**0.5
        assert found.interval("a") == pytest.approx((2 * np.exp(-reach), 2 * np.exp(reach)))


def test_a_mixture_has_to_be_clearly_closer():
    assert calibration.pick({"a": 1.0, "b": 2.0, "uniform": 2.3, "closeness": 2.1}) == "b"
    assert calibration.pick({"a": 1.0, "b": 2.0, "uniform": 2.5, "closeness": 2.1}) == "uniform"
    assert calibration.pick({"a": 1.0, "b": 2.0, "uniform": 2.1, "closeness": 1.9}, targets=2) == "uniform"
    assert calibration.pick({"a": 1.0, "b": 2.0, "uniform": 1.9, "closeness": 1.9}, targets=2) == "b"
    assert calibration.pick({"a": 1.0}) == "a"
    close = {"a": 1.0, "b": 2.0, "uniform": 2.3, "closeness": 2.1}
    assert (
        calibration.reason(close, "b")
        == "uniform, a mixture, is 1.15 times as close as b: it is taken from 1.2 times on"
    )
    assert calibration.reason({"a": 1.0, "b": 2.0}, "b") is calibration.reason({}, "uniform") is None


def test_several_targets_count_by_weight_or_the_worst(views):
    sets = {"code": views["code"], "drama": views["drama"], "math": views["math"]}
    targets = [Target(views["code"], 3.0), Target(views["drama"], 1.0)]
    found = calibration.choose(sets, targets, tokens=500)
    code, drama = found.by_target
    assert found.scores == pytest.approx({name: code[name] ** 0.75 * drama[name] ** 0.25 for name in code})
    assert list(found.scores) == sorted(found.scores, key=lambda name: -found.scores[name])
    worst = calibration.choose(sets, targets, tokens=500, protect="worst")
    assert worst.by_target == found.by_target
    assert worst.scores == pytest.approx({name: min(code[name], drama[name]) for name in code})
    assert worst.name == max(worst.scores, key=lambda name: worst.scores[name])


def test_a_set_of_other_predictions_is_left_out_with_a_warning(views, target):
    states = views["code"]
    odd = hidden_states.HiddenStates(**vars(states) | {"labels": states.labels + 1000})
    with pytest.warns(UserWarning, match="code is left out: what the model predicts on it, it never does on the targ"):
        found = calibration.compare({"code": odd, "math": views["math"]}, target)
    assert set(found) == {"math"}


def test_targets_that_no_closeness_can_be_told_of_are_refused(views, target):
    odd = {n: hidden_states.HiddenStates(**vars(v) | {"labels": v.labels + 1000}) for n, v in views.items()}
    with pytest.warns(UserWarning, match="is left out"), pytest.raises(ValueError, match="give other candidates"):
        calibration.choose(odd, [Target(target)], tokens=900)
    same = hidden_states.HiddenStates(**vars(target) | {"states": np.ones_like(target.states) * 0.3})
    noise = 1e-7 * np.random.default_rng(0).normal(size=same.states.shape)
    same.states[...] += noise  # of another order of sums
    with pytest.raises(ValueError, match="all that t holds is alike to the model, so .*: give more texts of it"):
        calibration.compare(views, same)
    same.states[:, 1:] = target.states[:, 1:]
    with pytest.raises(ValueError, match="all that t holds is alike"):
        calibration.compare(views, same)
    same.states[:, 0, :-1] = target.states[:, 0, :-1]  # but for one feature
    found = calibration.scores_of(calibration.compare(views, same))
    assert np.isfinite([*found.values()]).all() and max(found, key=found.get) == "math"


def test_a_mixture_that_is_closer_than_the_own_text_of_a_target_is_told():
    by_target = {"code": {"code": 2.0, "web": 3.0, "uniform": 2.5}, "math": {"code": 1.0, "web": 1.0, "uniform": 2.0}}
    assert calibration.own_texts(by_target) == [
        "of code the mixture uniform is closer than its own text (2.5 against 2)"
    ]
    assert calibration.own_texts({"code": {"code": 2.0, "uniform": 1.5}, "b": {"b": 2.0}}) == []


def entering(view):
    return Points({"first": view.states[:, 0]}, np.zeros(len(view.labels)))


def test_many_candidates_are_screened_by_what_enters_the_first_block(views, target):
    names = [f"{n}{i}" for i in range(9) for n in DOMAINS]
    screened = partial(screening.screen, names, lambda name: entering(views[name[:-1]]))
    with pytest.warns(UserWarning, match=f"{len(names)} candidates are screened by their tokens alone and the 9 close"):
        assert {name[:-1] for name in screened([Target(target)], [entering(target)], "mean", keep=9)} == {"math"}
    goals, aims = [Target(target), Target(views["code"], 9.0)], [entering(target), entering(views["code"])]
    with pytest.warns(UserWarning):
        assert {name[:-1] for name in screened(goals, aims, "mean", keep=9)} == {"code"}
        stay = screened(goals, aims, "worst", keep=len(names))
    lowest = {n: min(closeness(entering(views[n]), aim).score for aim in aims) for n in DOMAINS}
    assert [lowest[name[:-1]] for name in stay] == sorted((lowest[n[:-1]] for n in names), reverse=True)


def test_a_candidate_that_gives_nothing_is_left_out(views, target):
    def collect(name):
        if name.startswith("none"):
            raise ValueError("none has no text")
        return views[name]

    with pytest.warns(UserWarning, match="none is left out: none has no text"):
        assert set(calibration.read_all(["none", "math"], collect)) == {"math"}
    names = ["none", *DOMAINS]
    with pytest.warns(UserWarning, match="none is left out: none has no text"):
        stay = screening.screen(names, lambda n: entering(collect(n)), [Target(target)], [entering(target)], "mean")
    assert set(stay) == set(DOMAINS) and stay[0] == "math"
    with pytest.warns(UserWarning), pytest.raises(ValueError, match="no candidate has texts that can be measured"):
        calibration.read_all(["none"], collect)


def test_of_many_candidates_the_closest_are_measured_and_all_are_mixed(pools, tmp_path, monkeypatch):
    monkeypatch.setattr(whole, "MEASURED", 600)
    monkeypatch.setattr(generation, "AT_ONCE", 4)
    parts = {f"{name}{i}": texts[i::6] for name, texts in pools.items() for i in range(6)}
    many = {**parts, "self": "self"}
    aim = {"t": DATA / "text/math_sample.txt"}
    with pytest.warns(UserWarning, match="19 candidates are screened by their tokens alone and the 8 closest measured"):
        found = compress.calibrate(DATA / "mixlm", many, aim, tokens=600, out=tmp_path / "out")
    single = set(found.scores) - set(selection.PROPOSED)
    assert len(single) == 8 and {f"math{i}" for i in range(6)} <= single
    assert {part.name for part in found.parts} <= single
    mixed = compress.calibrate(DATA / "mixlm", many, aim, tokens=1900, by="uniform")
    assert {part.name for part in mixed.parts} == set(many)


@pytest.mark.parametrize("by", ["measure", "uniform", "longest"])
def test_more_tokens_than_are_measured_come_from_the_sets_chosen(by, pools, tmp_path, monkeypatch):
    monkeypatch.setattr(whole, "MEASURED", 600)
    monkeypatch.setattr(generation, "AT_ONCE", 4)
    targets = {"t": DATA / "text/math_sample.txt"} if by == "measure" else {}
    texts = {**pools, "self": "self"} if by == "uniform" else pools
    options = {"tokens": 1000, "length": 32, "by": by, "cache": tmp_path}  # the model writes a token a step
    found = compress.calibrate(DATA / "mixlm", texts, targets, **options)
    shares = {part.name: part.share for part in found.parts}
    assert sum(map(len, found.sequences)) == pytest.approx(1000, rel=0.1) and bool(found.scores) == (by == "measure")
    if by == "measure":
        assert shares["math"] > 0.4
    if by == "uniform":
        assert set(shares) == set(texts) and max(shares.values()) < 0.5
    assert compress.calibrate(DATA / "mixlm", texts, targets, **options) == found


def test_closeness_to_every_target_is_kept(pools, tmp_path, monkeypatch):
    monkeypatch.setattr(whole, "MEASURED", 600)
    targets = {"math": DATA / "text/math_sample.txt", "play": pools["drama"][:40]}
    found = compress.calibrate(DATA / "mixlm", pools, targets, tokens=500, cache=tmp_path / "h", out=tmp_path / "c")
    assert list(found.by_target) == ["math", "play"] and found.chosen in found.scores
    for name, score in found.scores.items():
        assert score == pytest.approx((found.by_target["math"][name] * found.by_target["play"][name]) ** 0.5)
    said = json.loads((tmp_path / "c/provenance.json").read_text())
    assert said["by_target"] == found.by_target and said["notes"] == found.notes
    assert set(said["intervals"]) == set(found.scores) and said["tied"] == found.tied


def test_a_mixture_of_long_sequences_has_every_set_in_equal_shares(pools, tmp_path, monkeypatch):
    monkeypatch.setattr(whole, "MEASURED", 600)  # no more than one sequence of 512 tokens
    options = {"tokens": 16 * 512, "length": 512, "pack": True, "by": "uniform", "cache": tmp_path}
    some = {name: pools[name] for name in list(pools)[:3]}
    found = compress.calibrate(DATA / "mixlm", some, **options)
    assert [len(ids) for ids in found.sequences] == [512] * 16
    assert {name: found.origins.count(name) for name in some} == dict(zip(some, (5, 5, 6)))


@pytest.mark.parametrize("by", ["measure", "uniform", "closeness"])
@pytest.mark.parametrize("pack", [False, True])
def test_no_more_tokens_are_sampled_than_asked_for(by, pack, pools, small_folder, tmp_path):
    """Shares that are rounded up are not too many together; what has too few tokens for a sequence gives none."""
    of = {"candidates": pools, "targets": {"a": pools["math"][:40], "b": pools["drama"][:40]}, "by": by}
    options = {"length": 128, "pack": pack, "cache": tmp_path}
    for tokens in (128, 500) if pack else (5, 20, 500):
        found = compress.calibrate(small_folder, **of, **options, tokens=tokens)
        assert 0 < sum(map(len, found.sequences)) <= tokens
    least = "128 tokens, as texts are packed" if pack else "at least two tokens"
    with pytest.raises(ValueError, match=f"chosen, [a-z]+, gives nothing .* with 1 token: a sequence needs {least}"):
        compress.calibrate(small_folder, **of, **options, tokens=1)


@pytest.mark.parametrize(
    "by, targets, message", [("meassure", True, "--by meassure is unknown"), ("closeness", False, "give --target")]
)
def test_a_way_that_cannot_work_is_refused(by, targets, message):
    with pytest.raises(ValueError, match=message):
        calibration.check_way(by, targets)


def test_a_candidate_called_like_a_way_is_refused(pools, tmp_path):
    texts = {"uniform": pools["math"]}
    with pytest.raises(ValueError, match="a candidate is called uniform"):
        compress.calibrate(DATA / "mixlm", texts, by="uniform", cache=tmp_path)


@pytest.mark.parametrize(
    "options, message",
    [
        ({"candidates": 3}, "candidates is 3: give paths, or a dict"),
        ({"candidates": []}, "candidates is empty"),
        ({"candidates": {"a": 3}}, "a is a int: give a path, or a list of texts"),
        ({"candidates": {"a": ["x", 3]}}, "a holds 3 as text 2"),
        ({"candidates": {"a": ["", " ", ("", "")]}}, "a has no text in it"),
        ({"targets": {"t": []}}, "t has no text in it"),
        ({"candidates": "none.txt"}, "none.txt does not exist"),
        ({"protect": "best"}, "protect 'best' is unknown"),
        ({"tokens": 0}, "tokens is 0"),
        ({"seed": -1}, "seed is -1"),
        ({"weights": {"b": 2.0}}, "weight: 'b' is not a target"),
        ({"targets": {"t": ["a b"]}, "weights": {"t": 0}}, "weight of t is 0: give a number above 0"),
        ({"out": DATA}, "exists already"),
        ({"held_out": [DATA / "text/math.txt"]}, "stands in .*math.txt too"),
    ],
)
def test_what_a_caller_gives_is_checked(options, message):
    with pytest.raises(ValueError, match=message):
        compress.calibrate(**{"model": DATA / "mixlm", "candidates": DATA / "text/math.txt", **options})


def test_what_is_saved_is_drawn_again_token_by_token(decoder, views, tmp_path):
    net, tokenizer = decoder
    choice = calibration.choose(views, [], tokens=700, by="uniform")
    assert (choice.name, choice.scores) == ("uniform", {})
    chosen = CalibrationSet(choice.states.sequences, choice.states.origins, tokenizer)
    chosen.save(tmp_path / "c", {"seed": 0})
    assert load_from_disk(str(tmp_path / "c"))["source"] == chosen.origins
    found, about = sampling.sample(str(tmp_path / "c"), net, tokenizer, 99, 0, lambda: net)
    assert found == chosen.sequences and about["tokens"] == choice.states.lengths.sum()
    assert about["provenance"]["parts"][0]["hash"] == chosen.parts[0].hash
    part, _ = sampling.sample(f"{tmp_path / 'c'}:100", net, tokenizer, 99, 0, lambda: net)
    assert sum(map(len, part)) == 100


def test_mixtures_chance_and_the_model_itself_are_drawn(decoder, monkeypatch):
    net, tokenizer = decoder
    monkeypatch.setattr(generation, "AT_ONCE", 4)
    spec = f"self:50,{DATA / 'text/math.txt'}:80,random:60"
    found, about = sampling.sample(spec, net, tokenizer, 9, 0, lambda: net, length=32)
    assert [part["tokens"] for part in about["parts"]] == pytest.approx([50, 80, 60], abs=2)
    assert sum(map(len, found)) == about["tokens"]
    assert about["parts"][1]["sha256"] and about["texts"] == spec
    assert (found, about) == sampling.sample(spec, net, tokenizer, 9, 0, lambda: net, length=32)
    special = set(tokenizer.all_special_ids)
    assert found[-1][0] == tokenizer.bos_token_id and not special & set(found[-1][1:])


@pytest.mark.parametrize(
    "spec, message",
    [
        ("nowhere.txt", "nowhere.txt does not exist: give a file"),
        ("nowhere.txt:50", "nowhere.txt does not exist"),
        ("self:0", "self:0 does not exist: give"),
        ("self:10,random", "several as WHAT:TOKENS"),
    ],
)
def test_calibration_that_makes_no_sense_is_refused(spec, message):
    with pytest.raises(ValueError, match=message):
        sampling.parse(spec)


def test_the_model_writes_text_that_it_finds_likely(decoder, encoder, tokenizer, monkeypatch):
    monkeypatch.setattr(generation, "AT_ONCE", 4)
    net, own = decoder
    found = generation.generate(net, own, 96, 32, seed=1)
    assert sum(map(len, found)) == 96 and all(s[0] == own.bos_token_id for s in found)
    assert found == generation.generate(net, own, 96, 32, seed=1) != generation.generate(net, own, 96, 32, seed=2)
    with pytest.raises(ValueError, match="only a model that predicts next tokens"):
        generation.generate(encoder, tokenizer, 100, 32)


def test_copies_count_once_and_held_out_texts_are_refused():
    pools = {"a": ["One  two", "one two", "three"], "b": ["THREE!", "four"]}
    with pytest.warns(UserWarning) as told:
        found = contamination.without_copies(pools | {"signs": ["***", "---", "***", "***"]})
    assert found == {"a": ["One  two", "three"], "b": ["four"], "signs": ["***", "---"]}
    each = ["1 of 3 texts of a is a copy", "1 of 2 texts of b is a copy", "2 of 4 texts of signs are copies"]
    assert [str(w.message) for w in told] == [f"{one}: each text counts once" for one in each]
    contamination.refuse_held_out({"signs": ["***"]}, {"h": ["* * *", "---"]})
    with pytest.raises(ValueError, match="every text of b stands in another candidate"):
        contamination.without_copies({"a": ["x"], "b": ["X"]})
    long = " ".join(f"word{i}" for i in range(30))
    contamination.refuse_held_out({"a": [long]}, {"h": ["word1 word2"]})
    with pytest.raises(ValueError, match="text 2 of a .* stands in h too"):
        contamination.refuse_held_out({"a": ["x", "before " + long[20:] + " after"]}, {"h": [long]})
    with pytest.raises(ValueError, match="stands in h too"):
        contamination.refuse_held_out({"a": ["Short text."]}, {"h": ["short text"]})


def test_packed_sequences_are_full(decoder, texts):
    _, tokenizer = decoder
    found = pack(tokenizer, texts, 600, 64, seed=0)
    assert [len(s) for s in found] == [64] * 9 and found == pack(tokenizer, texts, 600, 64, seed=0)
    assert sum(s.count(tokenizer.bos_token_id) for s in found) > 1


@given(st.lists(st.integers(1, 9), max_size=8), st.integers(0, 40))
@settings(max_examples=50, deadline=None)
def test_first_takes_what_is_asked_for_and_no_single_token(lengths, tokens):
    found = first([[0] * n for n in lengths], tokens)
    assert all(len(s) >= 2 for s in found) and sum(map(len, found)) <= tokens


def test_chats_go_through_the_chat_template(tmp_path):
    file = tmp_path / "chats.jsonl"
    chat = [{"role": "user", "content": "Hi?"}, {"role": "assistant", "content": "Yes."}]
    file.write_text(json.dumps({"messages": chat}) + "\n" + json.dumps({"messages": []}) + "\n")
    tokenizer = AutoTokenizer.from_pretrained(DATA / "mixlm")
    with pytest.raises(ValueError, match="the model's tokenizer has no chat template"):
        read_texts(file, tokenizer)
    tokenizer.chat_template = "{{ bos_token }}{% for m in messages %}<{{ m['role'] }}> {{ m['content'] }}\n{% endfor %}"
    assert read_texts(file, tokenizer) == ["<user> Hi?\n<assistant> Yes.\n"]
    file.write_text(json.dumps({"messages": "Hi"}) + "\n")
    with pytest.raises(ValueError, match="row 1: messages is not a list"):
        read_texts(file, tokenizer)


def test_lengths_are_those_of_the_model_where_none_is_given(decoder, encoder, tokenizer):
    assert sampling.sequences_of(*decoder) == sampling.Sequences(512)  # its context is as long
    assert sampling.sequences_of(encoder, tokenizer) == sampling.Sequences(64)


@pytest.mark.parametrize(
    "options, message",
    [
        ({"length": 1}, "length 1 is too short, as .*: give at least [234]"),
        ({"length": 513}, "length 513 is beyond the context of the model: give at most 512 tokens"),
        ({"length": 2.5}, "length is 2.5: give a whole number of at least 1"),
        ({"length": 400, "pack": True}, "a sequence needs 400 tokens, as texts are packed: give longer"),
    ],
)
def test_lengths_that_cannot_be_are_refused(options, message, decoder):
    with pytest.raises(ValueError, match=message):
        sampling.sample(str(DATA / "text/math.txt"), *decoder, 300, 0, lambda: decoder[0], **options)


def test_packed_sequences_are_full_and_end_tokens_separate_their_texts(decoder, encoder, texts):
    net, tokenizer = decoder
    found, about = sampling.sample(str(DATA / "text/math.txt"), net, tokenizer, 1000, 0, None, length=200, pack=True)
    assert [len(ids) for ids in found] == [200] * 5 and (about["length"], about["pack"]) == (200, True)
    assert tokenizer.eos_token_id in sum(found, [])
    with pytest.raises(ValueError, match="--pack joins texts, but the model reads them one by one: leave it out"):
        compress.compress((encoder, tokenizer), calibration=texts, pack=True)
    with pytest.raises(ValueError, match="calibration holds fewer than 512 tokens, a packed sequence: give longer"):
        compress.compress(decoder, calibration=["A short text."], pack=True)


def test_sequences_of_a_folder_are_taken_as_they_are(decoder, tmp_path):
    net, tokenizer = decoder
    made = compress.calibrate(
        DATA / "mixlm", DATA / "text/math.txt", tokens=600, length=300, pack=True, out=tmp_path / "c"
    )
    assert (made.length, made.pack) == (300, True)
    found, about = sampling.sample(str(tmp_path / "c"), net, tokenizer, 9, 0, None)
    assert found == made.sequences and about["length"] == 300 and about["provenance"]["length"] == 300
    with pytest.raises(
        ValueError, match="sequences of up to 300 tokens, .*: leave --length 200 out, or give it to cal"
    ):
        sampling.sample(str(tmp_path / "c"), net, tokenizer, 9, 0, None, length=200)


def test_a_batch_takes_no_more_memory_where_sequences_are_long(tokenizer):
    sequences = [[5] * n for n in (512, 512, 300, 100, 100, 100)]
    sizes = [tuple(batch["input_ids"].shape) for batch in batches(tokenizer, sequences, size=8)]
    assert sizes == [(2, 512), (3, 300), (1, 100)]
