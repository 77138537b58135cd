"""A scikit-learn classifier that uses sources for its target, by the combination that a ranking measures."""

import functools
import json
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils import Tags, column_or_1d
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, validate_data

from transmeter.checks import counted_twice, leakage, unusable_lines
from transmeter.learners.fitted import Fitted, fit_combination
from transmeter.network.source import Encoded, Source
from transmeter.tables.columns import Reading, clean, conform
from transmeter.tables.data import Table
from transmeter.tables.encoding import Encoder
from transmeter.tables.inputs import Given, all_usable, as_pandas, as_tables, columns
from transmeter.tables.labels import label_texts
from transmeter.tables.prepare import MATCH, prepare
from transmeter.tables.specs import Dialect
from transmeter.tables.text import check_encoder, embed, read_texts, reader, text_columns
from transmeter.tables.tfidf import Tfidf
from transmeter.util import arguments, writing

FILES = ("classifier.safetensors", "classifier.json")
FORMAT = 2  # of the files


class TransferClassifier(ClassifierMixin, BaseEstimator):
    """The combination of learners whose gain `rank` measures, fitted on the target and the picked sources.

    Logistic regressions on the target alone, on the rows of target and source together and on the source alone, and
    random forests on the target and on the source, averaged by how well each predicts labelled target rows that it has
    not seen. Columns are matched by name or meaning (so give data frames), classes by name or by their means. Without a
    source it is the average of what the target alone gives. It predicts without the sources and is saved as plain
    arrays.

    Parameters
    ----------
    sources : table, sequence, mapping or None
        The picked ones, as `rank` takes them: a `Table`, data frame, (X, y), data set or path, a list of these, or
        {name: table}.
    label : str, int or None
        Their label column; None: "label".
    key : str, int or None
        Their column of what a row is about, for `fit(..., keys=...)`.
    match : str
        How columns are matched: by "meaning" or by "name" only.
    encoder : str, Path or None
        Folder of a transformers model that reads texts and column names; None: TF-IDF and n-grams.
    random_state : int
        Seed of all random choices.
    cache : str, Path or None
        Folder in which what the encoder reads is kept.
    classes : mapping or None
        By name of the source: its classes with those of the target that they stand for, where names mislead; of one
        source alone the classes without its name.
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
    members_ : dict
        Share of every member in the average, largest first.
    matches_ : dict
        By name of the source: its columns that stand for columns of the target.
    """

    def __init__(
        self,
        sources: Mapping[str, Given] | Sequence[Given] | Given | None = None,
        *,
        label: str | int | None = None,
        key: str | int | None = None,
        match: str = "meaning",
        encoder: str | Path | None = None,
        random_state: int = 0,
        cache: str | Path | None = None,
        classes: Mapping[str, Mapping[str, str]] | Mapping[str, str] | None = None,
        sep: str | None = None,
        decimal: str | None = None,
        encoding: str | None = None,
    ):
        self.sources = sources
        self.label = label
        self.key = key
        self.match = match
        self.encoder = encoder
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
        given = as_tables(self.sources, self.label, self.key, dialect, True) if self.sources is not None else []
        sources = all_usable(given)
        if self.encoder:
            check_encoder(self.encoder)
        self.text_columns_ = text_columns(table.features)
        states = reader([table, *sources], self.encoder, cache and cache / "texts")
        self.reader_ = states if self.text_columns_ else None
        table, *sources = [
            replace(t, features=read_texts(t.name, t.features, text_columns(t.features), states))
            for t in (table, *sources)
        ]
        classes = _by_source(self.classes, sources)
        target, sources, matches = prepare(table, sources, self.encoder, self.match, cache and cache / "texts", classes)
        for source, pairs in zip(sources, matches):
            for line in unusable_lines(source, target, pairs):
                warnings.warn(f"{source.name}: {line}", stacklevel=2)
        for line in (*leakage(target, sources), *counted_twice(sources)):
            warnings.warn(line, stacklevel=2)
        encoded = Encoded(target)
        self.encoder_ = encoded.encoder
        self.matches_ = {source.name: [asdict(m) for m in pairs] for source, pairs in zip(sources, matches)}
        prepared = [Source(source, None, self.random_state) for source in sources]
        self.fitted_, self.members_ = fit_combination(encoded, prepared, self.random_state)
        return self

    def predict_proba(self, X: ArrayLike) -> np.ndarray:  # noqa: N803
        """(n, classes) probabilities of rows X, in the order of `classes_`. Raises ValueError for other columns."""
        check_is_fitted(self)
        frame = self._checked(X, reset=False)
        texts = self.text_columns_
        numeric = [c for c in self.encoder_.numeric if not (texts and c.startswith("text dimension "))]
        features = conform("X", frame, numeric, [*self.encoder_.categorical, *texts], self.readings_)
        features = read_texts("X", features, texts, self.reader_)
        return self.fitted_.probabilities(self.encoder_(features))

    def predict(self, X: ArrayLike) -> np.ndarray:  # noqa: N803
        """(n,) the likeliest class of each row."""
        probabilities = self.predict_proba(X)
        return self.classes_[probabilities.argmax(1)]

    def save(self, path: str | Path) -> None:
        """Write a new folder: numbers as safetensors, the rest as JSON, nothing pickled.

        The sources are not in it, at most their paths. Raises ValueError where something is there already or no folder
        can be made, and OSError where the disk is full; then nothing is left.
        """
        check_is_fitted(self)
        path = writing.check_new_folder(arguments.path("path", path))
        sources = self.sources if isinstance(self.sources, str | Path | None) else list(self.matches_)
        words, tensors = self.reader_.state() if isinstance(self.reader_, Tfidf) else (None, {})
        about = {
            "format": FORMAT,
            "params": self.get_params() | {"sources": sources},
            "classes": self.classes_.tolist(),
            "type": self.classes_.dtype.str,
            "columns": getattr(self, "feature_names_in_", np.zeros(0)).tolist() or self.n_features_in_,
            "readings": {column: asdict(reading) for column, reading in self.readings_.items()},
            "texts": self.text_columns_,
            "words": words,
            "members": self.members_,
            "matches": self.matches_,
            "encoder": self.encoder_.state(),
        }
        with writing.new_folder(path) as partial:
            arrays = {name: np.ascontiguousarray(array) for name, array in (self.fitted_.arrays() | tensors).items()}
            save_file(arrays, partial / FILES[0])
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
            classifier.fitted_ = Fitted.restore(tensors)
            classifier.reader_ = (
                functools.partial(embed, encoder=about["params"]["encoder"]) if about["texts"] else None
            )
            if about["words"]:
                classifier.reader_ = Tfidf.restore(about["words"], tensors)
            classifier.classes_ = np.array(about["classes"], dtype=np.dtype(about["type"]))
            classifier.text_columns_, classifier.members_ = list(about["texts"]), dict(about["members"])
            classifier.matches_ = dict(about["matches"])
            classifier.encoder_ = Encoder.restore(about["encoder"])
            classifier.readings_ = {c: Reading(**reading) for c, reading in about.get("readings", {}).items()}
            if isinstance(about["columns"], list):
                classifier.feature_names_in_ = np.array(about["columns"], dtype=object)
            classifier.n_features_in_ = about["columns"] if isinstance(about["columns"], int) else len(about["columns"])
            shape = len(classifier.encoder_.names), len(classifier.classes_)
            if (len(classifier.fitted_.basis), classifier.fitted_.trees.value.shape[1]) != shape:
                raise ValueError("numbers of other columns or classes")
        except FileNotFoundError:
            raise ValueError(f"{path} is not a saved classifier: it lacks {FILES[0]} or {FILES[1]}") from None
        except (OSError, LookupError, AttributeError, TypeError, ValueError, RuntimeError, SafetensorError) as error:
            raise ValueError(f"{path} is not a saved classifier ({error}): fit it and save it anew") from None
        return classifier

    def _check_settings(self) -> Path | None:
        """The folder `cache`. Raises ValueError for a setting of another type or out of range."""
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


def _by_source(
    classes: Mapping[str, Mapping[str, str]] | Mapping[str, str] | None, sources: Sequence[Table]
) -> dict[str, dict[str, str]] | None:
    """Classes by name of the source, that of the only one where they are given without."""
    if not classes:
        return None
    named = {name: dict(mine) for name, mine in classes.items() if isinstance(mine, Mapping)}
    single = {theirs: ours for theirs, ours in classes.items() if isinstance(ours, str)}
    if single and (named or len(sources) != 1):
        raise ValueError(f"classes are of {len(sources)} sources: give them by name of the source")
    return {sources[0].name: single} if single else named
