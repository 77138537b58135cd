"""Ridge classifiers in closed form."""

import numpy as np

RIDGE = 1.0
TRAIN_ROWS = 500  # of a training set that `ridge_accuracy` uses


def loo_skill(x: np.ndarray, codes: np.ndarray) -> float:
    """Leave-one-out balanced accuracy of a ridge classifier, above chance.

    Parameters
    ----------
    x : ndarray of shape (n, d)
        Features.
    codes : ndarray of shape (n,)
        Class numbers.

    Returns
    -------
    float
        0 at chance or below, 1 where all rows are right.
    """
    classes = np.unique(codes)
    y = (codes[:, None] == classes).astype(np.float64)
    y /= y.mean(0)  # classes weigh alike
    a = np.concatenate([x.astype(np.float64), np.ones((len(x), 1))], axis=1)
    if a.shape[1] > len(a):  # the same by the smaller Gram matrix, (n, n)
        gram = a @ a.T
        smoother = np.linalg.solve(gram + RIDGE * np.eye(len(a)), gram)
        fitted, hat = smoother @ y, smoother.diagonal()[:, None]
    else:
        inverse = np.linalg.inv(a.T @ a + RIDGE * np.eye(a.shape[1]))
        fitted, hat = a @ (inverse @ (a.T @ y)), np.einsum("ij,jk,ik->i", a, inverse, a, optimize=True)[:, None]
    left_out = (fitted - hat * y) / (1 - hat).clip(1e-6)
    guess = left_out.argmax(1)
    shares = [(guess[codes == c] == i).mean() for i, c in enumerate(classes)]
    chance = 1 / len(classes)
    return float(max(0.0, (np.mean(shares) - chance) / (1 - chance)))


def ridge_accuracy(x: np.ndarray, codes: np.ndarray, train: np.ndarray, test: np.ndarray, classes: int) -> float:
    """Balanced accuracy of a ridge classifier on other rows than it was trained on.

    Parameters
    ----------
    x : ndarray of shape (n, d)
        Features.
    codes : ndarray of shape (n,)
        Class numbers.
    train, test : ndarray of int
        Row numbers; at most `TRAIN_ROWS` of `train` are used, evenly spaced.
    classes : int
        Number of classes.

    Returns
    -------
    float
        From 0 to 1.
    """
    train = train[:: -(-len(train) // TRAIN_ROWS)]
    a, y = x[train], np.eye(classes)[codes[train]]
    dual = np.linalg.solve(a @ a.T + RIDGE * len(a) * np.eye(len(a)), y - y.mean(0))
    right = (x[test] @ (a.T @ dual) + y.mean(0)).argmax(1) == codes[test]
    return float(np.mean([right[codes[test] == c].mean() for c in np.unique(codes[test])]))
