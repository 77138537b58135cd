"""Metrics on plain arrays, each with a 95 % interval, and their paired changes against a baseline.

An outcome is what a model did on the items of a data set: (items,) where the metric is the mean of the items, else one
array (rows, 2) of label and prediction per item, a row being a text, or a word of a sentence. Intervals: Wilson for
shares, t for means that are paired, else percentiles of a bootstrap over items.
"""

import re
import string
from collections import Counter
from collections.abc import Callable, Sequence

import numpy as np
from scipy import special, stats

from transmeter.util.intervals import half_width

Estimate = dict[str, float | int | str]
Outcome = np.ndarray | list[np.ndarray]
# by what a model is for (compress.model.config.HEADS); the first is the default
METRICS = {
    "text": ("perplexity",),
    "masked": ("masked_perplexity", "masked_accuracy"),
    "classes": ("accuracy", "f1", "macro_f1"),
    "values": ("spearman", "pearson"),
    "labels": ("f1", "macro_f1", "accuracy"),
    "answers": ("f1", "exact_match"),
    "embeddings": ("similarity_spearman", "cosine"),
}
LOWER = ("perplexity", "masked_perplexity")  # metrics that are better when lower
REPEATS = 1000  # of a bootstrap
NONE = -1  # the class of what F1 does not count


def outcome(task: str, metric: str, truths: Sequence, predictions: Sequence) -> Outcome:
    """Outcome of predictions.

    Parameters
    ----------
    task
        A key of `METRICS`.
    metric
        One of its metrics.
    truths, predictions
        Of every item. classes: ids; for F1 id 1 is the positive class. values: floats. labels: (words,) ids of every
        sentence, `NONE` for the words outside of everything, which F1 leaves out. answers: lists of texts; a text.

    Returns
    -------
    Outcome
        What `measure` and `change` take.
    """
    if task == "answers":
        each = {"f1": answer_f1, "exact_match": exact_match}[metric]
        return np.array([each(prediction, truth) for truth, prediction in zip(truths, predictions)])
    if (task, metric) == ("classes", "accuracy"):
        return np.array(truths) == np.array(predictions)
    items = [np.column_stack([np.atleast_1d(t), np.atleast_1d(p)]) for t, p in zip(truths, predictions)]
    return [np.where(rows == 1, 1, NONE) for rows in items] if (task, metric) == ("classes", "f1") else items


def measure(metric: str, found: Outcome, seed: int = 0) -> Estimate:
    """Value of a metric.

    Parameters
    ----------
    metric
        One of `METRICS`.
    found
        Outcome of a model.
    seed
        Of the bootstrap.

    Returns
    -------
    Estimate
        With its interval.
    """
    if isinstance(found, np.ndarray) and found.dtype == bool:
        return share(found)
    return _bootstrap(lambda drawn: _value(metric, found, drawn), len(found), seed)


def change(metric: str, found: Outcome, baseline: Outcome, seed: int = 0) -> Estimate:
    """Change of a metric against a baseline.

    Parameters
    ----------
    metric
        One of `METRICS`.
    found, baseline
        Outcomes of two models on the same items.
    seed
        Of the bootstrap.

    Returns
    -------
    Estimate
        With its paired interval.
    """
    if isinstance(found, np.ndarray):
        return paired_change(found, baseline)
    return _bootstrap(lambda drawn: _value(metric, found, drawn) - _value(metric, baseline, drawn), len(found), seed)


def share(correct: np.ndarray) -> Estimate:
    """Share of items.

    Parameters
    ----------
    correct
        (n,) bool.

    Returns
    -------
    Estimate
        With its Wilson interval.
    """
    n, k = len(correct), int(correct.sum())
    interval = stats.binomtest(k, n).proportion_ci(method="wilson")
    return _estimate(k / n, float(interval.low), float(interval.high), n, "Wilson")


def paired_change(value: np.ndarray, baseline: np.ndarray) -> Estimate:
    """Mean difference of two models.

    Parameters
    ----------
    value, baseline
        (n,) on the same items.

    Returns
    -------
    Estimate
        value - baseline, with its t interval.
    """
    return mean(value.astype(float) - baseline.astype(float))


def mean(values: np.ndarray) -> Estimate:
    """Mean of numbers.

    Parameters
    ----------
    values
        (n,).

    Returns
    -------
    Estimate
        With its t interval.
    """
    error = float(values.std(ddof=1) / len(values) ** 0.5) if len(values) > 1 else float("inf")
    middle, reach = float(values.mean()), half_width(error, max(len(values) - 1, 1))
    return _estimate(middle, middle - reach, middle + reach, len(values), "t")


def paired_ratio(value: np.ndarray, baseline: np.ndarray) -> Estimate:
    """Mean of one model as a share of another's.

    Parameters
    ----------
    value, baseline
        (n,) on the same items; the baseline's sum is not 0.

    Returns
    -------
    Estimate
        mean(value) / mean(baseline), with its t interval, of the ratio estimator over items.
    """
    ratio, reach = _a_token(value, baseline)
    return _estimate(ratio, ratio - reach, ratio + reach, len(value), "t of the ratio")


def perplexity(losses: np.ndarray) -> Estimate:
    """Perplexity: exp of the mean loss per token.

    Parameters
    ----------
    losses
        (windows, 2): sums in nats, and tokens.

    Returns
    -------
    Estimate
        With its t interval over windows.
    """
    mean, reach = _a_token(losses[:, 0], losses[:, 1])
    low, high = float(np.exp(mean - reach)), float(np.exp(min(mean + reach, 700)))
    return _estimate(float(np.exp(mean)), low, high, int(losses[:, 1].sum()), "t over windows")


def token_share(hits: np.ndarray, tokens: np.ndarray) -> Estimate:
    """Share of tokens.

    Parameters
    ----------
    hits, tokens
        (windows,) their numbers.

    Returns
    -------
    Estimate
        With its t interval over windows.
    """
    mean, reach = _a_token(hits, tokens)
    return _estimate(mean, max(0.0, mean - reach), min(1.0, mean + reach), int(tokens.sum()), "t over windows")


def loss_change(losses: np.ndarray, baseline: np.ndarray) -> Estimate:
    """Difference of the mean losses per token.

    Parameters
    ----------
    losses, baseline
        (windows, 2): sums in nats, and tokens, of the same windows.

    Returns
    -------
    Estimate
        losses - baseline, with its t interval over windows.
    """
    mean, reach = _a_token(losses[:, 0] - baseline[:, 0], losses[:, 1])
    return _estimate(mean, mean - reach, mean + reach, int(losses[:, 1].sum()), "t over windows")


def divergence(compared: np.ndarray) -> dict[str, Estimate]:
    """How far predictions are from those of another model.

    Parameters
    ----------
    compared
        (items, 3), an item being a window or a text: sum of the KL divergences in nats, rows for which both find the
        same class most likely, rows.

    Returns
    -------
    dict
        kl_divergence_nats: the mean of a row. top1_agreement: the share of the rows, 0 to 1. Each with its t interval
        over items; the agreement of items of one row with Wilson's.
    """
    sums, same, rows = compared.T
    mean, reach = _a_token(sums, rows)
    single, n = bool((rows == 1).all()), int(rows.sum())
    by = "t" if single else "t over windows"
    found = {"kl_divergence_nats": _estimate(mean, max(0.0, mean - reach), mean + reach, n, by)}
    if single:
        return found | {"top1_agreement": share(same.astype(bool))}
    return found | {"top1_agreement": token_share(same, rows)}


def divergence_of_classes(logits: np.ndarray, baseline: np.ndarray) -> np.ndarray:
    """Compare the predictions of two classifiers.

    Parameters
    ----------
    logits, baseline
        (texts, classes) of the same texts and classes.

    Returns
    -------
    np.ndarray
        (texts, 3), as `divergence` takes it: the KL divergence of the first from the second.
    """
    own, other = (special.log_softmax(found.astype(float), axis=1) for found in (logits, baseline))
    sums = (np.exp(other) * (other - own)).sum(1)
    return np.column_stack([sums, own.argmax(1) == other.argmax(1), np.ones(len(sums))])


def similarity(embeddings: np.ndarray, baseline: np.ndarray, seed: int = 0) -> Estimate:
    """Rank correlation of how similar texts are to each other in two models.

    Parameters
    ----------
    embeddings, baseline
        (texts, width) of the same texts; the widths may differ.
    seed
        Of the bootstrap.

    Returns
    -------
    Estimate
        Spearman's correlation of the cosines of all pairs of texts, with the percentiles of a bootstrap over texts, in
        which a pair counts as often as both of its texts are drawn together; a text is no pair with itself.
    """
    n, rng = len(embeddings), np.random.default_rng(seed)
    first, second = np.triu_indices(n, 1)
    kinds = [np.unique(_cosines(found)[first, second], return_inverse=True)[1] for found in (embeddings, baseline)]
    counts = [np.bincount(rng.integers(n, size=n), minlength=n) for _ in range(REPEATS)]
    values = [_spearman(*kinds, count[first] * count[second]) for count in counts]
    interval = f"bootstrap over texts, {REPEATS} repeats, seed {seed}"
    low, high = np.percentile(values, [2.5, 97.5])
    return _estimate(_spearman(*kinds, np.ones(len(first))), float(low), float(high), n, interval)


def mean_cosine(embeddings: np.ndarray, baseline: np.ndarray) -> Estimate:
    """Mean cosine of the embedding of a text in two models.

    Parameters
    ----------
    embeddings, baseline
        (texts, width) of the same texts.

    Returns
    -------
    Estimate
        With its t interval over texts.
    """
    own, other = (_unit(found) for found in (embeddings, baseline))
    return mean((own * other).sum(1))


def _unit(embeddings: np.ndarray) -> np.ndarray:
    found = embeddings.astype(float)
    return found / np.linalg.norm(found, axis=1, keepdims=True).clip(1e-12)


def _cosines(embeddings: np.ndarray) -> np.ndarray:
    found = _unit(embeddings)
    return found @ found.T


def _spearman(own: np.ndarray, other: np.ndarray, weights: np.ndarray) -> float:
    """Spearman's correlation of pairs that are there several times, 0 where one side is constant.

    own, other (pairs,): places of the values among the different ones, in order; weights (pairs,): how often each is.
    """
    ranks = []
    for places in (own, other):
        there = np.bincount(places, weights)
        found = (there.cumsum() - there / 2)[places]
        ranks.append(found - np.average(found, weights=weights) if weights.any() else found)
    a, b = ranks
    spread = np.sqrt((weights * a * a).sum() * (weights * b * b).sum())
    return float((weights * a * b).sum() / spread) if spread > 0 else 0.0


def _a_token(sums: np.ndarray, counts: np.ndarray) -> tuple[float, float]:
    """(mean a token, reach of its 95 % interval) from the sums and token counts of windows: the ratio estimator."""
    windows, mean = len(sums), float(sums.sum() / counts.sum())
    if windows < 2:
        return mean, float("inf")
    squares = np.square(sums - mean * counts).sum() * windows / (windows - 1)
    return mean, half_width(float(np.sqrt(squares) / counts.sum()), windows - 1)


def _f1(truth: np.ndarray, prediction: np.ndarray) -> float:
    """Micro-averaged F1 over all classes but `NONE`, both (rows,) ids; 0 where neither has such a class."""
    hits, there, _ = _counts(truth, prediction)
    return float(2 * hits.sum() / max(there.sum(), 1))


def _macro_f1(truth: np.ndarray, prediction: np.ndarray) -> float:
    """Mean F1 of the classes that occur in the truth but for `NONE`, both (rows,) ids; 0 where there is none."""
    hits, there, known = _counts(truth, prediction)
    return float((2 * hits[known] / there[known]).mean()) if known.any() else 0.0


def _counts(truth: np.ndarray, prediction: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """By class: right rows, rows of truth and of prediction together, whether it occurs in the truth.

    The values are those of scikit-learn's f1_score (tested), which is too slow to be repeated a thousand times.
    """
    classes = max(truth.max(), prediction.max(), 0) + 1
    kinds = (truth[truth == prediction], truth, prediction)
    hits, true, predicted = (np.bincount(ids[ids != NONE], minlength=classes) for ids in kinds)
    return hits, true + predicted, true > 0


def _agreement(truth: np.ndarray, prediction: np.ndarray) -> float:
    return float((truth == prediction).mean())


def _pearson(truth: np.ndarray, prediction: np.ndarray) -> float:
    """0 where one side is constant: then it tells nothing.

    The values are those of scipy (tested), which also finds p-values, too slow to be repeated a thousand times.
    """
    return float(np.corrcoef(truth, prediction)[0, 1]) if np.ptp(truth) and np.ptp(prediction) else 0.0


def _spearman_of_items(truth: np.ndarray, prediction: np.ndarray) -> float:
    return _pearson(stats.rankdata(truth), stats.rankdata(prediction))


STATISTICS = {
    "f1": _f1,
    "macro_f1": _macro_f1,
    "accuracy": _agreement,
    "spearman": _spearman_of_items,
    "pearson": _pearson,
}


def _value(metric: str, found: Outcome, drawn: np.ndarray) -> float:
    """The metric on the items `drawn` (indices)."""
    if isinstance(found, np.ndarray):
        return float(found[drawn].mean())
    rows = np.concatenate([found[i] for i in drawn])
    return STATISTICS[metric](rows[:, 0], rows[:, 1])


def _bootstrap(value: Callable[[np.ndarray], float], n: int, seed: int) -> Estimate:
    """`value` of all `n` items with the 2.5 and 97.5 % percentiles of its values on items drawn with replacement."""
    rng = np.random.default_rng(seed)
    low, high = np.percentile([value(rng.integers(n, size=n)) for _ in range(REPEATS)], [2.5, 97.5])
    interval = f"bootstrap over items, {REPEATS} repeats, seed {seed}"
    return _estimate(value(np.arange(n)), float(low), float(high), n, interval)


def _estimate(value: float, low: float, high: float, n: int, interval: str) -> Estimate:
    return {"value": value, "ci_low": low, "ci_high": high, "n": n, "interval": interval}


def _normalised(answer: str) -> str:
    """An answer in lower case without punctuation, articles and double spaces (Rajpurkar et al. 2016, SQuAD)."""
    kept = "".join(c for c in answer.lower() if c not in string.punctuation)
    return " ".join(re.sub(r"\b(a|an|the)\b", " ", kept).split())


def _right(truths: Sequence[str]) -> list[str]:
    return [t for t in map(_normalised, truths) if t] or [""]  # no answer is right where there is none


def exact_match(prediction: str, truths: Sequence[str]) -> bool:
    """Tell whether an answer is, normalised, one of the right ones.

    Parameters
    ----------
    prediction
        An answer.
    truths
        Right answers; where there are none, the empty answer is right.

    Returns
    -------
    bool
        As SQuAD counts it.
    """
    return _normalised(prediction) in _right(truths)


def answer_f1(prediction: str, truths: Sequence[str]) -> float:
    """F1 of the words that an answer shares with a right one.

    Parameters
    ----------
    prediction
        An answer.
    truths
        Right answers; where there are none, the empty answer is right.

    Returns
    -------
    float
        The best over the right ones, 0 to 1, as SQuAD counts it.
    """

    def one(truth: list[str]) -> float:
        if not (truth and found):
            return float(truth == found)
        common = sum((Counter(truth) & Counter(found)).values())
        return 2 * common / (len(truth) + len(found))

    found = _normalised(prediction).split()
    return max(one(truth.split()) for truth in _right(truths))
