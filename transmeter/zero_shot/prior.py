"""What a source's model is expected to be worth on a target without labels: two forests, in prior.npz.

`benchmarks/fit_no_label_prior.py` fits them on `benchmarks/results/no_label_pairs.csv.gz`; both are in the repository.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache

import numpy as np

from transmeter.gain.prior import TAIL, Gain, shipped_arrays
from transmeter.learners.trees import Trees

TINY = 1e-6  # least variance of a skill
ROWS, SOURCE_ROWS = 80, 40  # the fewest of a target, and labelled ones of a source, among the pairs of the fit


@dataclass(frozen=True)
class SkillForest:
    """A forest that predicts a skill: balanced accuracy, 0 at chance and 1 where all rows are right.

    Attributes
    ----------
    trees : Trees
        Whose leaves hold the mean skill and the mean squared skill of the pairs in them, over the number of trees.
    scale : float
        By which deviations of skills from predictions exceed those of skills within leaves.
    """

    trees: Trees
    scale: float

    def predict(self, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(n,) means and (n,) standard deviations of skills, of regressors x (n, d)."""
        mean, square = self.trees.probabilities(x).T
        return mean, self.scale * np.maximum(square - mean**2, TINY) ** 0.5


@dataclass(frozen=True)
class ZeroShotPrior:
    """What is known of source-only models from pairs whose target has labels.

    Attributes
    ----------
    alone : SkillForest
        From the features of a pair.
    among : SkillForest
        From these and what other sources' models predict.
    """

    alone: SkillForest
    among: SkillForest

    def arrays(self) -> dict[str, np.ndarray]:
        """Everything by name, as `restore` takes it."""
        found: dict[str, np.ndarray] = {}
        for name in ("alone", "among"):
            forest: SkillForest = getattr(self, name)
            found[f"{name}.scale"] = np.array(forest.scale)
            found |= {f"{name}.{k}": v for k, v in forest.trees.arrays().items()}
        return found

    @classmethod
    def restore(cls, arrays: Mapping[str, np.ndarray]) -> "ZeroShotPrior":
        """Take what `arrays` gave."""
        forests = []
        for name in ("alone", "among"):
            mine = {k.removeprefix(f"{name}."): v for k, v in arrays.items() if k.startswith(f"{name}.")}
            forests.append(SkillForest(Trees.restore(mine), float(mine["scale"])))
        return cls(*forests)


@cache
def load_prior() -> ZeroShotPrior:
    """The model in prior.npz.

    Returns
    -------
    ZeroShotPrior
        Read once.
    """
    return ZeroShotPrior.restore(shipped_arrays("transmeter.zero_shot"))


def gain_of(skill: float, deviation: float, classes: int, rows: float, source_rows: float) -> Gain:
    """A skill as a gain over guessing.

    Fewer rows than the pairs of the fit have add what chance does to them: of the target the variance of a balanced
    accuracy of unequal classes, of the source at least as much for its model.

    Parameters
    ----------
    skill, deviation : float
        Expected skill and its standard deviation.
    classes : int
        Number of classes that are guessed.
    rows, source_rows : float
        Number of the target's rows and of the source's labelled ones.

    Returns
    -------
    Gain
        In percentage points; no balanced accuracy below 0 or above 1 is in its interval.
    """
    right = min(max(1 / classes + (1 - 1 / classes) * skill, 0.05), 0.95)
    chance = right * (1 - right) / (1 - 1 / classes) ** 2 * max(classes / rows - classes / ROWS, 0.0)
    deviation = float(np.sqrt(deviation**2 + chance + max(1 / source_rows - 1 / SOURCE_ROWS, 0.0)))
    points = 100 * (1 - 1 / classes)
    found = Gain.from_error(points * skill, points * deviation, TAIL, informed=True)
    return replace(found, low=max(found.low, points - 100), high=min(found.high, points))
