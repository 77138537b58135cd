"""Windows of perplexity, and what is measured in them: losses, KL divergence and agreement, against float64."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

import compress
from compress.evaluation import evaluate, metrics, prediction, windows
from compress.evaluation.windows import Window, reading, slide
from compress.model import io
from tests.compress.methods.test_architectures import build
from tests.conftest import DATA, letter_tokenizer

MODEL, HELD = str(DATA / "mixlm"), DATA / "text/math_heldout.txt"


@given(st.integers(0, 200), st.integers(2, 30), st.data())
def test_every_token_is_predicted_once_with_the_past_that_the_stride_leaves(count, window, data):
    stride = data.draw(st.integers(1, window))
    found, predicted = slide(range(count), window, stride), []
    for one in found:
        assert 1 <= one.scored < len(one.ids) <= window and one.ids == list(range(one.ids[0], one.ids[-1] + 1))
        predicted += one.ids[-one.scored :]
    firsts = {one.ids[0] for one in found} if stride == window else {0}
    whole = range(count - 1 if stride == window and count % window == 1 else count)  # a last token alone has no past
    assert predicted == [i for i in whole if i not in firsts]
    assert all(len(one.ids) - one.scored >= min(window - stride, one.ids[0]) for one in found)


def test_texts_are_one_as_in_published_tables_or_windows_of_their_own(tokenizer):
    texts = ["One text.", ("Two", "more.")]
    together = tokenizer("One text.\n\nTwo\n\nmore.")["input_ids"]
    assert windows.joined(tokenizer, texts, 1000) == together and windows.joined(tokenizer, texts, 4) == together[:4]
    apart = reading(1000, 64, None, True, {}).windows(tokenizer, texts)
    assert [one.ids for one in apart] == [tokenizer("One text.")["input_ids"], tokenizer("Two", "more.")["input_ids"]]
    with pytest.warns(
        UserWarning, match=f"hold {len(together)} tokens, fewer than a window of 64: they are one window"
    ):
        assert reading(1000, 64, None, False, {}).windows(tokenizer, texts) == [Window(together, len(together) - 1)]
    with pytest.raises(ValueError, match="the texts have no two tokens in a row"):
        reading(1000, 64, None, True, {}).windows(tokenizer, [""])


def test_defaults_are_those_of_published_tables_within_the_shortest_context():
    found = reading(9, None, None, False, {"a": 4096, "b": None})
    assert (found.window, found.stride, found.apart) == (2048, 2048, False)
    assert reading(9, None, None, False, {"a": 4096, "b": 512}).window == 512


@pytest.mark.parametrize(
    "given, message",
    [
        ((9, 4096, None, False), "window 4096 is beyond the context of small: give at most 512 tokens"),
        ((9, 1, None, False), "window is 1: give a whole number of at least 2"),
        ((9, 100, 0, False), "stride is 0: give a whole number from 1 to 100"),
        ((9, 100, 101, False), "stride is 101: give a whole number from 1 to 100"),
        ((9, 100, 50, True), "stride 50 is of texts that are joined: leave it out, or leave apart out"),
        ((1, None, None, False), "tokens is 1"),
    ],
)
def test_windows_that_cannot_be_are_refused(given, message):
    with pytest.raises(ValueError, match=message):
        reading(*given, {"large": 2048, "small": 512})


def exact(models, one):
    """(tokens, vocabulary) log-probabilities of every model for the tokens of a window that count, in float64."""
    with torch.no_grad():
        found = [net.double()(input_ids=torch.tensor([one.ids])).logits[0].numpy() for net in models]
    logs = [logits - np.log(np.exp(logits).sum(1, keepdims=True)) for logits in found]
    first = len(one.ids) - one.scored
    return [each[first - 1 : -1] for each in logs], one.ids[first:]


@pytest.mark.parametrize("logits", [64, 2**24])
def test_losses_kl_and_agreement_are_those_of_float64(logits, monkeypatch):
    monkeypatch.setattr(prediction, "LOGITS", logits)
    model, other, tokenizer = build("llama"), build("llama", rms_norm_eps=0.3), letter_tokenizer()
    cut = slide(torch.randint(0, 45, (150,), generator=torch.Generator().manual_seed(1)).tolist(), 40, 24)
    found = prediction.losses(model, tokenizer, cut, other)
    assert (prediction.losses(model, tokenizer, cut) == found[:, :2]).all()
    model, other, rows = model.double(), other.double(), []
    for one in sorted(cut, key=lambda one: -len(one.ids)):
        (own, base), ids = exact((model, other), one)
        loss = -sum(float(own[i, token]) for i, token in enumerate(ids))
        kl = sum(float(np.exp(b) @ (b - o)) for o, b in zip(own, base))
        rows.append([loss, len(ids), kl, sum(o.argmax() == b.argmax() for o, b in zip(own, base))])
    np.testing.assert_allclose(found, rows, rtol=2e-5)
    near, expected = metrics.divergence(found[:, [2, 3, 1]]), np.array(rows)
    for name, column in (("kl_divergence_nats", 2), ("top1_agreement", 3)):
        mean, windows = expected[:, column].sum() / expected[:, 1].sum(), len(expected)
        rest = expected[:, column] - mean * expected[:, 1]
        error = np.sqrt((rest**2).sum() * windows / (windows - 1)) / expected[:, 1].sum()
        reach = stats.t.ppf(0.975, windows - 1) * error
        estimate = near[name]
        assert estimate["value"] == pytest.approx(mean, rel=2e-5) and estimate["n"] == 149
        assert estimate["ci_low"] == pytest.approx(max(0, mean - reach), rel=1e-3)
        assert estimate["ci_high"] == pytest.approx(min(mean + reach, 1 if column == 3 else np.inf), rel=1e-3)


def test_divergence_of_classifiers_is_a_mean_over_texts():
    rng = np.random.default_rng(0)
    own, base = rng.normal(size=(2, 60, 3))
    p, q = (np.exp(x) / np.exp(x).sum(1, keepdims=True) for x in (own, base))
    kl = (q * np.log(q / p)).sum(1)
    near = metrics.divergence(metrics.divergence_of_classes(own.astype(np.float32), base.astype(np.float32)))
    low, high = stats.t.interval(0.95, 59, kl.mean(), stats.sem(kl))
    found = near["kl_divergence_nats"]
    assert [found[k] for k in ("value", "ci_low", "ci_high")] == pytest.approx([kl.mean(), low, high], rel=1e-5)
    assert near["top1_agreement"]["value"] == (own.argmax(1) == base.argmax(1)).mean()
    assert near["top1_agreement"]["interval"] == "Wilson"


def test_evaluate_says_how_far_a_decoder_is_from_its_baseline(tmp_path):
    model, tokenizer = io.load(MODEL)
    io.save(
        compress.compress((model, tokenizer), "round_to_nearest", options={"bits": 4}), tokenizer, tmp_path / "q", {}
    )
    how = {"tokens": 1200, "window": 192, "stride": 96}
    same, small = compress.evaluate([MODEL, str(tmp_path / "q")], HELD, baseline=MODEL, **how)
    assert (same["kl_divergence_nats"]["value"], same["top1_agreement"]["value"]) == (0, 1)
    assert 0 < small["kl_divergence_nats"]["ci_low"] < small["kl_divergence_nats"]["ci_high"] < 0.5
    assert 0.5 < small["top1_agreement"]["value"] < 1 and small["top1_agreement"]["n"] == 1199
    assert (small["window"], small["stride"], small["apart"]) == (192, 96, False)


def test_a_baseline_with_other_tokens_gives_no_divergence(tmp_path):
    model, tokenizer = build("llama", vocab_size=50), letter_tokenizer()
    io.save(model, tokenizer, tmp_path / "other", {})
    with pytest.warns(UserWarning, match="the baseline has other tokens: no KL divergence and agreement are given"):
        (found,) = compress.evaluate(tmp_path / "other", HELD, baseline=MODEL, tokens=200, window=20)
    assert "kl_divergence_nats" not in found


def test_evaluate_says_how_far_a_classifier_is_from_its_baseline(encoder, tokenizer, tmp_path):
    folders = [io.save(encoder, tokenizer, tmp_path / "a", {})]
    small = compress.compress((encoder, tokenizer), "round_to_nearest", options={"bits": 3, "group": None})
    folders.append(io.save(small, tokenizer, tmp_path / "b", {}))
    (tmp_path / "t.csv").write_text("text,label\n" + "".join(f'"{i} {"ab" * i}",{i % 3}\n' for i in range(30)))
    same, found = compress.evaluate(folders, tmp_path / "t.csv", baseline=folders[0])
    assert (same["kl_divergence_nats"]["value"], same["top1_agreement"]["value"]) == (0, 1)
    assert found["kl_divergence_nats"]["value"] > 0 and found["kl_divergence_nats"]["n"] == 30
    with pytest.raises(
        ValueError, match="windows are of perplexity, .* gives accuracy: leave window, stride and apart"
    ):
        evaluate.evaluation_task(str(folders[0]), tmp_path / "t.csv", window=64)
