"""Learners that see the target alone: what a source has to beat."""

from collections.abc import Sequence

import numpy as np
import torch
from sklearn.ensemble import GradientBoostingClassifier
from sklearn.linear_model import LogisticRegression
from torch import Tensor

from transmeter.estimate import Split
from transmeter.source import Encoded

BOOSTED = 16  # repeats that gradient boosting, which is slow, takes part in


def target_only(
    target: Encoded, splits: Sequence[Split], rows: np.ndarray, seed: int | None = None
) -> dict[str, Tensor]:
    """Probabilities (splits, len(rows), classes) of target rows by every learner, trained on each split.

    seed: of gradient boosting, which takes part only where one is given, and gives nan beyond its repeats.
    """
    x, codes = target.x.numpy(), target.table.codes
    learners = {
        "logistic regression, C=0.1": LogisticRegression(C=0.1, class_weight="balanced", max_iter=500),
        "logistic regression, C=1": LogisticRegression(class_weight="balanced", max_iter=500),
    }
    if seed is not None:
        learners["gradient boosting"] = GradientBoostingClassifier(
            n_estimators=30, learning_rate=0.2, max_depth=2, subsample=0.8, max_features="sqrt", random_state=seed
        )
    found = {name: torch.full((len(splits), len(rows), len(target.table.classes)), torch.nan) for name in learners}
    for i, split in enumerate(splits):
        for name, learner in learners.items():
            if name != "gradient boosting" or split.repeat < BOOSTED:
                learner.fit(x[split.train], codes[split.train])
                found[name][i] = torch.from_numpy(learner.predict_proba(x[rows])).float()
    return found


def best(accuracy: dict[str, np.ndarray]) -> tuple[str, np.ndarray]:
    """(name of the best learner, its accuracies (splits,) completed) from the accuracies of all, nan where missing.

    A learner that missed repeats is compared on those that it has, and stands in the others where the best of the
    complete ones does, shifted by what it is ahead.
    """
    complete = [n for n in accuracy if not np.isnan(accuracy[n]).any()]
    base = max(complete, key=lambda n: accuracy[n].mean())
    ahead = {n: float(np.nanmean(values - accuracy[base])) for n, values in accuracy.items()}
    name = max(ahead, key=ahead.get)
    return (name, accuracy[base] + ahead[name]) if ahead[name] > 0 else (base, accuracy[base])
