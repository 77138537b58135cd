"""A scikit-learn classifier and a regressor that use sources for a target: what a ranking measures."""

import functools
import json
import warnings
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file
from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin
from sklearn.utils import Tags, column_or_1d
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, validate_data

from transmeter.checks import counted_twice, leakage, unusable_lines
from transmeter.gain.measured import like
from transmeter.learners.estimator import user_estimator
from transmeter.learners.fitted import Fitted, fit_combination
from transmeter.learners.regression.fitted import FittedQuantity, fit_quantity
from transmeter.network.source import Encoded, Source
from transmeter.tables.classes import most_common
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
from transmeter.zero_shot.fitted import fit_sources

FORMAT = 2  # of the files


class TransferEstimator(BaseEstimator):
    """What the classifier and the regressor have in common: sources, columns, texts, and files.

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
    sep, decimal, encoding : str or None
        How a source that is a text file is written, as in `rank`; the decimal mark is that of texts in X too.
    learner : str, BaseEstimator or None
        An estimator that joins the combination, as in `rank`; then nothing can be saved.

    Attributes
    ----------
    n_features_in_ : int
        Number of columns.
    feature_names_in_ : ndarray
        Their names, of a data frame.
    members_ : dict
        Share of every member in the average, largest first.
    matches_ : dict
        By name of the source: its columns that stand for columns of the target.
    """

    KIND: ClassVar[str]  # what messages and files call it
    LEAST: ClassVar[str]  # what two of are needed

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
        sep: str | None = None,
        decimal: str | None = None,
        encoding: str | None = None,
        learner: str | BaseEstimator | None = None,
    ):
        self.sources = sources
        self.label = label
        self.key = key
        self.match = match
        self.encoder = encoder
        self.random_state = random_state
        self.cache = cache
        self.sep = sep
        self.decimal = decimal
        self.encoding = encoding
        self.learner = learner

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = True
        return tags

    def fit(self, X: ArrayLike, y: ArrayLike, keys: ArrayLike | None = None) -> Self:  # noqa: N803
        """Train on labelled rows.

        Parameters
        ----------
        X : (n, d)
            A data frame of mixed columns, or an array of numbers.
        y : (n,)
            Labels, or numbers; rows where they are missing (None, NaN) help to standardise the columns.
        keys : (n,) or None
            What each row is about, so that the source teaches those of them that it has seen (with `key`).

        Returns
        -------
        TransferClassifier or TransferRegressor
            Itself.

        Raises
        ------
        ValueError
            For an unusable source, fewer than two classes or rows, and whatever scikit-learn refuses.
        """
        if y is None:
            raise ValueError(f"This {type(self).__name__} estimator requires y to be passed, but the target y is None")
        cache, dialect = self._check_settings(), Dialect(self.sep, self.decimal, self.encoding)
        frame = self._checked(X, reset=True)
        table = self._table(frame, column_or_1d(y, warn=True), keys)
        read = [] if self.sources is None else as_tables(self.sources, self.label, self.key, dialect, True)
        sources = all_usable([like(table, source) for source in read])
        table = self._with_classes(table, sources)
        if self.encoder:
            check_encoder(self.encoder)
        self.text_columns_ = text_columns(table.features)
        states = reader([table, *sources], self.encoder, cache and cache / "texts")
        self.reader_ = states if self.text_columns_ else None
        table, *sources = [
            replace(t, features=read_texts(t.name, t.features, text_columns(t.features), states))
            for t in (table, *sources)
        ]
        target, sources, matches = prepare(
            table, sources, self.encoder, self.match, cache and cache / "texts", self._classes_of(sources)
        )
        for source, pairs in zip(sources, matches):
            for line in unusable_lines(source, target, pairs):
                warnings.warn(f"{source.name}: {line}", stacklevel=2)
        for line in (*leakage(target, sources), *counted_twice(sources)):
            warnings.warn(line, stacklevel=2)
        encoded = Encoded(target)
        self.encoder_ = encoded.encoder
        self.matches_ = {source.name: [asdict(m) for m in pairs] for source, pairs in zip(sources, matches)}
        prepared = [Source(source, None, self.random_state) for source in sources]
        self.fitted_, self.members_ = self._fitted(encoded, prepared)
        return self

    def _encoded(self, X: ArrayLike) -> np.ndarray:  # noqa: N803
        """(n, features) of rows X. Raises ValueError for other columns."""
        check_is_fitted(self)
        frame = self._checked(X, reset=False)
        texts = self.text_columns_
        numeric = [c for c in self.encoder_.numeric if not (texts and c.startswith("text dimension "))]
        features = conform("X", frame, numeric, [*self.encoder_.categorical, *texts], self.readings_)
        features = read_texts("X", features, texts, self.reader_)
        return self.encoder_(features)

    def _classes_of(self, sources: Sequence[Table]) -> dict[str, dict[str, str]] | None:
        """Classes of the sources that stand for those of the target by hand."""
        return None

    def _with_classes(self, table: Table, sources: Sequence[Table]) -> Table:
        """The target, with the classes of the sources where it has no label."""
        return table

    def _about(self) -> dict[str, object]:
        """What the file holds of the label."""
        return {}

    @abstractmethod
    def _table(self, frame: pd.DataFrame, y: np.ndarray, keys: ArrayLike | None) -> Table:
        """The target."""

    @abstractmethod
    def _fitted(self, target: Encoded, sources: Sequence[Source]) -> tuple[Any, dict[str, float]]:
        """The combination, and the share of every member."""

    @abstractmethod
    def _restore(self, about: Mapping[str, Any], tensors: Mapping[str, np.ndarray]) -> int:
        """Take a saved fit; the number of values that a leaf of its trees has."""

    def save(self, path: str | Path) -> None:
        """Write a new folder: numbers as safetensors, the rest as JSON, nothing pickled.

        The sources are not in it, at most their paths. Raises ValueError with `learner`, and where something is there
        already or no folder can be made, and OSError where the disk is full; then nothing is left.
        """
        check_is_fitted(self)
        fitted = self.fitted_.arrays()
        path = writing.check_new_folder(arguments.path("path", path))
        sources = self.sources if isinstance(self.sources, str | Path | None) else list(self.matches_)
        words, tensors = self.reader_.state() if isinstance(self.reader_, Tfidf) else (None, {})
        about = {
            "format": FORMAT,
            "params": self.get_params() | {"sources": sources},
            **self._about(),
            "columns": getattr(self, "feature_names_in_", np.zeros(0)).tolist() or self.n_features_in_,
            "readings": {column: asdict(reading) for column, reading in self.readings_.items()},
            "texts": self.text_columns_,
            "words": words,
            "members": self.members_,
            "matches": self.matches_,
            "encoder": self.encoder_.state(),
        }
        with writing.new_folder(path) as partial:
            arrays = {name: np.ascontiguousarray(array) for name, array in (fitted | tensors).items()}
            save_file(arrays, partial / f"{self.KIND}.safetensors")
            text = json.dumps(about, indent=1, default=str) + "\n"
            (partial / f"{self.KIND}.json").write_text(text, encoding="utf-8")

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """What `save` wrote, ready to predict. Raises ValueError for a folder that is not that."""
        files = f"{cls.KIND}.safetensors", f"{cls.KIND}.json"
        try:
            about = json.loads((Path(path) / files[1]).read_text(encoding="utf-8"))
            if about["format"] != FORMAT:
                raise ValueError(f"format {about['format']}, {FORMAT} is known")
            found = cls(**about["params"])
            tensors = load_file(Path(path) / files[0])
            found.reader_ = functools.partial(embed, encoder=about["params"]["encoder"]) if about["texts"] else None
            if about["words"]:
                found.reader_ = Tfidf.restore(about["words"], tensors)
            outputs = found._restore(about, tensors)
            found.text_columns_, found.members_ = list(about["texts"]), dict(about["members"])
            found.matches_ = dict(about["matches"])
            found.encoder_ = Encoder.restore(about["encoder"])
            found.readings_ = {c: Reading(**reading) for c, reading in about.get("readings", {}).items()}
            if isinstance(about["columns"], list):
                found.feature_names_in_ = np.array(about["columns"], dtype=object)
            found.n_features_in_ = about["columns"] if isinstance(about["columns"], int) else len(about["columns"])
            shape = len(found.encoder_.names), outputs
            if (len(found.fitted_.basis), found.fitted_.trees.value.shape[1]) != shape:
                raise ValueError("numbers of other columns or classes")
        except FileNotFoundError:
            raise ValueError(f"{path} is not a saved {cls.KIND}: it lacks {files[0]} or {files[1]}") from None
        except (OSError, LookupError, AttributeError, TypeError, ValueError, RuntimeError, SafetensorError) as error:
            raise ValueError(f"{path} is not a saved {cls.KIND} ({error}): fit it and save it anew") from None
        return found

    def _check_settings(self) -> Path | None:
        """The folder `cache`. Raises ValueError for a setting of another type or out of range."""
        arguments.seed_number("random_state", self.random_state)
        arguments.one_of("match", self.match, MATCH)
        arguments.column_name("label", self.label)
        arguments.column_name("key", self.key)
        if self.encoder is not None:
            arguments.path("encoder", self.encoder)
        user_estimator(self.learner, quantity=self.KIND == TransferRegressor.KIND)
        return arguments.folder("cache", self.cache)

    def _checked(self, X: ArrayLike, reset: bool) -> pd.DataFrame:  # noqa: N803
        """X with names of columns; numbers, where it is no data frame."""
        X = as_pandas(X, "X")  # noqa: N806
        if isinstance(X, pd.DataFrame):
            validate_data(self, X, skip_check_array=True, reset=reset)
            if reset and len(X) < 2:
                raise ValueError(f"X has 1 sample or none: at least two {self.LEAST} are needed")
        else:
            X = validate_data(  # noqa: N806
                self, X, reset=reset, ensure_all_finite="allow-nan", ensure_min_samples=2 if reset else 1
            )
        return columns("X", X)


class TransferClassifier(ClassifierMixin, TransferEstimator):
    """The combination of learners whose gain `rank` measures, fitted on the target and the picked sources.

    Logistic regressions on the target alone, on the rows of target and source together and on the source alone, and
    random forests on the target and on the source, averaged by how well each predicts labelled target rows that it has
    not seen. Columns are matched by name or meaning (so give data frames), classes by name or by their means. Without a
    source it is the average of what the target alone gives. Where no row has a label, regressions on every source alone
    are averaged. It predicts without the sources and is saved as plain arrays.

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
    learner : str, BaseEstimator or None
        An estimator that joins the combination, as in `rank`; then nothing can be saved.

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

    KIND = "classifier"
    LEAST = "classes"

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
        learner: str | BaseEstimator | None = None,
    ):
        super().__init__(
            sources,
            label=label,
            key=key,
            match=match,
            encoder=encoder,
            random_state=random_state,
            cache=cache,
            sep=sep,
            decimal=decimal,
            encoding=encoding,
            learner=learner,
        )
        self.classes = classes

    def predict_proba(self, X: ArrayLike) -> np.ndarray:  # noqa: N803
        """(n, classes) probabilities of rows X, in the order of `classes_`. Raises ValueError for other columns."""
        encoded = self._encoded(X)
        return self.fitted_.probabilities(encoded)

    def predict(self, X: ArrayLike) -> np.ndarray:  # noqa: N803
        """(n,) the likeliest class of each row."""
        probabilities = self.predict_proba(X)
        return self.classes_[probabilities.argmax(1)]

    def predictions(self, X: ArrayLike) -> pd.DataFrame:  # noqa: N803
        """A column `prediction`, and `probability CLASS` for every class, of rows X as `predict` takes them."""
        probabilities = self.predict_proba(X)
        frame = pd.DataFrame(probabilities, columns=[f"probability {c}" for c in self.classes_])
        frame.insert(0, "prediction", self.classes_[probabilities.argmax(1)])
        return frame

    def _table(self, frame: pd.DataFrame, y: np.ndarray, keys: ArrayLike | None) -> Table:
        """The target, its classes in the order of `classes_`, which is set."""
        if len(y) != len(frame):
            raise ValueError(f"X has {len(frame)} rows and y {len(y)}: give one label a row")
        texts = label_texts(y)
        labelled = np.array([t is not None for t in texts])
        if not labelled.any():
            return self._unlabelled(frame, texts, keys)
        labels = y[labelled] if labelled.all() else np.array(y[labelled].tolist())
        check_classification_targets(labels)
        self.classes_ = np.unique(labels)
        names = tuple(label_texts(self.classes_))
        if len(names) < 2 or len(set(names)) < len(names):
            raise ValueError(f"y has {len(set(names))} class, {', '.join(map(repr, names))}: two classes are needed")
        features, self.readings_ = clean("X", frame, self.decimal)
        return Table("the target", features, texts, names, None if keys is None else label_texts(np.array(keys)))

    def _unlabelled(self, frame: pd.DataFrame, texts: np.ndarray, keys: ArrayLike | None) -> Table:
        """The target of which no row has a label. Raises ValueError without sources."""
        if self.sources is None:
            raise ValueError("y holds no label, NaN or None only: two classes are needed, or sources that have them")
        if self.learner is not None:
            raise ValueError(f"y holds no label, and learner {self.learner} needs them: leave learner out")
        features, self.readings_ = clean("X", frame, self.decimal)
        return Table("the target", features, texts, (), None if keys is None else label_texts(np.array(keys)))

    def _with_classes(self, table: Table, sources: Sequence[Table]) -> Table:
        if not table.unlabelled:
            return table
        self.classes_ = np.array(most_common(sources))
        return replace(table, classes=tuple(self.classes_.tolist()))

    def _classes_of(self, sources: Sequence[Table]) -> dict[str, dict[str, str]] | None:
        return _by_source(self.classes, sources)

    def _fitted(self, target: Encoded, sources: Sequence[Source]) -> tuple[Fitted, dict[str, float]]:
        if target.table.unlabelled:
            return fit_sources(target, sources)
        return fit_combination(target, sources, self.random_state, user_estimator(self.learner, quantity=False))

    def _about(self) -> dict[str, object]:
        return {"classes": self.classes_.tolist(), "type": self.classes_.dtype.str}

    def _restore(self, about: Mapping[str, Any], tensors: Mapping[str, np.ndarray]) -> int:
        """Take the classes and the fit; the number of values that a leaf of its trees has."""
        self.classes_ = np.array(about["classes"], dtype=np.dtype(about["type"]))
        self.fitted_ = Fitted.restore(tensors)
        return len(self.classes_)


class TransferRegressor(RegressorMixin, TransferEstimator):
    """The combination of learners of a quantity whose gain `rank` measures, fitted on target and picked sources.

    Ridge regressions on the target alone, on the rows of target and source together and on what the source predicts,
    and random forests on the target and on the source, averaged by how well each predicts labelled target rows that it
    has not seen. The unit and sign of a source's quantity are learned from the target's rows. Columns are matched by
    name or meaning (so give data frames). Without a source it is the average of what the target alone gives. It
    predicts without the sources and is saved as plain arrays.

    Parameters
    ----------
    sources : table, sequence, mapping or None
        The picked ones, as `rank` takes them, whose label is a quantity, or two classes: a `Table`, data frame, (X, y),
        data set or path, a list of these, or {name: table}.
    label : str, int or None
        Their label column; None: "label".
    key : str, int or None
        Their column of what a row is about, which is not a feature.
    match : str
        How columns are matched: by "meaning" or by "name" only.
    encoder : str, Path or None
        Folder of a transformers model that reads texts and column names; None: TF-IDF and n-grams.
    random_state : int
        Seed of all random choices.
    cache : str, Path or None
        Folder in which what the encoder reads is kept.
    sep, decimal, encoding : str or None
        How a source that is a text file is written, as in `rank`; the decimal mark is that of texts in X too.
    learner : str, BaseEstimator or None
        An estimator that joins the combination, as in `rank`; then nothing can be saved.

    Attributes
    ----------
    n_features_in_ : int
        Number of columns.
    feature_names_in_ : ndarray
        Their names, of a data frame.
    members_ : dict
        Share of every member in the average, largest first.
    matches_ : dict
        By name of the source: its columns that stand for columns of the target.
    """

    KIND = "regressor"
    LEAST = "rows"

    def predict(self, X: ArrayLike) -> np.ndarray:  # noqa: N803
        """(n,) the quantity of each row. Raises ValueError for other columns."""
        encoded = self._encoded(X)
        return self.fitted_.predict(encoded)

    def predictions(self, X: ArrayLike) -> pd.DataFrame:  # noqa: N803
        """A column `prediction` of rows X as `predict` takes them."""
        return pd.DataFrame({"prediction": self.predict(X)})

    def _table(self, frame: pd.DataFrame, y: np.ndarray, keys: ArrayLike | None) -> Table:
        """The target with its quantity."""
        if len(y) != len(frame):
            raise ValueError(f"X has {len(frame)} rows and y {len(y)}: give one number a row")
        quantity = _numbers(y)
        if np.isfinite(quantity).sum() < 2:
            raise ValueError(f"y has {np.isfinite(quantity).sum()} number: two labelled rows are needed")
        features, self.readings_ = clean("X", frame, self.decimal)
        return Table(
            name="the target",
            features=features,
            labels=np.array(["labelled" if there else None for there in np.isfinite(quantity)], dtype=object),
            classes=("labelled",),
            keys=None if keys is None else label_texts(np.array(keys)),
            quantity=quantity,
        )

    def _fitted(self, target: Encoded, sources: Sequence[Source]) -> tuple[FittedQuantity, dict[str, float]]:
        return fit_quantity(target, sources, self.random_state, user_estimator(self.learner, quantity=True))

    def _restore(self, about: Mapping[str, Any], tensors: Mapping[str, np.ndarray]) -> int:
        self.fitted_ = FittedQuantity.restore(tensors)
        return 1


def _numbers(y: np.ndarray) -> np.ndarray:
    """(n,) floats, NaN where missing. Raises ValueError for infinite ones and for texts."""
    try:
        numbers = np.array([np.nan if v is None else v for v in y.tolist()], dtype=np.float64)
    except (TypeError, ValueError):
        raise ValueError("y holds labels that are not numbers: use TransferClassifier for classes") from None
    if np.isinf(numbers).any():
        raise ValueError("Input y contains infinity or a value too large for dtype('float64').")
    return numbers


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
