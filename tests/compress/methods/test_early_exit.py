"""Early exit: who leaves, with whose logits, what it saves, and what the threshold promises."""

import copy
import warnings

import numpy as np
import pytest
import torch
from scipy import stats

from compress.evaluation import evaluate
from compress.methods import early_exit, magnitude, round_to_nearest
from compress.model import io, modeling, walk
from compress.model.layers import Exits
from tests.conftest import compressed


def fitted(model, data, threshold, exits=None):
    """A model with exits and that threshold."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        small = compressed(early_exit, model, data, exits=exits, tolerance=0.97)
    small.exits.threshold = threshold
    return small


@pytest.fixture
@torch.no_grad()
def leaving(encoder, calibration):
    """The random encoder with an exit after its first block, by which about half of the sequences leave."""
    small = fitted(encoder, calibration, None)
    early, _ = modeling.stages(small, calibration[0], small.exits)
    sure = modeling.confidence(early.logits, small.exits.temperatures[0])
    small.exits.threshold = float(sure.sort().values[len(sure) // 2])
    return small


@torch.no_grad()
def test_each_sequence_has_the_logits_of_its_exit(leaving, encoder, calibration):
    for batch in calibration:
        found = leaving(**batch).logits
        early, end = (s.logits for s in modeling.stages(leaving, batch, leaving.exits))
        sure = modeling.confidence(early, leaving.exits.temperatures[0]) >= leaving.exits.threshold
        torch.testing.assert_close(found, torch.where(sure[:, None], early, end), rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(end, encoder(**batch).logits, rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_those_that_left_run_no_further(leaving, calibration):
    rows = []
    block = leaving.get_submodule(leaving.exits.blocks)[1]
    handle = block.register_forward_hook(lambda module, args, output: rows.append(len(args[0])))
    leaving.exits.left = [0, 0]
    leaving(**calibration[0])
    handle.remove()
    assert rows == [leaving.exits.left[1]] and sum(leaving.exits.left) == len(calibration[0]["input_ids"])
    assert 0 < rows[0] < len(calibration[0]["input_ids"])


@torch.no_grad()
def test_the_walk_and_what_asks_for_more_see_the_whole_model(leaving, encoder, calibration):
    batch, leaving.exits.threshold = calibration[0], 0.0
    expected = encoder(**batch).logits
    assert torch.equal(walk.run(leaving, batch)[:, 0], expected)
    assert torch.equal(leaving(**batch, labels=torch.zeros(len(expected), dtype=torch.long)).logits, expected)
    assert not torch.equal(leaving(**batch).logits, expected)
    (logits,) = leaving(**batch, return_dict=False)
    assert torch.equal(logits, leaving(batch["input_ids"], batch["attention_mask"]).logits)


@torch.no_grad()
def test_tokens_of_a_decoder_take_the_first_sure_exit_and_a_cache_takes_none(decoder, calibration):
    small = fitted(decoder[0], calibration, 0.6, exits=1)
    batch, exits = calibration[0], small.exits
    early, end = (s.logits for s in modeling.stages(small, batch, exits))
    sure = modeling.confidence(early, exits.temperatures[0]) >= exits.threshold
    real = batch["attention_mask"].bool()
    found = small(**batch).logits
    assert 0 < sure[real].float().mean() < 1
    torch.testing.assert_close(found[real], torch.where(sure[:, :, None], early, end)[real], rtol=1e-3, atol=1e-3)
    assert torch.equal(small(**batch, use_cache=True).logits, decoder[0](**batch, use_cache=True).logits)
    ids = batch["input_ids"][:1, :8]
    assert torch.equal(small.generate(ids, max_new_tokens=4), decoder[0].generate(ids, max_new_tokens=4))


@torch.no_grad()
def test_a_decoder_s_exit_does_not_look_ahead(decoder, calibration):
    small = fitted(decoder[0], calibration, 0.0, exits=1)
    assert small.exits.causal
    ids = calibration[0]["input_ids"][:1]
    changed = ids.clone()
    changed[0, 10:] = 7
    torch.testing.assert_close(small(ids).logits[:, :10], small(changed).logits[:, :10], rtol=1e-4, atol=1e-4)


def test_the_maps_are_least_squares(encoder, calibration):
    exits = early_exit._least_squares(encoder, calibration, [1])
    rows, wanted = [], []
    with torch.no_grad():
        for batch in calibration:
            for i, n in enumerate(batch["attention_mask"].sum(1)):
                one = {k: v[i : i + 1, :n] for k, v in batch.items()}
                state = walk.run(encoder, one, stop=1)[0].double()
                rows.append(torch.cat([state, state.mean(0).expand_as(state), torch.ones(n, 1)], 1))
                wanted.append(walk.run(encoder, one, stop=2)[0].double())
    a, b = torch.cat(rows), torch.cat(wanted)
    pull = early_exit.RIDGE * (a.T @ a).diagonal().mean()
    eye = torch.eye(a.shape[1], dtype=torch.float64)
    expected = torch.linalg.solve(a.T @ a + pull * eye, a.T @ b + pull * eye[:, : b.shape[1]])
    found = torch.cat([exits.maps[0].weight.T, exits.maps[0].bias[None]]).double()
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-4)


def test_bound_is_clopper_pearson_and_wider_where_rows_hang_together():
    wrong = np.zeros(300, dtype=bool)
    wrong[:6] = True
    exact = stats.binomtest(6, 300, alternative="less").proportion_ci(0.95).high
    assert early_exit.bound(wrong, np.arange(300)) == pytest.approx(exact)
    assert early_exit.bound(wrong, np.arange(300) // 30) > 1.3 * exact
    assert early_exit.bound(np.zeros(10, dtype=bool), np.arange(10)) == pytest.approx(1 - 0.05 ** (1 / 10))


def test_the_promise_is_kept_nineteen_times_of_twenty(monkeypatch):
    """Exits that are wrong as often as they say: over many draws the true rate exceeds the tolerance in at most 5 %."""
    rng, broken = np.random.default_rng(0), 0
    for _ in range(300):
        sure = rng.uniform(0.5, 1, (400, 1))
        drawn = sure, rng.uniform(size=sure.shape) > sure, np.arange(400)
        monkeypatch.setattr(early_exit, "_tested", lambda *_, drawn=drawn: drawn)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            threshold = early_exit._threshold(None, [], None, 0.05)
        if threshold is not None:
            threshold = max(threshold, 0.5)
            broken += (1 - threshold) ** 2 > 0.05  # the integral of 2 (1 - c) from the threshold to 1
    assert broken / 300 < 0.08


def test_what_cannot_be_shown_is_not_promised(encoder, calibration):
    with pytest.warns(UserWarning, match="no exit is used"):
        same = compressed(early_exit, encoder, calibration, tolerance=0.01)
    assert not hasattr(same, "exits") and type(same) is type(encoder)


def test_saved_quantized_and_not_pruned_afterwards(leaving, calibration, tokenizer, tmp_path):
    io.save(leaving, tokenizer, tmp_path / "m", {})
    again, _ = io.load(tmp_path / "m")
    assert isinstance(again.exits, Exits) and again.exits.spec() == leaving.exits.spec()
    small = compressed(round_to_nearest, again, calibration, group=8)
    io.save(small, tokenizer, tmp_path / "q", {})
    assert io.load(tmp_path / "q")[0].exits.threshold == leaving.exits.threshold
    with pytest.raises(ValueError, match="early exits"):
        compressed(magnitude, again, calibration)
    with pytest.raises(ValueError, match="early exits"):
        compressed(early_exit, again, calibration)


def test_depth_is_the_share_of_blocks_that_ran(leaving, tokenizer, texts):
    class Few:
        predict = staticmethod(lambda model, *_: [model(**tokenizer(t[:100], return_tensors="pt")) for t in texts[:6]])

    depths = []
    for threshold in (2.0, leaving.exits.threshold, 0.0):  # no probability is 2
        with torch.no_grad(), modeling.leaving_at(leaving, threshold):
            depths.append(evaluate._predictions_and_depth(leaving, tokenizer, Few)[1]["mean_depth"])
    assert depths[0] == 1 and depths[2] == 0.5 and 0.5 <= depths[1] <= 1


@pytest.mark.parametrize(
    "options, match", [({"exits": 2}, "exits 2"), ({"exits": 0}, "exits 0"), ({"tolerance": 1.0}, "tolerance 1.0")]
)
def test_options_out_of_range_are_refused(options, match, encoder, calibration):
    with pytest.raises(ValueError, match=match):
        compressed(early_exit, encoder, calibration, **options)


def test_a_regression_is_refused(encoder, calibration):
    one = copy.deepcopy(encoder)
    one.config.num_labels = 1
    with pytest.raises(ValueError, match="values or answers"):
        compressed(early_exit, one, calibration)
