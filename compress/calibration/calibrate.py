"""Calibration data for a model, from candidates and targets to a data set on disk."""

import hashlib
import json
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np
from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase as Tokenizer

from compress.calibration import contamination, toolkits
from compress.calibration.candidates import (
    Choice,
    Target,
    check_way,
    choose,
    own_texts,
    read_all,
    reason,
    select,
)
from compress.calibration.generation import generate
from compress.calibration.hidden_states import HiddenStates, clusters, collect_cached, embed, merge
from compress.calibration.sampling import Sequences, fingerprint, nothing, sequences_of
from compress.calibration.screening import KEPT, screen
from compress.calibration.selection import NEED_TARGET, WAYS
from compress.calibration.texts import USUAL, Text, check_texts, decode, parts_of, read_texts, spread
from compress.model import io
from compress.model.embedding import has_head
from transmeter.scorers.alignment import Points
from transmeter.tables import specs
from transmeter.util import arguments, writing
from transmeter.util.checkpoint import hash_of
from transmeter.util.counts import counted
from transmeter.util.progress import track

MEASURED = 2000  # tokens of a candidate that are measured: with a few hundred the measure is chance
ROOM = 2  # tokens that are read for every one that is selected, once it is known from which sets
TARGET_SEED = 1000  # added to the seed for the target's texts, so that a candidate of the same texts is another sample
SELF = "self"  # the candidate that the model writes itself

Source = str | Path | Sequence[Text]


@dataclass(frozen=True)
class Part:
    """What one candidate gives.

    Attributes
    ----------
    name
        Of the candidate.
    share
        Of all tokens, 0 to 1.
    tokens, texts
        Their numbers.
    hash
        SHA-256 of the token ids.
    """

    name: str
    share: float
    tokens: int
    texts: int
    hash: str


@dataclass(frozen=True)
class CalibrationSet:
    """Texts to calibrate with.

    Attributes
    ----------
    sequences
        Token ids of every text.
    origins
        The candidate that each is of.
    tokenizer
        That the ids are of.
    by
        The way in which they were chosen.
    scores
        Closeness of everything that was measured, by name; empty where nothing was.
    by_target
        The same for every target by name.
    length
        Largest number of tokens that a sequence may have.
    pack
        Whether texts are joined, so that every sequence is full.
    reason
        Why what is closest was not taken; None where it was.
    intervals
        95 % interval of every closeness over other samples of the same texts, by name; None where too little was
        measured to tell.
    tied
        What was measured and cannot be told apart from what was taken, closest first.
    chosen
        What was taken: a candidate, or a way of choosing from all.
    usage
        Code or command of every toolkit that a file was written for, by its name.
    """

    sequences: list[list[int]]
    origins: list[str]
    tokenizer: Tokenizer = field(compare=False, repr=False)
    by: str = "uniform"
    scores: dict[str, float] = field(default_factory=dict)
    by_target: dict[str, dict[str, float]] = field(default_factory=dict)
    length: int | None = None
    pack: bool = False
    reason: str | None = None
    intervals: dict[str, tuple[float, float] | None] = field(default_factory=dict)
    tied: list[str] = field(default_factory=list)
    chosen: str | None = None
    usage: dict[str, str] = field(default_factory=dict)

    @property
    def texts(self) -> list[Text]:
        """The texts, or pairs of texts, as `compress.compress(calibration=...)` takes them."""
        return [decode(self.tokenizer, ids) for ids in self.sequences]

    @property
    def notes(self) -> list[str]:
        """What is odd of the closeness to single targets, a sentence without its stop each."""
        return own_texts(self.by_target)

    @property
    def parts(self) -> list[Part]:
        """What each candidate gives, most tokens first."""
        return _parts(self.sequences, self.origins)

    def save(self, out: Path, about: Mapping[str, object], asked: Sequence[str] = ()) -> None:
        """Write a Hugging Face data set, provenance.json and files for other toolkits.

        Parameters
        ----------
        out
            New folder; it gets its name when it is complete. Columns of the data set: text, source, input_ids, and
            text_pair where there are pairs.
        about
            What provenance.json says beside the tokenizer and the parts; "model" is in the code for toolkits.
        asked
            Names of toolkits, whose code then stands in `usage`.
        """
        from datasets import Dataset

        pairs = [(text, "") if isinstance(text, str) else text for text in self.texts]
        columns = {"text": [a for a, _ in pairs], "source": self.origins, "input_ids": self.sequences}
        if any(b for _, b in pairs):
            columns["text_pair"] = [b for _, b in pairs]
        parts = [asdict(part) for part in self.parts]
        of_targets = {"by_target": self.by_target, "notes": self.notes} if self.by_target else {}
        provenance = {**about, **of_targets, "tokenizer": fingerprint(self.tokenizer), "parts": parts}
        with writing.new_folder(out) as folder:
            Dataset.from_dict(columns).save_to_disk(str(folder))
            (folder / "provenance.json").write_text(json.dumps(provenance, indent=1), encoding="utf-8")
            for name in asked:
                given = (folder, out, self.sequences, self.tokenizer, str(about["model"]))
                self.usage[name] = toolkits.write(name, *given)


def _parts(sequences: Sequence[list[int]], origins: Sequence[str]) -> list[Part]:
    found, total = [], sum(map(len, sequences))
    for name in dict.fromkeys(origins):
        ids = [s for s, origin in zip(sequences, origins) if origin == name]
        tokens = sum(map(len, ids))
        digest = hashlib.sha256(json.dumps(ids).encode()).hexdigest()
        found.append(Part(name, tokens / total, tokens, len(ids), digest))
    return sorted(found, key=lambda part: -part.tokens)


def calibrate(
    model: str | Path,
    candidates: Mapping[str, Source] | Sequence[str | Path] | str | Path,
    targets: Mapping[str, Source] | Sequence[str | Path] | str | Path = (),
    *,
    tokens: int = 20_000,
    length: int | None = None,
    by: str | None = None,
    protect: Literal["mean", "worst"] = "mean",
    weights: Mapping[str, float] | None = None,
    held_out: Sequence[str | Path] = (),
    pack: bool = False,
    seed: int = 0,
    cache: str | Path | None = None,
    out: str | Path | None = None,
    toolkit: Sequence[str] = (),
    command: str | None = None,
) -> CalibrationSet:
    """Choose calibration texts for a model by how close candidates come to the targets in the model's own states.

    Parameters
    ----------
    model
        Folder, GGUF file or name on the Hub.
    candidates
        What texts may be taken from: paths, each perhaps as NAME=PATH, or a mapping from names to paths or lists of
        texts (a pair of texts is a text too). "self" is what the model writes. Texts that stand in several candidates
        count once.
    targets
        Texts of the tasks to protect, in the same form.
    tokens
        Number of tokens wanted.
    length
        Largest number of tokens of a sequence; None: 512 for models that predict next tokens, 128 for others, and no
        more than the context.
    by
        "measure", which takes the closest candidate, or a mixture where that is closer, or a way of choosing texts of
        all candidates without measuring: random, uniform, longest, lowest_perplexity, lexical_diversity,
        activation_coverage, embedding_similarity, activation_centroid or closeness. None: measure with targets, uniform
        without.
    protect
        Of several targets, "mean" or "worst".
    weights
        Of targets by name; 1 for those that are not named.
    held_out
        Paths of texts that no candidate may have.
    pack
        Fill sequences to their full length with texts one behind the other, an end token between them; for models that
        predict next tokens.
    seed
        Of all sampling.
    cache
        Folder for hidden states, so that a stopped run goes on where it was. None: nothing is stored.
    out
        New folder for the data set and provenance.json. None: nothing is written.
    toolkit
        Toolkits whose files are written there too: llm-compressor, gptqmodel, auto-round, llama.cpp.
    command
        The command line, for provenance.json.

    Returns
    -------
    CalibrationSet
        Its `texts` are what `compress.compress(calibration=...)` takes, as is the path `out`.

    Raises
    ------
    ValueError
        For what cannot be read, is unknown or out of range, and candidates with texts of `held_out`.
    """
    pools, aims = _named("candidates", candidates), _named("targets", targets)
    by = by or ("measure" if aims else "uniform")
    check_way(by, bool(aims))
    arguments.one_of("protect", protect, ("mean", "worst"))
    tokens, seed = arguments.whole_number("tokens", tokens, 1), arguments.seed_number("seed", seed)
    shares, cache = _weights(weights, aims), arguments.folder("cache", cache)
    like_a_way = next((name for name in pools if name in WAYS), None)
    if like_a_way:
        raise ValueError(f"a candidate is called {like_a_way}, as a way of choosing is: name it as NAME=TEXTS")
    toolkits.check(toolkit)
    if toolkit and out is None:
        raise ValueError(f"files for {' and '.join(toolkit)} go into the folder out, and there is none: give out")
    if out is not None:
        out = writing.check_new_folder(arguments.path("out", out))
    sizes, tokenizer = io.skeleton(model)
    if by == "lowest_perplexity" and not has_head(sizes):
        raise ValueError(f"--by {by} asks for predictions, {model} has no head and makes none: give another way")
    kind = sequences_of(sizes, tokenizer, length, pack)
    texts = {name: _read(name, source, tokenizer) for name, source in pools.items() if not _is_self(source)}
    texts = contamination.without_copies(texts)
    contamination.refuse_held_out(texts, {str(path): read_texts(path, tokenizer) for path in held_out})
    aim_texts = {name: _read(name, source, tokenizer) for name, source in aims.items()}
    reader = _reader(model, kind, seed, cache)
    goals = [Target(reader.target(name, own), shares[name]) for name, own in aim_texts.items()]
    names = list(pools)
    if len(names) > KEPT and by in ("measure", *NEED_TARGET):
        by_text = goals[0].states.by_text
        entering = [reader.embed(goal.states.sequences, by_text) for goal in goals]
        names = screen(names, partial(reader.embed_candidate, texts, by_text=by_text), goals, entering, protect)
    sets = read_all(track(names, "Reading candidates"), partial(reader.candidate, texts))
    choice = choose(sets, goals, tokens=MEASURED, by=by, protect=protect, seed=seed)
    sequences, origins = _sample(reader, choice, list(sets), goals, texts, tokens)
    if not sequences:
        raise ValueError(f"what was chosen, {choice.name}, gives {nothing(tokens, kind)}")
    why = reason(choice.scores, choice.name)
    measured = {"scores": choice.scores, "intervals": choice.intervals, "tied": choice.tied, "chosen": choice.name}
    found = CalibrationSet(
        sequences,
        origins,
        reader.tokenizer,
        by,
        by_target=dict(zip(aims, choice.by_target)),
        length=kind.length,
        pack=kind.pack,
        reason=why,
        **measured,
    )
    if sum(map(len, sequences)) < 0.95 * tokens:
        warnings.warn(f"the texts sampled hold fewer than {counted(tokens, 'token')}", stacklevel=2)
    if out:
        about = {"model": str(model), "targets": {name: _shown(source) for name, source in aims.items()}}
        options = {"by": by, "tokens": tokens, **kind.about(), "seed": seed, "protect": protect, "command": command}
        found.save(out, {**about, **options, **measured, "reason": why}, toolkit)
    return found


def _named(kind: str, given: object) -> dict[str, Source]:
    """Sources of texts by name. Raises ValueError for what is neither paths nor a mapping."""
    if isinstance(given, Mapping):
        found = dict(given)
    else:
        paths = [given] if isinstance(given, str | Path) else given
        if not isinstance(paths, Sequence) or not all(isinstance(path, str | Path) for path in paths):
            raise ValueError(f"{kind} is {arguments.shown(given)}: give paths, or a dict of names and paths or texts")
        found = dict(specs.paths([str(path) for path in paths]))
    if kind == "candidates" and not found:
        raise ValueError("candidates is empty: give paths, or a dict of names and paths or texts")
    return found


def _is_self(source: Source) -> bool:
    return isinstance(source, str | Path) and str(source) == SELF


def _shown(source: Source) -> str:
    """What provenance.json says of a source."""
    return str(source) if isinstance(source, str | Path) else f"{counted(len(source), 'text')} given in Python"


def _read(name: str, source: Source, tokenizer: Tokenizer) -> list[Text]:
    if isinstance(source, str | Path):
        return read_texts(source, tokenizer)
    check_texts(name, source)
    found = [text for text in source if " ".join(parts_of(text)).strip()]
    if not found:
        raise ValueError(f"{name} has no text in it")
    return found


def _weights(weights: Mapping[str, float] | None, names: Mapping[str, object]) -> dict[str, float]:
    """The weight of every target. Raises ValueError for one that is not a target, and weights not above 0."""
    for name in weights or {}:
        if name not in names:
            raise ValueError(f"weight: '{name}' is not a target: give one of {', '.join(names) or 'the targets'}")
    return {name: arguments.positive_number(f"weight of {name}", (weights or {}).get(name, 1.0)) for name in names}


@dataclass(frozen=True)
class _Reader:
    """A model that reads texts."""

    net: nn.Module
    tokenizer: Tokenizer
    hash: str  # of the model, by which hidden states are stored
    groups: Tensor | None  # of its tokens
    kind: Sequences
    seed: int
    cache: Path | None
    written: dict[tuple[int, int], list[list[int]]] = field(default_factory=dict)  # by the model, by tokens and length

    def sequences(self, texts: Sequence[Text] | None, tokens: int) -> tuple[list[list[int]], list[int]]:
        """Token ids of a sample of texts, and the text of each sequence; None: of what the model writes itself."""
        if texts is None:
            return self.write(tokens, self.kind.length)
        return self.kind.cut_with_texts(self.tokenizer, texts, tokens, self.seed)

    def write(self, tokens: int, length: int) -> tuple[list[list[int]], list[int]]:
        """What `sequences` gives of what the model writes, always the same."""
        if (tokens, length) not in self.written:
            self.written[tokens, length] = generate(self.net, self.tokenizer, tokens, length, self.seed)
        found = self.written[tokens, length]
        return found, list(range(len(found)))

    def collect(self, name: str, sequences: Sequence[Sequence[int]], of: Sequence[int]) -> HiddenStates:
        """Hidden states of what `sequences` gives."""
        about = (self.cache and self.cache / "hidden_states", self.hash, self.net, self.tokenizer)
        return collect_cached(*about, name, sequences, self.seed, self.groups, of)

    def measured(self, name: str, texts: Sequence[Text] | None, seed: int) -> tuple[list[list[int]], list[int]]:
        """What a set is measured by: short sequences of many of its texts, and the text of each.

        Long ones would be so few that hardly a text is among them. Raises ValueError where there is none.
        """
        length = min(self.kind.length, USUAL)
        if texts is None:
            sequences, of = self.write(MEASURED, length)
        else:
            found = spread(self.tokenizer, texts, MEASURED, length, seed)
            sequences, of = [ids for ids, _ in found], [text for _, text in found]
        if not sequences:
            raise ValueError(f"{name} gives no sequence, which needs at least two tokens: give longer texts")
        return sequences, of

    def target(self, name: str, texts: Sequence[Text]) -> HiddenStates:
        """Hidden states that a target is measured by."""
        return self.collect(name, *self.measured(name, texts, self.seed + TARGET_SEED))

    def candidate(self, texts: Mapping[str, Sequence[Text]], name: str) -> HiddenStates:
        """Hidden states that a candidate is measured by."""
        return self.collect(name, *self.measured(name, texts.get(name), self.seed))

    def embed(self, sequences: Sequence[Sequence[int]], by_text: bool) -> Points:
        """What enters the first block."""
        return embed(self.net, self.tokenizer, sequences, by_text, self.seed, self.groups)

    def embed_candidate(self, texts: Mapping[str, Sequence[Text]], name: str, by_text: bool) -> Points:
        """What enters the first block of what a candidate is measured by."""
        return self.embed(self.measured(name, texts.get(name), self.seed)[0], by_text)


def _reader(model: str | Path, kind: Sequences, seed: int, cache: Path | None) -> _Reader:
    """The loaded model."""
    net, tokenizer = io.load(model)
    return _Reader(net, tokenizer, hash_of(model) if cache else "", clusters(net, seed), kind, seed, cache)


def _sample(
    reader: _Reader,
    choice: Choice,
    sets: Sequence[str],
    targets: Sequence[Target],
    texts: Mapping[str, Sequence[Text]],
    tokens: int,
) -> tuple[list[list[int]], list[str]]:
    """As many tokens as are wanted of what was chosen, in the same shares: sequences, and the candidate of each."""
    shares = {part.name: part.share for part in _parts(choice.states.sequences, choice.states.origins)}
    if choice.name == "uniform":
        shares = {name: 1 / len(sets) for name in sets}
    elif choice.name in WAYS and choice.name != "random":  # texts were selected: so are the others
        least = reader.kind.length if reader.kind.pack else 0
        sizes = {name: max(round(ROOM * share * tokens), least) for name, share in shares.items()}
        read = {n: reader.sequences(texts.get(n), size) for n, size in sizes.items()}
        pools = [reader.collect(name, *some) for name, some in read.items() if some[0]]  # some are too small for one
        if not pools:
            return [], []
        more = select(choice.name, merge(pools), targets, tokens, reader.seed)
        return more.sequences, more.origins
    found: dict[str, list[list[int]]] = {}
    left = 0  # of one set for lack of a full sequence, which goes to the next
    ends = np.round(tokens * np.cumsum([0.0, *shares.values()])).astype(int)  # rounded one by one they may be too many
    for name, size in zip(shares, np.diff(ends).tolist(), strict=True):
        budget = size + left
        found[name], _ = reader.sequences(texts.get(name), budget)
        left = min(budget - sum(map(len, found[name])), reader.kind.length - 1)
    return [ids for part in found.values() for ids in part], [name for name, part in found.items() for _ in part]
