"""Ways of choosing texts of a pool, each one function: (pool, target, tokens, seed) -> order of the pool's sequences.

The first sequences of the order, up to the number of tokens, are what is chosen (`fill`). Pool and target are hidden
states in the model that is to be compressed.
"""

import heapq
from collections.abc import Callable, Sequence

import numpy as np
from sklearn.cluster import MiniBatchKMeans
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from compress.calibration.hidden_states import HiddenStates

FEW = 20  # rows of a label, on either side, below which it has no discriminator of its own
MOST = 1000  # rows that a discriminator learns from, on either side


def _random(pool: HiddenStates, target: HiddenStates, tokens: int, seed: int) -> np.ndarray:
    """Any order: sets give texts in proportion to what the pool has of them."""
    return np.random.default_rng(seed).permutation(len(pool.sequences))


def _uniform(pool: HiddenStates, target: HiddenStates, tokens: int, seed: int) -> np.ndarray:
    """Equal tokens of every set."""
    order = _random(pool, target, tokens, seed)
    taken = dict.fromkeys(pool.origins, 0)
    before = np.empty(len(order))
    for i in order:  # tokens of the same set that come earlier
        before[i] = taken[pool.origins[i]]
        taken[pool.origins[i]] += len(pool.sequences[i])
    return order[np.argsort(before[order], kind="stable")]


def _longest(pool: HiddenStates, target: HiddenStates, tokens: int, seed: int) -> np.ndarray:
    """The longest sequences first, those of one length in any order."""
    order = _random(pool, target, tokens, seed)
    return order[np.argsort(-pool.lengths[order], kind="stable")]


def _lowest_perplexity(pool: HiddenStates, target: HiddenStates, tokens: int, seed: int) -> np.ndarray:
    """The lowest negative log-likelihood of a decoder's next tokens, or entropy of a classifier's prediction, first."""
    return np.argsort(pool.nll, kind="stable")


def _lexical_diversity(pool: HiddenStates, target: HiddenStates, tokens: int, seed: int) -> np.ndarray:
    """Greedily the sequence with most tokens of the vocabulary that were not chosen before, a token of its length.

    In the way of ZipCal (arXiv 2603.16105).
    """
    known: set[int] = set()
    kinds = [set(s) for s in pool.sequences]
    ranks = np.argsort(_random(pool, target, tokens, seed))  # ties
    heap = [(-len(k) / len(s), ranks[i], i) for i, (k, s) in enumerate(zip(kinds, pool.sequences))]
    heapq.heapify(heap)
    order = []
    while heap:  # what a sequence brings only falls: the top one that is up to date is the best
        _, rank, i = heapq.heappop(heap)
        value = -len(kinds[i] - known) / len(pool.sequences[i])
        if heap and (value, rank) > heap[0][:2]:
            heapq.heappush(heap, (value, rank, i))
            continue
        known |= kinds[i]
        order.append(i)
    return np.array(order)


def _activation_coverage(pool: HiddenStates, target: HiddenStates, tokens: int, seed: int) -> np.ndarray:
    """The sequence nearest to the centre of each of as many clusters of mean states as sequences are wanted.

    In the way of COLA (arXiv 2510.10618).
    """
    states = StandardScaler().fit_transform(pool.means()[:, 1:].reshape(len(pool.sequences), -1))
    wanted = int(np.clip(round(tokens / pool.lengths.mean()), 1, len(states)))
    clusters = MiniBatchKMeans(wanted, n_init=1, random_state=seed).fit(states)
    distance = np.linalg.norm(states - clusters.cluster_centers_[clusters.labels_], axis=1)
    order = np.argsort(distance, kind="stable")
    _, first = np.unique(clusters.labels_[order], return_index=True)
    nearest = order[np.sort(first)]
    rest = order[~np.isin(order, nearest)]
    return np.concatenate([np.random.default_rng(seed).permutation(nearest), rest])


def _embedding_similarity(pool: HiddenStates, target: HiddenStates, tokens: int, seed: int) -> np.ndarray:
    """Cosine of the mean state, entering the last block, with that of the target."""
    centre = target.means()[:, -1].mean(0)
    means = pool.means()[:, -1]
    return np.argsort(-(means @ centre) / np.linalg.norm(means, axis=1).clip(1e-9), kind="stable")


def _activation_centroid(pool: HiddenStates, target: HiddenStates, tokens: int, seed: int) -> np.ndarray:
    """The smallest distance of the mean state from the target's, in units of the latter's norm, the mean over depths.

    In the way of ACDM (openreview pfw3saHzGU), by what its abstract says: it has all blocks, here there are three.
    """
    centre = target.means().mean(0)  # (depths, width)
    distance = np.linalg.norm(pool.means() - centre, axis=2) / np.linalg.norm(centre, axis=1).clip(1e-9)
    return np.argsort(distance.mean(1), kind="stable")


def _closeness(pool: HiddenStates, target: HiddenStates, tokens: int, seed: int) -> np.ndarray:
    """Sampled without replacement by how much likelier the states of a sequence are in the target than in the pool.

    A discriminator a label gives the odds (importance resampling as in DSIR, arXiv 2302.03169, but in the model's own
    states), so that the sample has the target's variety, not only its centre.
    """
    rng, odds = np.random.default_rng(seed), np.zeros(len(pool.owners))
    x_p, x_t = (s.states[:, 1:].reshape(len(s.states), -1) for s in (pool, target))
    for label in np.unique(pool.labels):
        p, t = np.flatnonzero(pool.labels == label), np.flatnonzero(target.labels == label)
        share = max(len(t), 1) / len(x_t) / (len(p) / len(x_p))  # of the label, in the target against the pool
        seen_t = t if min(len(t), len(p)) >= FEW else np.arange(len(x_t))
        rows = [x[rng.permutation(found)[:MOST]] for x, found in ((x_p, p), (x_t, seen_t))]
        judge = make_pipeline(StandardScaler(), LogisticRegression(C=0.01, max_iter=50, class_weight="balanced"))
        judge.fit(np.concatenate(rows), np.repeat([0, 1], list(map(len, rows))))
        odds[p] = judge.decision_function(x_p[p]) + np.log(share)
    sums = np.bincount(pool.owners, odds, minlength=len(pool.sequences))
    each = sums / np.bincount(pool.owners, minlength=len(pool.sequences)).clip(1)
    return np.argsort(-(each + rng.gumbel(size=len(each))), kind="stable")


Way = Callable[[HiddenStates, HiddenStates, int, int], np.ndarray]
_ALL = (_random, _uniform, _longest, _lowest_perplexity, _lexical_diversity, _activation_coverage)
WAYS: dict[str, Way] = {f.__name__[1:]: f for f in (*_ALL, _embedding_similarity, _activation_centroid, _closeness)}
NEED_TARGET = ("embedding_similarity", "activation_centroid", "closeness")  # ways that choose by a target
PROPOSED = ("uniform", "closeness")  # mixtures that are measured beside the single sets


def fill(pool: HiddenStates, order: Sequence[int], tokens: int) -> list[int]:
    """Take the first sequences of an order that fit into a number of tokens; one that is too long is passed over.

    Parameters
    ----------
    pool
        What they are taken from.
    order
        Of its sequences.
    tokens
        Largest number of tokens.

    Returns
    -------
    list
        Indices of the sequences.
    """
    chosen, left = [], tokens
    for i in order:
        if len(pool.sequences[i]) <= left:
            chosen.append(int(i))
            left -= len(pool.sequences[i])
    return chosen
