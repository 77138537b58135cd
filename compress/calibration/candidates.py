"""What can be sampled from candidates, and which of it is closest to the targets in the model's own states.

Closeness is transmeter's scorer `alignment` on the hidden states of the model, which sees nothing of how they came.
"""

import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from compress.calibration.hidden_states import DEPTHS, HiddenStates, merge
from compress.calibration.selection import NEED_TARGET, PROPOSED, WAYS, fill
from compress.calibration.uncertainty import uncertainty
from transmeter.scorers.alignment import Closeness, Points, closeness

# a mixture must be closer to one target by this factor; chosen on the first sample of benchmarks/calibration_quality.py
MARGIN = 1.2
ALIKE = 1e-5  # of the largest number of the states, below which they differ by rounding alone


@dataclass(frozen=True)
class Target:
    """What is to be protected.

    Attributes
    ----------
    states
        Of its texts.
    weight
        How much it counts beside other targets, above 0.
    """

    states: HiddenStates
    weight: float = 1.0


@dataclass(frozen=True)
class Choice:
    """What was chosen from the candidates.

    Attributes
    ----------
    name
        A candidate, or a way of choosing from all of them.
    states
        Of the texts that it gives.
    scores
        Closeness of everything that was measured, by name; empty where nothing was.
    by_target
        The same for every target, in the order of the targets.
    intervals
        95 % interval of every closeness over samples of the same texts; None where too little was measured to tell.
    tied
        What cannot be told apart from `name`, closest first.
    """

    name: str
    states: HiddenStates
    scores: dict[str, float] = field(default_factory=dict)
    by_target: list[dict[str, float]] = field(default_factory=list)
    intervals: dict[str, tuple[float, float] | None] = field(default_factory=dict)
    tied: list[str] = field(default_factory=list)


def points(states: HiddenStates) -> Points:
    """Hidden states as the scorer takes them.

    Parameters
    ----------
    states
        Of a set of texts.

    Returns
    -------
    Points
        A space per depth.
    """
    return Points({depth: states.states[:, i] for i, depth in enumerate(DEPTHS)}, states.labels)


def compare(sets: Mapping[str, HiddenStates], target: HiddenStates) -> dict[str, Closeness]:
    """How close the hidden states of sets of texts come to those of a target.

    Parameters
    ----------
    sets
        By name.
    target
        What they should be close to.

    Returns
    -------
    dict
        By name.

    Raises
    ------
    ValueError
        All texts of the target are alike.

    Warns
    -----
    UserWarning
        A set shares no label with the target and is left out.
    """
    least = ALIKE * np.abs(target.states).max((0, 2))
    if (np.ptp(target.states, axis=0).max(1) <= least).any():
        alike = f"all that {target.origins[0]} holds is alike to the model, so that no closeness to it can be measured"
        raise ValueError(f"{alike}: give more texts of it, or another --by")
    aim, found = points(target), {}
    for name, states in sets.items():
        if np.isin(states.labels, target.labels).any():
            found[name] = closeness(points(states), aim)
        else:
            warnings.warn(
                f"{name} is left out: what the model predicts on it, it never does on the target", stacklevel=2
            )
    return found


def _none_shares() -> ValueError:
    return ValueError("what the model predicts on the candidates, it never does on the targets: give other candidates")


def own_texts(by_target: Mapping[str, Mapping[str, float]]) -> list[str]:
    """Targets whose own text is not as close to them as a mixture of all candidates.

    Parameters
    ----------
    by_target
        Closeness by name, for every target by name. A candidate of the target's name is its own text.

    Returns
    -------
    list of str
        A sentence without its stop each.
    """
    found = []
    for target, scores in by_target.items():
        mixtures = {name: scores[name] for name in PROPOSED if name in scores}
        best = max(mixtures, key=lambda name: mixtures[name], default=None)
        if best and target in scores and scores[best] > scores[target]:
            figures = f"{scores[best]:.3g} against {scores[target]:.3g}"
            found.append(f"of {target} the mixture {best} is closer than its own text ({figures})")
    return found


def read_all(names: Iterable[str], collect: Callable[[str], HiddenStates]) -> dict[str, HiddenStates]:
    """Hidden states of candidates; one that gives none is left out with a warning.

    Parameters
    ----------
    names
        Of the candidates.
    collect
        Gives the hidden states of a candidate, or raises ValueError where it has none.

    Returns
    -------
    dict
        By name.

    Raises
    ------
    ValueError
        No candidate gives any.
    """
    found = {}
    for name in names:
        try:
            found[name] = collect(name)
        except ValueError as error:
            warnings.warn(f"{name} is left out: {error}", stacklevel=3)
    if not found:
        raise ValueError("no candidate has texts that can be measured: give longer texts")
    return found


def check_way(by: str, targets: bool) -> None:
    """Check a way of choosing.

    Parameters
    ----------
    by
        "measure" or one of `selection.WAYS`.
    targets
        Whether there are any.

    Raises
    ------
    ValueError
        The way is unknown, or needs a target where there is none.
    """
    if by not in ("measure", *WAYS):
        raise ValueError(f"--by {by} is unknown: give measure, {', '.join(WAYS)}")
    if not targets and by in ("measure", *NEED_TARGET):
        raise ValueError(f"--by {by} needs a target: give --target, or --by uniform")


def scores_of(compared: Mapping[str, Closeness]) -> dict[str, float]:
    """Scores alone.

    Parameters
    ----------
    compared
        Of `compare`.

    Returns
    -------
    dict
        By name, higher is closer.
    """
    return {name: one.score for name, one in compared.items()}


def joined(each: Sequence[Mapping[str, float]], targets: Sequence[Target], protect: str) -> dict[str, float]:
    """Closeness to several targets as one.

    Parameters
    ----------
    each
        By name, for every target.
    targets
        Whose weights count.
    protect
        "mean": of the logarithms, by weight; "worst": the lowest.

    Returns
    -------
    dict
        By name, closest first.
    """
    shares = _shares(each, targets, protect)
    logs = {name: share @ np.log([scores[name] for scores in each]) for name, share in shares.items()}
    return {name: float(np.exp(value)) for name, value in sorted(logs.items(), key=lambda item: -item[1])}


def _shares(each: Sequence[Mapping[str, float]], targets: Sequence[Target], protect: str) -> dict[str, np.ndarray]:
    """What every target counts in the closeness of a set, 1 in all, by name; of "worst" the least close one alone."""
    names = [name for name in each[0] if all(name in scores for scores in each)]
    weights = np.array([t.weight for t in targets]) / sum(t.weight for t in targets)
    if protect != "worst":
        return dict.fromkeys(names, weights)
    worst = {name: int(np.argmin([scores[name] for scores in each])) for name in names}
    return {name: np.eye(len(each))[place] for name, place in worst.items()}


def select(by: str, pool: HiddenStates, targets: Sequence[Target], tokens: int, seed: int) -> HiddenStates:
    """Texts of a pool by one way of choosing.

    Parameters
    ----------
    by
        One of `selection.WAYS`.
    pool
        Texts of all candidates.
    targets
        None: all of the pool is to be protected.
    tokens
        Largest number of tokens.
    seed
        Of the way.

    Returns
    -------
    HiddenStates
        Of the texts that were chosen.
    """
    target = merge([t.states for t in targets]) if targets else pool
    return pool.take(fill(pool, WAYS[by](pool, target, tokens, seed), tokens))


def _proposals(
    sets: Mapping[str, HiddenStates], targets: Sequence[Target], tokens: int, seed: int
) -> dict[str, HiddenStates]:
    """What `tokens` tokens could be: every set by itself and, of several sets, mixtures by `selection.PROPOSED`."""
    found = {name: one.take(fill(one, range(len(one.sequences)), tokens)) for name, one in sets.items()}
    if len(sets) > 1:
        pool = merge(list(sets.values()))
        found.update({way: select(way, pool, targets, tokens, seed) for way in PROPOSED})
    return found


def choose(
    sets: Mapping[str, HiddenStates],
    targets: Sequence[Target],
    *,
    tokens: int,
    by: str = "measure",
    protect: Literal["mean", "worst"] = "mean",
    seed: int = 0,
) -> Choice:
    """Choose what to calibrate with.

    Parameters
    ----------
    sets
        Hidden states of the candidates by name, `tokens` tokens each.
    targets
        What is to be protected.
    tokens
        Largest number of tokens of the choice.
    by
        "measure": the closest of every candidate by itself and mixtures; else one of `selection.WAYS` over all
        candidates, without measuring.
    protect
        Of several targets "mean", the geometric mean of the closeness by weight, or "worst", the lowest closeness.
    seed
        Of the ways.

    Returns
    -------
    Choice
        With the closeness of everything that was measured.

    Raises
    ------
    ValueError
        As `check_way`; none of the sets shares a label with every target, or all texts of one are alike.
    """
    check_way(by, bool(targets))
    if by != "measure":
        return Choice(by, select(by, merge(list(sets.values())), targets, tokens, seed))
    proposals = _proposals(sets, targets, tokens, seed)
    compared = [compare(proposals, target.states) for target in targets]
    each = [scores_of(one) for one in compared]
    scores = joined(each, targets, protect)
    if not scores:
        raise _none_shares()
    best = pick(scores, len(targets))
    sure = uncertainty(
        scores,
        {name: [one[name] for one in compared] for name in scores},
        proposals,
        [target.states for target in targets],
        _shares(each, targets, protect),
    )
    intervals = {name: sure.interval(name) for name in scores}
    return Choice(best, proposals[best], scores, each, intervals, sure.tied(best))


def pick(scores: Mapping[str, float], targets: int = 1) -> str:
    """The closest candidate, or a mixture that is closer.

    To one target it must be closer by `MARGIN`: it was chosen to be close, a candidate was not. Of several targets a
    single set leaves some out, and the mixture is taken as soon as it is closer (benchmarks/calibration_several.py).

    Parameters
    ----------
    scores
        Closeness by name.
    targets
        To how many targets.

    Returns
    -------
    str
        A name.
    """
    mixture = max((n for n in scores if n in PROPOSED), key=lambda name: scores[name], default=None)
    single = max((n for n in scores if n not in PROPOSED), key=lambda name: scores[name], default=None)
    if mixture is None or single is None:
        return mixture or single
    margin = MARGIN if targets == 1 else 1.0
    return mixture if scores[mixture] > margin * scores[single] else single


def reason(scores: Mapping[str, float], taken: str) -> str | None:
    """Why what scores highest was not taken.

    Parameters
    ----------
    scores
        Closeness by name.
    taken
        What `pick` gave.

    Returns
    -------
    str or None
        A sentence without its stop; None where the highest was taken, and where nothing was measured.
    """
    first = max(scores, key=lambda name: scores[name], default=taken)
    if first == taken:
        return None
    ahead = scores[first] / scores[taken]
    return f"{first}, a mixture, is {ahead:.2f} times as close as {taken}: it is taken from {MARGIN:g} times on"
