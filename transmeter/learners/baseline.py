"""Learners that see the target alone: what a source has to beat."""

from collections.abc import Sequence

import numpy as np
import torch
from sklearn.base import ClassifierMixin
from sklearn.ensemble import GradientBoostingClassifier
from sklearn.linear_model import LogisticRegression
from torch import Tensor

from transmeter.network.source import Encoded
from transmeter.tables.splits import Split, seed_of

BOOSTED_CLASSES = 5  # more, and gradient boosting, which grows a tree per class, is too slow


def logistic_regressions() -> dict[str, LogisticRegression]:
    """Untrained logistic regressions of several strengths.

    Returns
    -------
    dict
        By name.
    """
    return {
        f"logistic regression, C={c:g}": LogisticRegression(C=c, class_weight="balanced", max_iter=500)
        for c in (0.1, 1)
    }


def target_only(target: Encoded, splits: Sequence[Split], rows: np.ndarray, seed: int) -> dict[str, Tensor]:
    """Probabilities of target rows by every learner of the target alone, trained on each split.

    Parameters
    ----------
    target : Encoded
        Target.
    splits : sequence of Split
        Whose `train` rows are learned from.
    rows : ndarray of int
        Rows to predict.
    seed : int
        Seed of gradient boosting.

    Returns
    -------
    dict
        Name of the learner -> Tensor of shape (splits, len(rows), classes).
    """
    x, codes = target.x.numpy(), target.table.codes
    shape = len(splits), len(rows), len(target.table.classes)
    found: dict[str, Tensor] = {}
    for i, split in enumerate(splits):
        learners: dict[str, ClassifierMixin] = dict(logistic_regressions())
        if shape[2] <= BOOSTED_CLASSES:
            learners["gradient boosting"] = _boosting(seed_of(seed, split.train))
        for name, learner in learners.items():
            learner.fit(x[split.train], codes[split.train])
            predicted = torch.from_numpy(learner.predict_proba(x[rows])).float()
            found.setdefault(name, torch.zeros(shape))[i] = predicted
    return found


def _boosting(seed: int) -> GradientBoostingClassifier:
    return GradientBoostingClassifier(
        n_estimators=30, learning_rate=0.2, max_depth=2, subsample=0.8, max_features="sqrt", random_state=seed
    )
