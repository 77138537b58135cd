"""all-MiniLM-L6-v2, an embedding model that people use, with half of its FLOPs removed: similarities and a probe.

    python benchmarks/real_embeddings.py MINILM DATASETS --work W [--minutes 30] [--cell "kprune 50%"]

MINILM is a folder of the model; DATASETS has text/ with the tables of `TASKS` and `OTHERS`, and lm/ with the files of
`PLAIN`. Calibration texts are chosen by `transmeter calibrate` for the three tasks, of texts of the tasks, whose labels
are not looked at, and of others; every cell is one `transmeter compress` with these, in a process and a thread of its
own.

Measured on texts that are in no calibration set, and for one set of a kind that no calibration text has: what
`transmeter evaluate --baseline` gives (rank correlation of similarities, cosine to the dense embedding), and the
accuracy of a logistic regression on the embeddings, on all tasks together, with its paired change. Every finished cell
goes to the result at once; no new one begins after `--minutes`, and the next call goes on with what is missing.
"""

import json
import os
import shutil
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import click
import numpy as np
import pandas as pd
import torch
from real_models import Words, interval, part, run, step, weights_bytes
from sklearn.linear_model import LogisticRegression

from compress.evaluation import metrics, prediction
from compress.model import io
from transmeter.util import writing

OUT = Path(__file__).resolve().parent / "results" / "real_embeddings.json"
TASKS = ("sst2", "trec6", "banking77")
OTHERS = ("ag_news",)  # tables whose texts are candidates too
PLAIN = {"web": "c4_sample.txt", "novels": "bronte.txt"}  # and files of paragraphs
UNSEEN = ("wiki", "wiki_sents.txt")  # of a kind that no candidate has, a sentence a line
TARGET = 1000  # rows of a task's training table that are its target; candidates are the others
TOKENS = 30_000  # of the calibration
FEW = 8_000
SIMILAR = 150  # texts of a set whose similarities are compared
TRAIN, TEST = 600, 400  # rows of a task that the probe learns from, and is measured on
DISTIL = step("distil", steps=100, rows=32, rate=3e-4)
# the command line of a cell
CELLS: dict[str, Words] = {
    "kprune 50%": step("kprune", ratio=0.5),
    "svd 50%": step("svd", ratio=0.5),
    "depth 50%": step("depth", ratio=0.5),
    "magnitude 50%": step("magnitude", ratio=0.5),
    "kwon 50%": step("kwon", ratio=0.5),
    "kprune 50%, distilled": step("kprune", ratio=0.5) + DISTIL,
    "kprune 25%": step("kprune", ratio=0.25),
    "svd 25%": step("svd", ratio=0.25),
    "depth 50%, distilled": step("depth", ratio=0.5) + DISTIL,
    "svd 50%, distilled": step("svd", ratio=0.5) + DISTIL,
    f"kprune 50%, {FEW:,} tokens": [*step("kprune", ratio=0.5), "--tokens", str(FEW)],
    **{f"{method} 25%": step(method, ratio=0.25) for method in ("depth", "magnitude", "kwon")},
    **{f"{method} 50%, distilled": step(method, ratio=0.5) + DISTIL for method in ("kwon", "magnitude")},
}


@click.command()
@click.argument("model", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.argument("datasets", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--work", required=True, type=click.Path(path_type=Path), help="Folder for models and texts.")
@click.option("--minutes", default=30.0, show_default=True, help="After which no new cell begins.")
@click.option("--cell", "cells", multiple=True, type=click.Choice(list(CELLS)), help="Cells to measure.")
@click.option("--out", default=OUT, type=click.Path(path_type=Path))
def main(model: Path, datasets: Path, work: Path, minutes: float, cells: Sequence[str], out: Path) -> None:
    """Measure the cells that are missing, and write all of them with a table beside."""
    torch.set_num_threads(1)
    end = time.monotonic() + 60 * minutes
    found: dict[str, Any] = json.loads(out.read_text()) if out.exists() else {"cells": {}}
    calibrate(model, datasets, work, found)
    measure = Measure(model, datasets)
    found["cells"].setdefault("dense", measure(model) | {"bytes": weights_bytes(model)})
    for name in cells or [cell for cell in CELLS if cell not in found["cells"]]:
        if time.monotonic() > end:
            break
        click.echo(f"{time.strftime('%H:%M')} {name}", err=True)
        folder = work / "small"
        for old in (folder, work / ".small.unfinished"):
            shutil.rmtree(old, ignore_errors=True)
        given = ["--calibration", str(work / "calibration"), "--tokens", str(TOKENS)]
        line = ["compress", str(model), *given, *CELLS[name], "--out", str(folder)]
        about = run([sys.executable, "-m", "cli", *line]) | {"bytes": weights_bytes(folder)}
        found["cells"][name] = about | measure(folder) | {"load": os.getloadavg()[0]}
        writing.write_text(out, json.dumps(found, indent=1) + "\n")
        writing.write_text(out.with_suffix(".md"), "\n".join(report(found)) + "\n")


def calibrate(model: Path, datasets: Path, work: Path, found: dict[str, Any]) -> None:
    """Choose the calibration texts, where that is not done."""
    if (work / "calibration").exists():
        return
    work.mkdir(parents=True, exist_ok=True)
    line = ["calibrate", str(model), "--tokens", str(TOKENS), "--out", str(work / "calibration")]
    for name in (*TASKS, *OTHERS):
        texts = table(datasets, name, "train")[["text"]]
        texts[TARGET:].to_csv(work / f"{name}.csv", index=False)
        line += ["--candidate", f"{name}={work}/{name}.csv"]
        if name in TASKS:
            texts[:TARGET].to_csv(work / f"{name}-target.csv", index=False)
            line += ["--target", f"{name}={work}/{name}-target.csv"]
    for name, file in PLAIN.items():
        line += ["--candidate", f"{name}={datasets}/lm/{file}"]
    about = run([sys.executable, "-m", "cli", *line])
    chosen = json.loads((work / "calibration" / "provenance.json").read_text())
    found["calibration"] = about | {key: chosen[key] for key in ("chosen", "scores", "parts")}


def table(datasets: Path, name: str, split: str) -> pd.DataFrame:
    """The columns text and label of a task."""
    return pd.read_csv(datasets / "text" / name / f"{split}.csv.gz", keep_default_na=False)


def unknown(datasets: Path, name: str) -> pd.DataFrame:
    """The test table of a task without the few texts that stand in its training table too."""
    test = table(datasets, name, "test")
    return test[~test.text.isin(table(datasets, name, "train").text)].reset_index(drop=True)


class Measure:
    """Similarities, cosines and a probe, beside those of the dense model."""

    def __init__(self, model: Path, datasets: Path):
        self.train = {name: table(datasets, name, "train")[:TRAIN] for name in TASKS}
        self.test = {name: unknown(datasets, name)[:TEST] for name in TASKS}
        unseen, file = UNSEEN
        self.unseen = {unseen: part(datasets / "lm", file, 0.0, 1.0).splitlines()[:SIMILAR]}
        self.dense = self.embed(model)
        self.dense_right = self.right(self.dense)

    def embed(self, folder: Path) -> dict[str, np.ndarray]:
        """(texts, width) by set; of a task the rows of its test table, then those of its training table."""
        given = io.load(folder)
        texts = {name: [*self.test[name].text, *self.train[name].text] for name in TASKS} | self.unseen
        return {name: prediction.embeddings(*given, each) for name, each in texts.items()}

    def right(self, embeddings: Mapping[str, np.ndarray]) -> np.ndarray:
        """(test rows of all tasks,) whether a logistic regression on the embeddings finds the label."""
        found = []
        for name in TASKS:
            states = embeddings[name] / np.linalg.norm(embeddings[name], axis=1, keepdims=True)
            test, train = states[: len(self.test[name])], states[len(self.test[name]) :]
            probe = LogisticRegression(C=10, max_iter=1000).fit(train, self.train[name].label)
            found.append(probe.predict(test) == self.test[name].label.to_numpy())
        return np.concatenate(found)

    def __call__(self, folder: Path) -> dict[str, Any]:
        """What is left of the dense model."""
        own = self.embed(folder)
        pairs = {name: (each[:SIMILAR], self.dense[name][:SIMILAR]) for name, each in own.items()}
        right = self.right(own)
        return {
            "similarity_spearman": {name: metrics.similarity(*pair) for name, pair in pairs.items()},
            "cosine": {name: metrics.mean_cosine(*pair) for name, pair in pairs.items()},
            "probe": metrics.share(right),
            "probe_change": metrics.paired_change(right, self.dense_right),
        }


def report(found: Mapping[str, Any]) -> list[str]:
    """Lines of the table."""
    lines: list[str] = []
    if "calibration" in found:
        chosen = found["calibration"]
        shares = ", ".join(f"{p['name']} {p['share']:.0%}" for p in chosen["parts"])
        lines += [f"Calibration texts chosen: {chosen['chosen']} ({shares}; {chosen['cpu_seconds']:.0f} CPU s).", ""]
    sets = [*TASKS, UNSEEN[0]]
    lines += [
        f"similarity_spearman with its 95 % interval, {SIMILAR} texts a set ({UNSEEN[0]}: of a kind that is in no "
        "calibration text); cosine:",
        f"mean of {', '.join(TASKS)}; probe: accuracy of a logistic regression, {TRAIN} rows a task to learn from, on "
        f"{TEST} of each;",
        "MB: weights as saved (fp16); CPU s: from the command to the saved folder.",
        "",
        f"| | {' | '.join(sets)} | cosine | probe | change, points | MB | CPU s |",
        "|" + "---|" * (6 + len(sets)),
    ]
    for name, cell in ((name, found["cells"][name]) for name in ["dense", *CELLS] if name in found["cells"]):
        change = {k: 100 * v for k, v in cell["probe_change"].items() if k in ("value", "ci_low", "ci_high")}
        values = [interval(cell["similarity_spearman"][each]) for each in sets]
        values += [f"{np.mean([cell['cosine'][task]['value'] for task in TASKS]):.3f}", interval(cell["probe"])]
        values += [f"{change['value']:.1f} ({change['ci_low']:.1f} to {change['ci_high']:.1f})"]
        values += [f"{cell['bytes'] / 1e6:.1f}", f"{cell['cpu_seconds']:.0f}" if "cpu_seconds" in cell else "-"]
        lines.append(f"| {name} | {' | '.join(values)} |")
    return lines


if __name__ == "__main__":
    main()
