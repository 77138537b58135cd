"""Time of the scorers' formulas beside public implementations of them, in one process on one thread.

    python benchmarks/scorer_speed.py

Every repeat runs ours and each peer in turn, so that a busy machine slows all of them; medians of 5 after one run to
warm up. Peers are taken where they can be imported, and the table says which: `tllib` (its folder ranking is enough),
`transformer-ranker` and `hf-dataset-selector`, which carries LogME's own code. They stop LogME's iteration early, at
0.1 to 1 %: their disagreement is that. transformer-ranker's k-NN measures plain accuracy, ours the balanced one. OTDD
has no package to install: beside it stands the same from POT's and SciPy's parts. Ratio: time of the fastest peer over
ours.
"""

import json
import platform
import time
from collections.abc import Callable
from importlib import import_module
from pathlib import Path

import click
import numpy as np
import ot
import torch
from scipy import linalg
from threadpoolctl import threadpool_limits

from transmeter.scorers.gbc import gbc
from transmeter.scorers.hscore import h_score
from transmeter.scorers.knn import knn
from transmeter.scorers.leep import leep
from transmeter.scorers.logme import log_evidence
from transmeter.scorers.nce import nce
from transmeter.scorers.otdd import distance
from transmeter.scorers.transrate import trans_rate

SIZES = ((1000, 64, 2), (1000, 256, 10), (10_000, 256, 10), (10_000, 768, 10))
REPEATS = 5


def example(n: int, d: int, classes: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Features (n, d) whose first directions tell a little of the class, codes (n,), outputs (n, classes)."""
    rng = np.random.default_rng(seed)
    codes = rng.integers(0, classes, n)
    x = rng.normal(size=(n, d)) * 0.99 ** np.arange(d)
    x[:, :classes] += np.eye(classes)[codes]
    outputs = np.exp(x[:, :classes] + rng.normal(size=(n, classes)))
    return x, codes, outputs / outputs.sum(1, keepdims=True)


def peers(x: np.ndarray, codes: np.ndarray, outputs: np.ndarray) -> dict[str, dict[str, Callable[[], float]]]:
    """Calls of the peers that can be imported, by formula and package."""
    found: dict[str, dict[str, Callable[[], float]]] = {}
    tensors = torch.from_numpy(x), torch.from_numpy(codes)

    def add(formula: str, package: str, module: str, call: Callable) -> None:
        try:
            loaded = import_module(module)
        except ImportError:
            return
        found.setdefault(formula, {})[package] = lambda: float(call(loaded))

    add("logme", "tllib", "tllib.ranking.logme", lambda m: m.log_maximum_evidence(x, codes))
    add("hscore", "tllib", "tllib.ranking.hscore", lambda m: m.regularized_h_score(x, codes))
    add("transrate", "tllib", "tllib.ranking.transrate", lambda m: m.transrate(x, codes))
    add("leep", "tllib", "tllib.ranking.leep", lambda m: m.log_expected_empirical_prediction(outputs, codes))
    add("nce", "tllib", "tllib.ranking.nce", lambda m: m.negative_conditional_entropy(outputs.argmax(1), codes))
    add("logme", "hf-dataset-selector", "hfselect.logme", lambda m: m.LogME(regression=False).fit(x, codes))
    ranker = "transformer-ranker", "transformer_ranker.estimators"
    add("logme", *ranker, lambda m: m.LogME().fit(*tensors))
    add("hscore", *ranker, lambda m: m.HScore().fit(*tensors))
    add("knn", *ranker, lambda m: m.NearestNeighbors(k=5).fit(*tensors))
    return found


def otdd_by_parts(x: np.ndarray, codes: np.ndarray, x_t: np.ndarray, codes_t: np.ndarray) -> float:
    """The distance with the label distances by matrix square roots."""
    labels = np.zeros((codes.max() + 1, codes_t.max() + 1))
    for a in range(len(labels)):
        for b in range(labels.shape[1]):
            both = x[codes == a], x_t[codes_t == b]
            means, covariances = zip(*((g.mean(0), np.cov(g, rowvar=False, bias=True)) for g in both))
            root = linalg.sqrtm(covariances[0])
            cross = np.trace(linalg.sqrtm(root @ covariances[1] @ root).real)
            labels[a, b] = ((means[0] - means[1]) ** 2).sum() + sum(map(np.trace, covariances)) - 2 * cross
    cost = ot.dist(x, x_t) + labels[codes][:, codes_t]
    return float(ot.emd2([], [], cost, numItermax=1_000_000) ** 0.5)


def measure(calls: dict[str, Callable[[], float]], repeats: int = REPEATS) -> tuple[dict[str, float], dict[str, float]]:
    """(median milliseconds, value) of every call, run in turn."""
    values = {name: call() for name, call in calls.items()}
    times: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(repeats):
        for name, call in calls.items():
            begin = time.perf_counter()
            call()
            times[name].append(1000 * (time.perf_counter() - begin))
    return {name: float(np.median(t)) for name, t in times.items()}, values


def row(formula: str, size: tuple[int, int, int], calls: dict[str, Callable[[], float]]) -> dict:
    """What the table and the file say of one formula at one size."""
    times, values = measure(calls)
    others = {p: t for p, t in times.items() if p != "ours"}
    return {
        "formula": formula,
        "rows, features, classes": size,
        "milliseconds": times,
        "ratio": min(others.values()) / times["ours"] if others else None,
        "fastest peer": min(others, key=others.get) if others else None,
        "disagreement": {p: abs(values[p] - values["ours"]) for p in others},
    }


def by_size(size: tuple[int, int, int]) -> list[dict]:
    """The formulas that look at one table."""
    x, codes, outputs = example(*size)
    ours = {
        "logme": lambda: log_evidence(x, codes),
        "hscore": lambda: h_score(x, codes),
        "transrate": lambda: trans_rate(x, codes),
        "leep": lambda: leep(outputs, codes),
        "nce": lambda: nce(outputs.argmax(1), codes),
        "gbc": lambda: gbc(x, codes),
        "knn": lambda: knn(x, codes),
    }
    others = peers(x, codes, outputs)
    return [row(name, size, {"ours": call, **others.get(name, {})}) for name, call in ours.items()]


def otdd(size: tuple[int, int, int]) -> dict:
    """The distance of two tables of one size."""
    (x, codes, _), (x_t, codes_t, _) = example(*size), example(*size, seed=1)
    calls = {
        "ours": lambda: distance(x, codes, x_t, codes_t),
        "POT and sqrtm": lambda: otdd_by_parts(x, codes, x_t, codes_t),
    }
    return row("otdd", size, calls)


@click.command()
@click.option("--out", default="benchmarks/results/scorer_speed.json", type=click.Path(path_type=Path))
def main(out: Path) -> None:
    """Time every formula at every size."""
    torch.set_num_threads(1)
    with threadpool_limits(1):
        rows = [found for size in SIZES for found in by_size(size)] + [otdd(size) for size in SIZES[:2]]
    about = {"threads": 1, "repeats": REPEATS, "python": platform.python_version(), "numpy": np.__version__}
    out.write_text(json.dumps(about | {"rows": rows}, indent=1) + "\n")
    for r in rows:
        times = "  ".join(f"{p} {t:.2f}" for p, t in r["milliseconds"].items())
        ratio = f"{r['ratio']:.1f}x" if r["ratio"] else "-"
        worst = f"{max(r['disagreement'].values()):.1e}" if r["disagreement"] else "-"
        size = "x".join(map(str, r["rows, features, classes"]))
        click.echo(f"{r['formula']:10} {size:14} {ratio:>6} {worst:>8}  {times}")


if __name__ == "__main__":
    main()
