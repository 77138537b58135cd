"""The models of sources alone as a classifier of plain arrays, for a target of which no row is labelled."""

from collections.abc import Sequence

import numpy as np

from transmeter.learners.fitted import Fitted
from transmeter.learners.trees import Trees
from transmeter.network.source import Encoded, Source
from transmeter.zero_shot.model import fit_source_model


def fit_sources(target: Encoded, sources: Sequence[Source]) -> tuple[Fitted, dict[str, float]]:
    """Average the models of all sources, each of which counts alike.

    Parameters
    ----------
    target : Encoded
        With the classes that are predicted, and no labels.
    sources : sequence of Source
        With columns and classes named as the target's, at least one.

    Returns
    -------
    Fitted
        The average.
    dict
        Share of every source's model by its name.

    Raises
    ------
    ValueError
        For a source without a column in common, or of other classes.
    """
    classes, given = target.table.classes, []
    for source in sources:
        if set(source.table.classes) != set(classes):
            has = f"{source.table.name} has the classes {', '.join(source.table.classes)}, not {', '.join(classes)}"
            raise ValueError(f"{has}: leave it out, or say which stands for which by classes")
        model = fit_source_model(source, target)
        if model is None:
            raise ValueError(f"{source.table.name} has no column of the target, so that it predicts nothing: omit it")
        given.append((model.basis, _in_order(model.coefficients, source.table.classes, classes)))
    coefficients = np.concatenate([c for _, c in given])
    shares = np.full(len(coefficients), 1 / len(coefficients))
    fitted = Fitted(basis=given[0][0], shares=shares, coefficients=coefficients, trees=_no_trees(len(classes)))
    return fitted, {f"{s.table.name} alone": 1 / len(sources) for s in sources}


def _in_order(coefficients: np.ndarray, names: Sequence[str], classes: Sequence[str]) -> np.ndarray:
    """(units, regressions, d + 1) in another order of the classes; of two classes the second is told from the first."""
    order = [list(names).index(c) for c in classes]
    if len(classes) == 2:
        return coefficients if order == [0, 1] else -coefficients
    return coefficients[:, order]


def _no_trees(classes: int) -> Trees:
    """A forest of one leaf that adds nothing."""
    leaf, root = np.array([-1], dtype=np.int32), np.zeros(1, dtype=np.int32)
    return Trees(root, leaf, leaf, root, np.zeros(1), np.zeros((1, classes), dtype=np.float32))
