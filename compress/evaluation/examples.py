"""Reading labelled examples from files, for every task that a model can have (compress.model.config.HEADS)."""

from collections.abc import Collection, Mapping
from pathlib import Path

import numpy as np
import pandas as pd

from compress.calibration.spec import FORMATS
from compress.calibration.texts import Text, table_texts, word_lists
from transmeter.tables import files

COLUMNS = {
    "classes": ("text", "label"),
    "values": ("text", "label"),
    "labels": ("tokens", "labels"),
    "answers": ("question", "context", "answers"),
}


def read_examples(path: str | Path, task: str = "classes", names: Collection[str] = ()) -> tuple[list, list]:
    """Read labelled examples; rows without an input or a label are left out.

    Parameters
    ----------
    path
        A table with the columns of the task.
    task
        A key of `COLUMNS`.
    names
        Of the model's classes. Classes of a data set that has other names are given by their numbers.

    Returns
    -------
    tuple
        Inputs, and what is right for each. classes: a text or, with the column text_pair, a pair of texts; its label
        as text. values: the same; a number. labels: a list of words; the list of their labels as text. answers:
        (question, context); the list of right answers, empty where the context has none.

    Raises
    ------
    ValueError
        As `calibration.texts.read_texts`, and for labels that are missing or make no sense.
    """
    path, columns = Path(path), COLUMNS[task]
    if path.suffix.lower() == ".txt":
        raise ValueError(f"{path} has no labels: give a table with the columns {', '.join(columns)}")
    frame = files.read(path, as_texts=True, formats=FORMATS)
    classes = frame.attrs.get("classes", {}).get("label", [])
    if not set(classes) <= set(names):  # the model calls them otherwise: their numbers count
        frame["label"] = frame["label"].map({name: str(i) for i, name in enumerate(classes)})
    missing = [c for c in columns if c not in frame]
    if missing:
        raise ValueError(f"{path} has no column '{missing[0]}': give a table with the columns {', '.join(columns)}")
    read = {"classes": _classes, "values": _values, "labels": _labels, "answers": _answers}[task]
    inputs, truths = read(path, frame)
    if not inputs:
        raise ValueError(f"{path} has no labelled text in it")
    return inputs, truths


def _classes(path: Path, frame: pd.DataFrame) -> tuple[list[Text], list[str]]:
    texts = table_texts(path, frame[[c for c in ("text", "text_pair") if c in frame]])
    labels = [_label(path, row, x) for row, x in enumerate(frame["label"], 1)]
    kept = [i for i, (text, label) in enumerate(zip(texts, labels)) if text and label]
    return [texts[i] for i in kept], [labels[i] for i in kept]


def _label(path: Path, row: int, value: object) -> str:
    """A label as it is written, "" where there is none."""
    if isinstance(value, list | dict | np.ndarray):
        raise ValueError(f"{path}, row {row}: label is a list: give one class or number a row")
    return "" if pd.isna(value) else str(value).strip()


def _values(path: Path, frame: pd.DataFrame) -> tuple[list[Text], list[float]]:
    texts, labels = _classes(path, frame)
    numbers = pd.to_numeric(pd.Series(labels, dtype=object), errors="coerce").to_numpy(float)
    if not np.isfinite(numbers).all():
        wrong = labels[int((~np.isfinite(numbers)).argmax())]
        raise ValueError(f"{path}: label '{wrong}' is no number, which the model of one class predicts")
    if len(numbers) and np.ptp(numbers) == 0:
        raise ValueError(f"{path}: every label is {numbers[0]:g}: a correlation needs different ones")
    return texts, numbers.tolist()


def _labels(path: Path, frame: pd.DataFrame) -> tuple[list[list[str]], list[list[str]]]:
    words, labels = (word_lists(path, frame[c]) for c in ("tokens", "labels"))
    for row, (w, x) in enumerate(zip(words, labels), 1):
        if len(w) != len(x):
            raise ValueError(f"{path}, row {row}: {len(w)} tokens, but {len(x)} labels: give one label a token")
    kept = [i for i, w in enumerate(words) if w]
    return [words[i] for i in kept], [labels[i] for i in kept]


def _answers(path: Path, frame: pd.DataFrame) -> tuple[list[Text], list[list[str]]]:
    pairs, found = table_texts(path, frame[["question", "context"]]), []
    for row, answers in enumerate(frame["answers"], 1):
        texts = answers.get("text") if isinstance(answers, Mapping) else answers
        if not isinstance(texts, list | np.ndarray):
            raise ValueError(f"{path}, row {row}: answers is not a list of texts or {{'text': [...]}} as in SQuAD")
        found.append([str(text) for text in texts])
    kept = [i for i, pair in enumerate(pairs) if isinstance(pair, tuple)]
    return [pairs[i] for i in kept], [found[i] for i in kept]
