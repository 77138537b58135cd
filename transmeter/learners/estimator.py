"""An estimator of scikit-learn's kind that a user adds to the combination, fitted on every split.

It has no leave-one-out predictions of its own, so that its evidence is by K folds of the target's rows.
"""

import ast
import inspect
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any

import numpy as np
from sklearn.base import BaseEstimator, clone, is_regressor
from sklearn.utils.validation import has_fit_parameter

from transmeter.util.counts import counted

FOLDS = 5  # of the target's rows, each predicted by a model of the others
FAILED = -1e12  # log-likelihood of what could not be fitted, so that it has no weight
EXAMPLE = "sklearn.neighbors.KNeighborsClassifier(n_neighbors=3)"


@dataclass(frozen=True)
class UserEstimator:
    """An estimator, and what became of its fits.

    Attributes
    ----------
    model : BaseEstimator
        Not fitted; every fit is of a copy.
    failures : list of str
        Errors on repeats, in their order.
    """

    model: BaseEstimator
    failures: list[str] = field(default_factory=list)

    @property
    def name(self) -> str:
        """Of its class."""
        return type(self.model).__name__

    def fit(self, x: np.ndarray, y: np.ndarray, weights: np.ndarray, seed: int) -> BaseEstimator:
        """Fit a copy.

        Parameters
        ----------
        x : ndarray of shape (n, d)
            Rows.
        y : ndarray of shape (n,)
            Classes, or quantities.
        weights : ndarray of shape (n,)
            Of the rows; one that takes no weights sees every row once.
        seed : int
            Its `random_state`, where it has one.

        Returns
        -------
        BaseEstimator
            Fitted.
        """
        model = clone(self.model)
        if "random_state" in model.get_params():
            model.set_params(random_state=seed)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of few rows and of convergence, once per fit
            if has_fit_parameter(model, "sample_weight"):
                return model.fit(x, y, sample_weight=weights)
            return model.fit(x, y)

    def in_folds(
        self, strata: np.ndarray, fit: Callable[[np.ndarray], Any], predict: Callable[[Any, np.ndarray], np.ndarray]
    ) -> tuple[Any, np.ndarray] | tuple[None, None]:
        """Fit on all rows, and predict each by a fit without its fold.

        Parameters
        ----------
        strata : ndarray of shape (n,)
            By which rows are spread over the folds.
        fit : callable
            Takes (n,) whether a row is trained on, gives a model.
        predict : callable
            Takes a model and (n,) whether a row is predicted, gives predictions of these, checked.

        Returns
        -------
        tuple
            The model of all rows and (n, ...) predictions; None and None where a fit fails: the error is kept, and the
            first one warned of.
        """
        inside = folds(strata)
        try:
            outside = [inside == fold for fold in np.unique(inside)]
            parts = [predict(fit(~out), out) for out in outside]
            found = np.zeros((len(strata), *parts[0].shape[1:]))
            for out, part in zip(outside, parts):
                found[out] = part
            return fit(np.full(len(strata), True)), found
        except Exception as error:  # of code that is not ours: whatever it raises, the other learners answer
            reason = " ".join(f"{type(error).__name__}: {error}".split())[:200]
            if not self.failures:
                warnings.warn(f"{self.name} failed on a repeat, where it is left out ({reason})", stacklevel=2)
            self.failures.append(reason)
            return None, None

    def notes(self) -> list[str]:
        """A line on the repeats that it failed on, if any."""
        if not self.failures:
            return []
        times = counted(len(self.failures), "repeat")
        return [f"{self.name} failed on {times}, where it is left out: {self.failures[0]}"]


Learner = str | BaseEstimator | UserEstimator | None  # what `user_estimator` takes


def user_estimator(learner: Learner, quantity: bool) -> UserEstimator | None:
    """The estimator that a user adds.

    Parameters
    ----------
    learner : str, BaseEstimator, UserEstimator or None
        The estimator or, as a text, its class with literal arguments, such as "lightgbm.LGBMClassifier(n_jobs=1)";
        None and "combination" add none.
    quantity : bool
        Whether it has to predict a quantity, not classes.

    Returns
    -------
    UserEstimator or None

    Raises
    ------
    ValueError
        For a class that is not found, what is no estimator, and one without `predict_proba` (of a quantity `predict`).
    """
    if learner is None or learner == "combination":
        return None
    if isinstance(learner, UserEstimator):
        return learner
    model = _from_text(learner) if isinstance(learner, str) else learner
    if isinstance(model, type) or not all(hasattr(model, name) for name in ("fit", "get_params", "set_params")):
        raise ValueError(f"learner {learner} is not an estimator: give an instance, such as {EXAMPLE}")
    if not quantity and is_regressor(model):
        raise ValueError(f"learner {learner} predicts quantities: give a classifier")
    if not quantity and not hasattr(model, "predict_proba"):
        raise ValueError(
            f"learner {learner} has no predict_proba: wrap it in sklearn.calibration.CalibratedClassifierCV"
        )
    if quantity and (hasattr(model, "predict_proba") or not hasattr(model, "predict")):
        raise ValueError(f"learner {learner} does not predict quantities: give a regressor")
    return UserEstimator(model)


def text_of(learner: object) -> str:
    """An estimator as a text.

    Parameters
    ----------
    learner : str or BaseEstimator
        A text stays as it is.

    Returns
    -------
    str
        Its class with its arguments, which `user_estimator` takes where they are literals.
    """
    if isinstance(learner, str):
        return learner
    return f"{type(learner).__module__}.{' '.join(repr(learner).split())}"


def _from_text(text: str) -> BaseEstimator:
    """The estimator that package.Class or package.Class(name=literal, ...) stands for."""
    name, _, arguments = text.partition("(")
    module, _, cls = name.strip().rpartition(".")
    try:
        call = ast.parse(f"f({arguments}" if arguments else "f()", mode="eval").body
        options = {k.arg: ast.literal_eval(k.value) for k in call.keywords}
        if call.args or None in options or not module:
            raise ValueError
    except (AttributeError, SyntaxError, ValueError):
        raise ValueError(
            f"learner {text} is not understood: give combination, network or a class with arguments, such as {EXAMPLE}"
        ) from None
    try:
        found = getattr(import_module(module), cls)
    except ImportError as error:
        raise ValueError(f"learner {text} is not installed ({error}): pip install {module.split('.')[0]}") from None
    except AttributeError:
        raise ValueError(f"learner {text} is unknown: {module} has no {cls}") from None
    if not inspect.isclass(found):
        raise ValueError(f"learner {text} is not a class: give {EXAMPLE}")
    try:
        return found(**options)
    except Exception as error:
        raise ValueError(f"learner {text} cannot be made: {error}") from None


def folds(strata: np.ndarray) -> np.ndarray:
    """Folds of rows, strata spread evenly over them.

    Parameters
    ----------
    strata : ndarray of shape (n,)
        Classes, or quantities.

    Returns
    -------
    ndarray of shape (n,)
        Numbers of folds, FOLDS at most.
    """
    found = np.zeros(len(strata), dtype=int)
    found[np.argsort(strata, kind="stable")] = np.arange(len(strata)) % min(FOLDS, len(strata))
    return found
