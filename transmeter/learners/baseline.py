"""Learners that see the target alone: what a source has to beat."""

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from sklearn.base import ClassifierMixin
from sklearn.ensemble import GradientBoostingClassifier
from sklearn.linear_model import LogisticRegression
from torch import Tensor

from transmeter.gain.estimate import Split
from transmeter.network.source import Encoded

SCRATCH = "scratch network"
BOOSTED_CLASSES = 5  # more, and gradient boosting, which grows a tree a class, is too slow


def linear() -> dict[str, LogisticRegression]:
    """Logistic regressions, by name."""
    return {
        f"logistic regression, C={c:g}": LogisticRegression(C=c, class_weight="balanced", max_iter=500)
        for c in (0.1, 1)
    }


def target_only(target: Encoded, splits: Sequence[Split], rows: np.ndarray, seed: int) -> dict[str, Tensor]:
    """Probabilities (splits, len(rows), classes) of target rows by every learner, trained on each split."""
    learners: dict[str, ClassifierMixin] = dict(linear())
    if len(target.table.classes) <= BOOSTED_CLASSES:
        learners["gradient boosting"] = GradientBoostingClassifier(
            n_estimators=30, learning_rate=0.2, max_depth=2, subsample=0.8, max_features="sqrt", random_state=seed
        )
    return held_out(learners, target, splits, rows)


def held_out(
    learners: Mapping[str, ClassifierMixin], target: Encoded, splits: Sequence[Split], rows: np.ndarray
) -> dict[str, Tensor]:
    """Probabilities (splits, len(rows), classes) of target rows by the learners, trained on each split."""
    x, codes = target.x.numpy(), target.table.codes
    found = {name: torch.zeros(len(splits), len(rows), len(target.table.classes)) for name in learners}
    for i, split in enumerate(splits):
        for name, learner in learners.items():
            learner.fit(x[split.train], codes[split.train])
            found[name][i] = torch.from_numpy(learner.predict_proba(x[rows])).float()
    return found
