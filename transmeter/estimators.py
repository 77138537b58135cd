"""A scikit-learn classifier that uses a source for its target, by the transfer that a ranking measures."""

import functools
import json
import warnings
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from numpy.typing import ArrayLike
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils import Tags, column_or_1d
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, validate_data
from torch import Tensor
from torch.nn import functional as F

from transmeter.checks import is_unmatched, no_match
from transmeter.gain.metrics import accuracies
from transmeter.learners.baseline import SCRATCH, logistic_regressions, split_probabilities
from transmeter.network.source import Encoded, Source
from transmeter.network.training import Schedule, Terms
from transmeter.network.transfer import train
from transmeter.tables.columns import Reading, clean, conform
from transmeter.tables.data import Table
from transmeter.tables.encoding import Encoder
from transmeter.tables.inputs import Given, as_pandas, as_table, columns
from transmeter.tables.labels import label_texts
from transmeter.tables.prepare import MATCH, prepare
from transmeter.tables.specs import Dialect
from transmeter.tables.splits import Split, make_splits
from transmeter.tables.text import check_encoder, embed, read_texts, reader, text_columns
from transmeter.tables.tfidf import Tfidf
from transmeter.util import arguments, writing

FILES = ("classifier.safetensors", "classifier.json")
FORMAT = 1  # of the files


class TransferClassifier(ClassifierMixin, BaseEstimator):
    """A network that starts from a source's pre-trained classifier and is trained on the target, as `rank` measures it.

    Its input layer starts from the columns that source and target share by name or meaning (so give data frames), its
    head from the classes of one name or place. Without a source: the best of logistic regression and the network by
    itself, by cross-fitting; gradient boosting, which `rank` compares with as well, cannot be saved as plain numbers.

    Parameters
    ----------
    source : table or None
        The picked one, as `rank` takes it: a `Table`, data frame, (X, y), data set or path.
    label : str, int or None
        Its label column; None: "label".
    key : str, int or None
        Its column of what a row is about, for `fit(..., keys=...)`.
    match : str
        How columns are matched: by "meaning" or by "name" only.
    encoder : str, Path or None
        Folder of a transformers model that reads texts and column names; None: TF-IDF and n-grams.
    steps : int
        Of training.
    random_state : int
        Seed of all random choices.
    cache : str, Path or None
        Folder in which the source's classifier is kept.
    classes : mapping or None
        Classes of the source with those of the target that they stand for, where names mislead.
    sep, decimal, encoding : str or None
        How a source that is a text file is written, as in `rank`; the decimal mark is that of texts in X too.

    Attributes
    ----------
    classes_ : ndarray
        Classes, sorted.
    n_features_in_ : int
        Number of columns.
    feature_names_in_ : ndarray
        Their names, of a data frame.
    learner_ : str
        What was trained.
    matches_ : list of dict
        The source's columns that stand for columns of the target.
    """

    def __init__(
        self,
        source: Given | None = None,
        *,
        label: str | int | None = None,
        key: str | int | None = None,
        match: str = "meaning",
        encoder: str | Path | None = None,
        steps: int = 80,
        random_state: int = 0,
        cache: str | Path | None = None,
        classes: Mapping[str, str] | None = None,
        sep: str | None = None,
        decimal: str | None = None,
        encoding: str | None = None,
    ):
        self.source = source
        self.label = label
        self.key = key
        self.match = match
        self.encoder = encoder
        self.steps = steps
        self.random_state = random_state
        self.cache = cache
        self.classes = classes
        self.sep = sep
        self.decimal = decimal
        self.encoding = encoding

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = True
        return tags

    def fit(self, X: ArrayLike, y: ArrayLike, keys: ArrayLike | None = None) -> "TransferClassifier":  # noqa: N803
        """Train on labelled rows.

        Parameters
        ----------
        X : (n, d)
            A data frame of mixed columns, or an array of numbers.
        y : (n,)
            Labels; rows whose label is missing (None, NaN) help to standardise the columns.
        keys : (n,) or None
            What each row is about, so that the source teaches those of them that it has seen (with `key`).

        Returns
        -------
        TransferClassifier
            Itself.

        Raises
        ------
        ValueError
            For an unusable source, fewer than two classes, and whatever scikit-learn refuses.
        """
        if y is None:
            raise ValueError(f"This {type(self).__name__} estimator requires y to be passed, but the target y is None")
        cache, dialect = self._check_settings(), Dialect(self.sep, self.decimal, self.encoding)
        frame = self._checked(X, reset=True)
        table = self._table(frame, column_or_1d(y, warn=True), keys)
        sources = [] if self.source is None else [as_table(self.source, None, self.label, self.key, dialect=dialect)]
        if self.encoder:
            check_encoder(self.encoder)
        self.text_columns_ = text_columns(table.features)
        states = reader([table, *sources], self.encoder, cache and cache / "texts")
        self.reader_ = states if self.text_columns_ else None
        table, *sources = [
            replace(t, features=read_texts(t.name, t.features, text_columns(t.features), states))
            for t in (table, *sources)
        ]
        classes = {sources[0].name: self.classes} if sources and self.classes else None
        target, sources, matches = prepare(table, sources, self.encoder, self.match, cache and cache / "texts", classes)
        for source, pairs in zip(sources, matches):
            if is_unmatched(source, target, pairs):
                warnings.warn(f"{source.name}: {no_match(target)}", stacklevel=2)
        encoded = Encoded(target)
        self.encoder_, self.matches_ = encoded.encoder, [asdict(m) for ms in matches for m in ms]
        if sources:
            self.learner_ = f"network from {sources[0].name}"
            self.weights_ = self._network([Source(sources[0], cache, self.random_state)], encoded)
        else:
            self.learner_, self.weights_ = self._alone(encoded)
        return self

    def predict_proba(self, X: ArrayLike) -> np.ndarray:  # noqa: N803
        """(n, classes) probabilities of rows X, in the order of `classes_`. Raises ValueError for other columns."""
        check_is_fitted(self)
        frame = self._checked(X, reset=False)
        texts = self.text_columns_
        numeric = [c for c in self.encoder_.numeric if not (texts and c.startswith("text dimension "))]
        features = conform("X", frame, numeric, [*self.encoder_.categorical, *texts], self.readings_)
        features = read_texts("X", features, texts, self.reader_)
        x = torch.from_numpy(self.encoder_(features)).double()  # so that a row does not depend on its neighbours
        return logits(self.weights_, x).softmax(1).numpy()

    def predict(self, X: ArrayLike) -> np.ndarray:  # noqa: N803
        """(n,) the likeliest class of each row."""
        probabilities = self.predict_proba(X)
        return self.classes_[probabilities.argmax(1)]

    def save(self, path: str | Path) -> None:
        """Write a new folder: weights as safetensors, the rest as JSON, nothing pickled.

        The source is not in it, at most its path. Raises ValueError where something is there already or no folder can
        be made, and OSError where the disk is full; then nothing is left.
        """
        check_is_fitted(self)
        path = writing.check_new_folder(arguments.path("path", path))
        source = self.source if isinstance(self.source, str | Path | None) else self.learner_
        words, tensors = self.reader_.state() if isinstance(self.reader_, Tfidf) else (None, {})
        about = {
            "format": FORMAT,
            "params": self.get_params() | {"source": source},
            "classes": self.classes_.tolist(),
            "type": self.classes_.dtype.str,
            "columns": getattr(self, "feature_names_in_", np.zeros(0)).tolist() or self.n_features_in_,
            "readings": {column: asdict(reading) for column, reading in self.readings_.items()},
            "texts": self.text_columns_,
            "words": words,
            "learner": self.learner_,
            "matches": self.matches_,
            "encoder": self.encoder_.state(),
        }
        with writing.new_folder(path) as partial:
            save_file(self.weights_ | {k: torch.from_numpy(v) for k, v in tensors.items()}, partial / FILES[0])
            (partial / FILES[1]).write_text(json.dumps(about, indent=1, default=str) + "\n", encoding="utf-8")

    def predictions(self, X: ArrayLike) -> pd.DataFrame:  # noqa: N803
        """A column `prediction`, and `probability CLASS` for every class, of rows X as `predict` takes them."""
        probabilities = self.predict_proba(X)
        frame = pd.DataFrame(probabilities, columns=[f"probability {c}" for c in self.classes_])
        frame.insert(0, "prediction", self.classes_[probabilities.argmax(1)])
        return frame

    @classmethod
    def load(cls, path: str | Path) -> "TransferClassifier":
        """What `save` wrote, ready to predict. Raises ValueError for a folder that is not that."""
        try:
            about = json.loads((Path(path) / FILES[1]).read_text(encoding="utf-8"))
            if about["format"] != FORMAT:
                raise ValueError(f"format {about['format']}, {FORMAT} is known")
            classifier = cls(**about["params"])
            tensors = load_file(Path(path) / FILES[0])
            classifier.weights_ = {k: v for k, v in tensors.items() if not k.startswith("tfidf.")}
            classifier.reader_ = (
                functools.partial(embed, encoder=about["params"]["encoder"]) if about["texts"] else None
            )
            if about["words"]:
                classifier.reader_ = Tfidf.restore(about["words"], {k: v.numpy() for k, v in tensors.items()})
            classifier.classes_ = np.array(about["classes"], dtype=np.dtype(about["type"]))
            classifier.text_columns_, classifier.learner_ = about["texts"], about["learner"]
            classifier.matches_ = about["matches"]
            classifier.encoder_ = Encoder.restore(about["encoder"])
            classifier.readings_ = {c: Reading(**reading) for c, reading in about.get("readings", {}).items()}
            if isinstance(about["columns"], list):
                classifier.feature_names_in_ = np.array(about["columns"], dtype=object)
            classifier.n_features_in_ = about["columns"] if isinstance(about["columns"], int) else len(about["columns"])
            probe = torch.zeros(1, len(classifier.encoder_.names)).double()
            if logits(classifier.weights_, probe).shape[1] != len(classifier.classes_):
                raise ValueError("weights of another number of classes")
        except FileNotFoundError:
            raise ValueError(f"{path} is not a saved classifier: it lacks {FILES[0]} or {FILES[1]}") from None
        except (OSError, KeyError, TypeError, ValueError, RuntimeError, SafetensorError) as error:
            raise ValueError(f"{path} is not a saved classifier ({error}): save it anew") from None
        return classifier

    def _check_settings(self) -> Path | None:
        """The folder `cache`. Raises ValueError for a setting of another type or out of range."""
        arguments.whole_number("steps", self.steps, 1)
        arguments.seed_number("random_state", self.random_state)
        arguments.one_of("match", self.match, MATCH)
        arguments.column_name("label", self.label)
        arguments.column_name("key", self.key)
        if self.encoder is not None:
            arguments.path("encoder", self.encoder)
        return arguments.folder("cache", self.cache)

    def _checked(self, X: ArrayLike, reset: bool) -> pd.DataFrame:  # noqa: N803
        """X with names of columns; numbers, where it is no data frame."""
        X = as_pandas(X)  # noqa: N806
        if isinstance(X, pd.DataFrame):
            validate_data(self, X, skip_check_array=True, reset=reset)
            if reset and len(X) < 2:
                raise ValueError("X has 1 sample or none: at least two classes are needed")
        else:
            X = validate_data(  # noqa: N806
                self, X, reset=reset, ensure_all_finite="allow-nan", ensure_min_samples=2 if reset else 1
            )
        return columns("X", X)

    def _table(self, frame: pd.DataFrame, y: np.ndarray, keys: ArrayLike | None) -> Table:
        """The target, its classes in the order of `classes_`, which is set."""
        if len(y) != len(frame):
            raise ValueError(f"X has {len(frame)} rows and y {len(y)}: give one label a row")
        texts = label_texts(y)
        labelled = np.array([t is not None for t in texts])
        if not labelled.any():
            raise ValueError("y holds no label, NaN or None only: two classes are needed")
        labels = y[labelled] if labelled.all() else np.array(y[labelled].tolist())
        check_classification_targets(labels)
        self.classes_ = np.unique(labels)
        names = tuple(label_texts(self.classes_))
        if len(names) < 2 or len(set(names)) < len(names):
            raise ValueError(f"y has {len(set(names))} class, {', '.join(map(repr, names))}: two classes are needed")
        features, self.readings_ = clean("X", frame, self.decimal)
        return Table("the target", features, texts, names, None if keys is None else label_texts(np.array(keys)))

    def _network(self, sources: list[Source], target: Encoded) -> dict[str, Tensor]:
        """Of one network, trained on all labelled rows."""
        rows = np.flatnonzero(target.table.codes >= 0)
        trained = train(sources, target, [Split(rows, rows, 0)], Terms(), Schedule(steps=self.steps), self.random_state)
        return trained.weights(0, 0)

    def _alone(self, target: Encoded) -> tuple[str, dict[str, Tensor]]:
        """(name, weights) of the learner of the target alone that is best on held-out rows; logistic regression where
        a class has one row, so that none can be held out."""
        codes, every = target.table.codes, np.arange(len(target.table))
        rows = np.flatnonzero(codes >= 0)
        best, learners = next(iter(logistic_regressions())), logistic_regressions()
        if np.bincount(codes[rows]).min() > 1:
            splits = make_splits(target.table, None, 2, self.random_state)
            held = split_probabilities(learners, target, splits, every)
            trained = train([], target, splits, Terms(), Schedule(steps=self.steps), self.random_state)
            held[SCRATCH] = trained.probabilities(target.x)[0]
            reached = {
                name: accuracies(held[name][None], codes, splits, "balanced_accuracy").mean()
                for name in (*learners, SCRATCH)
            }
            best = max(reached, key=lambda name: reached[name])
        if best == SCRATCH:
            return best, self._network([], target)
        model = learners[best].fit(target.x.numpy()[rows], codes[rows])
        coefficients, intercepts = (torch.from_numpy(np.asarray(a)) for a in (model.coef_.T, model.intercept_))
        if len(intercepts) == 1:  # of two classes scikit-learn keeps one
            coefficients = torch.cat([torch.zeros_like(coefficients), coefficients], 1)
            intercepts = torch.cat([torch.zeros_like(intercepts), intercepts])
        return best, {"head.weight": coefficients.contiguous(), "head.bias": intercepts}


def logits(weights: dict[str, Tensor], x: Tensor) -> Tensor:
    """What a network of three layers gives, or its head alone, a linear model.

    Parameters
    ----------
    weights : dict
        Tensors by name: of the head, perhaps also of transform and encode.
    x : Tensor (n, d)
        Encoded rows, float64.

    Returns
    -------
    Tensor (n, classes)
        Logits.
    """
    for layer in ("transform", "encode"):
        if f"{layer}.weight" in weights:
            x = F.relu(x @ weights[f"{layer}.weight"].double() + weights[f"{layer}.bias"].double())
    return x @ weights["head.weight"].double() + weights["head.bias"].double()
