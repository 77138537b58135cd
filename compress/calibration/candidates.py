"""Calibration data chosen by measurement: what could be drawn from the candidates, and which draw is closest.

The measure is given by the caller (the command line gives transmeter's alignment), since it knows nothing of models:
it gets `features`, plain arrays.
"""

import hashlib
import json
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from transformers import PreTrainedTokenizerBase as Tokenizer

from compress.calibration.generation import generate
from compress.calibration.hidden_states import DEPTHS, HiddenStates, clusters, collect_cached, merge
from compress.calibration.sampling import fingerprint
from compress.calibration.selection import LOOKING, PROPOSED, WAYS, fill
from compress.calibration.texts import MAX_LENGTH, Text, cut, decode
from compress.calibration.texts import pack as pack_texts
from compress.model import io
from compress.model.structure import context
from transmeter.util import writing
from transmeter.util.checkpoint import hash_of
from transmeter.util.progress import track

SCREENED = 20  # candidates that are measured in full; of more, the closest by the cheap measure
AT_ONCE = 20  # candidates in memory while they are screened
LOOKED = 2000  # tokens of a candidate that are looked at: with few hundred the measure is chance
MARGIN = 1.2  # chosen on the first draw of benchmarks/calibration_quality.py
ROOM = 2  # tokens that are looked at to select one, once it is known from which sets
TARGET_SEED = 1000  # added to the seed for the target's texts, so that a candidate of the same texts is another draw


@dataclass(frozen=True)
class CalibrationSet:
    """Token sequences to calibrate with, and the candidate that each is of."""

    sequences: list[list[int]]
    origins: list[str]


@dataclass(frozen=True)
class Part:
    """What was drawn from one candidate; hash: SHA-256 of its token ids."""

    name: str
    share: float
    tokens: int
    texts: int
    hash: str


@dataclass(frozen=True)
class Target:
    """What is to be protected: its texts as the model sees them, and how much it counts beside others."""

    view: HiddenStates
    weight: float = 1.0


# closeness of sets to a target, above 0, higher is closer: (target, sets by name, cheap) -> score by name
Score = Callable[[HiddenStates, Mapping[str, HiddenStates], bool], Mapping[str, float]]


def features(view: HiddenStates) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """What a measure gets: states (rows, depths * width), labels (rows,), and columns named DEPTH::NUMBER."""
    rows, _, width = view.states.shape
    return view.states.reshape(rows, -1), view.labels, [f"{depth}::{i}" for depth in DEPTHS for i in range(width)]


def screen(
    names: Sequence[str],
    look: Callable[[str], HiddenStates],
    targets: Sequence[Target],
    score: Score,
    keep: int = SCREENED,
) -> dict[str, HiddenStates]:
    """The `keep` candidates that the cheap measure finds closest to all targets, few of them in memory at a time.

    Raises ValueError where no candidate gives anything to look at; warns of each that does not.
    """
    if len(names) <= keep or not targets:
        found = _usable(track(names, "Looking at candidates"), look)
    else:
        scores: dict[str, float] = {}
        for start in track(range(0, len(names), AT_ONCE), "Screening candidates"):
            if views := _usable(names[start : start + AT_ONCE], look):
                scores |= _joined([score(t.view, views, True) for t in targets], targets, "mean")
        found = {name: look(name) for name in sorted(scores, key=lambda name: -scores[name])[:keep]}
    if not found:
        raise ValueError("no candidate gives anything to look at: give longer texts")
    return found


def _usable(names: Iterable[str], look: Callable[[str], HiddenStates]) -> dict[str, HiddenStates]:
    """Surveys of the candidates that give any; warns of the others."""
    found = {}
    for name in names:
        try:
            found[name] = look(name)
        except ValueError as error:
            warnings.warn(f"{name} is left out: {error}", stacklevel=3)
    return found


def check_way(by: str, targets: bool) -> None:
    """Raise ValueError for an unknown way, and for one that needs a target where there is none."""
    if by not in ("measure", *WAYS):
        raise ValueError(f"--by {by} is unknown: give measure, {', '.join(WAYS)}")
    if not targets and by in ("measure", *LOOKING):
        raise ValueError(f"--by {by} looks at a target: give --target, or --by uniform")


def _joined(each: Sequence[Mapping[str, float]], targets: Sequence[Target], protect: str) -> dict[str, float]:
    """Scores of several targets as one: the mean of their logarithms by weight, or the lowest."""
    known = [name for name in each[0] if all(name in found for found in each)]
    logs = np.log([[found[name] for name in known] for found in each]).reshape(len(each), len(known))
    weights = np.array([t.weight for t in targets]) / sum(t.weight for t in targets)
    return dict(zip(known, np.exp(logs.min(0) if protect == "worst" else weights @ logs).tolist()))


def propose(
    views: Mapping[str, HiddenStates], targets: Sequence[Target], tokens: int, seed: int = 0
) -> dict[str, HiddenStates]:
    """What `tokens` tokens could be drawn: every set by itself, and, of several, mixtures by `selection.PROPOSED`."""
    found = {name: view.take(fill(view, range(len(view.sequences)), tokens)) for name, view in views.items()}
    if len(views) > 1:
        pool = merge(list(views.values()))
        for way in PROPOSED:
            found[way] = _selected(way, pool, targets, tokens, seed)
    return found


def _selected(way: str, pool: HiddenStates, targets: Sequence[Target], tokens: int, seed: int) -> HiddenStates:
    """`tokens` tokens of the pool by one of `selection.WAYS`; without targets all of it is to be kept."""
    target = merge([t.view for t in targets]) if targets else pool
    return pool.take(fill(pool, WAYS[way](pool, target, tokens, seed), tokens))


def choose(
    views: Mapping[str, HiddenStates],
    targets: Sequence[Target],
    score: Score,
    *,
    tokens: int = 20_000,
    by: str = "measure",
    protect: Literal["mean", "worst"] = "mean",
    seed: int = 0,
) -> tuple[str, HiddenStates, dict[str, float]]:
    """What wins, the texts that it gives, and the closeness of everything that was weighed (name -> score).

    views: candidates, of `tokens` tokens each; by: measure, the closest of what `propose` gives, or one of
    `selection.WAYS` over all candidates, unmeasured. Of several targets the geometric mean by weight counts, or the
    worst. Raises ValueError for an unknown way, and one that needs a target where there is none.
    """
    check_way(by, bool(targets))
    if by != "measure":
        return by, _selected(by, merge(list(views.values())), targets, tokens, seed), {}
    wanted = propose(views, targets, tokens, seed)
    scores = _joined([score(t.view, wanted, False) for t in targets], targets, protect)
    best = pick(scores)
    return best, wanted[best], scores


def pick(scores: Mapping[str, float]) -> str:
    """The closest single set, or a mixture that is closer by `MARGIN`: it was drawn to be close, a set was not."""
    mixture = max((n for n in scores if n in PROPOSED), key=lambda name: scores[name], default=None)
    single = max((n for n in scores if n not in PROPOSED), key=lambda name: scores[name], default=None)
    if mixture is None or single is None:
        return mixture or single
    return mixture if scores[mixture] > MARGIN * scores[single] else single


def calibrate(
    model: str,
    pools: Mapping[str, Sequence[Text] | None],
    targets: Mapping[str, tuple[Sequence[Text], float]],
    score: Score,
    *,
    tokens: int = 20_000,
    by: str = "measure",
    protect: Literal["mean", "worst"] = "mean",
    pack: bool = False,
    seed: int = 0,
    cache: Path,
) -> tuple[CalibrationSet, dict[str, float], Tokenizer]:
    """`tokens` tokens of what `choose` gives for the texts of every candidate, and the tokenizer they were read with.

    pools: None for what the model writes itself; targets: texts and weight by name; pack: fill sequences to their
    length, for models that predict next tokens; cache: folder for surveys, so that a stopped run goes on. `LOOKED`
    tokens of a candidate are looked at; those wanted are drawn from the sets that were chosen, in the same shares.
    Raises ValueError as `check_way`, for a candidate called like a way, and for `pack` where texts are looked at alone.
    """
    check_way(by, bool(targets))
    taken = next((name for name in pools if name in WAYS), None)
    if taken:
        raise ValueError(f"a candidate is called {taken}, as a way of choosing is: name it as NAME=TEXTS")
    net, tokenizer = io.load(model)
    length, known, groups = context(net, MAX_LENGTH), hash_of(model), clusters(net, seed)
    if pack and net.get_output_embeddings() is None:
        raise ValueError("--pack joins texts, but the model looks at them one by one: leave it out")

    def read(texts: Sequence[Text] | None, count: int, draw: int) -> list[list[int]]:
        if texts is None:
            return generate(net, tokenizer, count, length, draw)
        return (pack_texts if pack else cut)(tokenizer, texts, count, length, draw)

    def look(name: str, texts: Sequence[Text] | None, count: int, draw: int) -> HiddenStates:
        return collect_cached(cache, known, net, tokenizer, name, read(texts, count, draw), seed, groups)

    wanted = [Target(look(n, texts, LOOKED, seed + TARGET_SEED), weight) for n, (texts, weight) in targets.items()]
    views = screen(list(pools), lambda name: look(name, pools[name], LOOKED, seed), wanted, score)
    way, chosen, scores = choose(views, wanted, score, tokens=LOOKED, by=by, protect=protect, seed=seed)
    if tokens == LOOKED:
        return CalibrationSet(chosen.sequences, chosen.origins), scores, tokenizer
    shares = {part.name: part.share for part in parts(CalibrationSet(chosen.sequences, chosen.origins))}
    if way in WAYS and way not in ("random", "uniform"):  # texts were selected: so are the others
        pool = merge([look(n, pools[n], round(ROOM * share * tokens), seed) for n, share in shares.items()])
        more = _selected(way, pool, wanted, tokens, seed)
        return CalibrationSet(more.sequences, more.origins), scores, tokenizer
    found = {name: read(pools[name], round(share * tokens), seed) for name, share in shares.items()}
    origins = [name for name, ids in found.items() for _ in ids]
    return CalibrationSet([s for ids in found.values() for s in ids], origins), scores, tokenizer


def parts(chosen: CalibrationSet) -> list[Part]:
    """What each candidate gives, most tokens first."""
    found = []
    for name in dict.fromkeys(chosen.origins):
        ids = [s for s, origin in zip(chosen.sequences, chosen.origins) if origin == name]
        tokens = sum(map(len, ids))
        digest = hashlib.sha256(json.dumps(ids).encode()).hexdigest()
        found.append(Part(name, tokens / sum(map(len, chosen.sequences)), tokens, len(ids), digest))
    return sorted(found, key=lambda part: -part.tokens)


def save(chosen: CalibrationSet, tokenizer: Tokenizer, out: Path, about: Mapping[str, object]) -> None:
    """Write a Hugging Face data set with provenance.json to `out`; it gets its name when it is complete.

    Columns: text, source, input_ids, and text_pair where there are pairs.
    """
    from datasets import Dataset

    texts = [decode(tokenizer, ids) for ids in chosen.sequences]
    pairs = [(text, "") if isinstance(text, str) else text for text in texts]
    columns = {"text": [a for a, _ in pairs], "source": chosen.origins, "input_ids": chosen.sequences}
    if any(b for _, b in pairs):
        columns["text_pair"] = [b for _, b in pairs]
    with writing.new_folder(out) as partial:
        Dataset.from_dict(columns).save_to_disk(str(partial))
        provenance = {**about, "tokenizer": fingerprint(tokenizer), "parts": [asdict(part) for part in parts(chosen)]}
        (partial / "provenance.json").write_text(json.dumps(provenance, indent=1), encoding="utf-8")
