"""Tasks of the lm-evaluation-harness on models that predict next tokens, each by itself or beside a baseline.

What the harness counts document by document is compared document by document; what it joins in another way (BLEU, word
perplexity, the mean of a group of tasks) is given as it gives it. No code of a model folder is run; functions that a
task names are, so that a task file from elsewhere is a program.

https://github.com/EleutherAI/lm-evaluation-harness (Gao et al., doi 10.5281/zenodo.12608602)
"""

import contextlib
import logging
import math
import sys
from collections.abc import Iterator, Mapping, Sequence
from importlib.util import find_spec
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn
from transformers import PreTrainedTokenizerBase as Tokenizer

from compress.evaluation import metrics
from compress.evaluation.metrics import Estimate
from compress.model.config import task_of
from transmeter.util.intervals import half_width
from transmeter.util.suggestions import did_you_mean

REPEATS = 1000  # of the harness's own bootstraps
FILES = (".yaml", ".yml")


class Tasks:
    """Tasks that were found.

    Parameters
    ----------
    names
        Of the harness's own tasks, groups and tags; files of tasks (.yaml); folders of such files.

    Raises
    ------
    ValueError
        The library is missing, or there is no such task.
    """

    def __init__(self, names: Sequence[str]):
        if find_spec("lm_eval") is None:
            raise ValueError("tasks are run by the lm-evaluation-harness: pip install 'transmeter[lm-eval]'")
        self.names = [file for name in names for file in _files(name)]
        known = [name for name in self.names if not name.endswith(FILES)]
        with _quiet():
            from lm_eval.tasks import TaskManager

            self.manager = TaskManager(include_defaults=bool(known))
        for name in known:
            if name not in self.manager.all_tasks:
                remedy = "give a name that lm-eval ls tasks lists, a task file (.yaml) or a folder of such files"
                guess = did_you_mean(name, self.manager.all_tasks)
                raise ValueError(f"'{name}' is no task of the lm-evaluation-harness{guess}: {remedy}")

    def run(self, model: nn.Module, tokenizer: Tokenizer) -> tuple[dict[str, Any], dict[str, dict[str, np.ndarray]]]:
        """What a model reaches.

        Parameters
        ----------
        model
            That predicts next tokens.
        tokenizer
            Of the model.

        Returns
        -------
        tuple
            By task and metric, the estimates; and the values of the documents, (documents,), where the estimate is
            their mean.

        Raises
        ------
        ValueError
            A task cannot be read, or its data set is not here.
        """
        from lm_eval import simple_evaluate
        from lm_eval.models.huggingface import HFLM

        with _quiet():
            try:
                # one sequence at a time, so that padding plays no part
                reader = HFLM(pretrained=model, tokenizer=tokenizer, backend="causal", batch_size=1)
                options = {"task_manager": self.manager, "bootstrap_iters": REPEATS, "log_samples": True}
                found = simple_evaluate(reader, tasks=self.names, **options)
            except Exception as error:  # of any kind: what a task leads to is not known beforehand
                reason = " ".join(str(error).split())[:300] or type(error).__name__
                raise ValueError(
                    f"{', '.join(self.names)} cannot be run ({reason}): look at the task and its data"
                ) from error
        return estimates(found)


def estimates(found: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, dict[str, np.ndarray]]]:
    """Results of the harness with intervals.

    Parameters
    ----------
    found
        What `lm_eval.simple_evaluate` returns.

    Returns
    -------
    tuple
        As of `Tasks.run`.
    """
    values: dict[str, Any] = {}
    documents: dict[str, dict[str, np.ndarray]] = {}
    for task, result in found["results"].items():
        values[task], documents[task] = {}, {}
        for key, value in result.items():
            metric, _, way = key.partition(",")
            if not way or metric.endswith("_stderr") or not isinstance(value, int | float):
                continue
            name = metric if way == "none" else key
            each = _of_documents(found.get("samples", {}).get(task, ()), metric, way)
            if each is not None and math.isclose(each.mean(), value, rel_tol=1e-9, abs_tol=1e-12):
                values[task][name] = _mean(each)
                if found["higher_is_better"].get(task, {}).get(metric):
                    documents[task][name] = each
            else:
                values[task][name] = _as_given(value, result.get(f"{metric}_stderr,{way}"), result)
    return values, documents


def recovery(own: Mapping[str, Mapping[str, np.ndarray]], baseline: Mapping[str, Mapping[str, np.ndarray]]) -> dict:
    """What is left of the results of a baseline.

    Parameters
    ----------
    own, baseline
        Values of the documents by task and metric, of metrics that are better when higher.

    Returns
    -------
    dict
        By task and metric, per cent of the baseline's mean, with the paired t interval of the ratio over documents;
        None where the baseline's mean is 0.
    """
    return {
        task: {name: _share(own[task][name], baseline[task][name]) for name in found if name in own.get(task, {})}
        for task, found in baseline.items()
    }


def check_models(names: Sequence[str]) -> None:
    """Refuse models that the harness cannot ask.

    Parameters
    ----------
    names
        Folders or names on the Hub.

    Raises
    ------
    ValueError
        One of them does not predict next tokens.
    """
    for name in names:
        if task_of(name) != "text":
            raise ValueError(f"{name} does not predict next tokens, as --task asks for: give --data")


def _share(own: np.ndarray, baseline: np.ndarray) -> Estimate | None:
    if len(own) != len(baseline) or not baseline.sum():
        return None
    found = metrics.paired_ratio(own, baseline)
    return {**found, **{key: 100 * found[key] for key in ("value", "ci_low", "ci_high")}}


def _files(name: str) -> list[str]:
    """The files of tasks that a folder holds; else the name itself. Raises ValueError for a file that is not there."""
    path = Path(name)
    if path.is_dir():
        found = sorted(str(file) for file in path.iterdir() if file.suffix in FILES)
        if not found:
            raise ValueError(f"{name} has no task in it: give a folder with files of tasks (.yaml)")
        return found
    if path.suffix in FILES and not path.is_file():
        raise ValueError(f"{name} does not exist: give a file of a task, a folder, or a name")
    return [name]


def _of_documents(samples: Sequence[Mapping[str, Any]], metric: str, way: str) -> np.ndarray | None:
    """The metric of every document in order, None where it is no number of each."""
    each = [sample.get(metric) for sample in samples if sample.get("filter") == way]
    if not each or not all(isinstance(x, bool | int | float | np.number) for x in each):
        return None
    return np.array(each, dtype=float)


def _mean(each: np.ndarray) -> Estimate:
    if np.isin(each, (0.0, 1.0)).all():
        return metrics.share(each.astype(bool))
    return metrics.mean(each)


def _as_given(value: float, error: object, result: Mapping[str, Any]) -> Estimate:
    """A value with its standard error, by the normal distribution; infinite bounds where none is given."""
    reach = half_width(float(error), math.inf) if isinstance(error, int | float) else math.inf
    n = int(result.get("sample_len") or 0)
    return {"value": float(value), "ci_low": value - reach, "ci_high": value + reach, "n": n, "interval": "harness"}


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """While the context is open, the harness logs errors alone, and shows its bars to people alone."""
    logging.getLogger("lm_eval").setLevel(logging.ERROR)
    with contextlib.nullcontext() if sys.stderr.isatty() else contextlib.redirect_stderr(StringIO()):
        yield
