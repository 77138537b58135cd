"""What a model can do: a metric of its task, beside what it costs and what it took to make it."""

import hashlib
import json
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn
from transformers import PreTrainedTokenizerBase as Tokenizer

from compress.calibration.sampling import fingerprint
from compress.calibration.texts import parts_of, read_texts
from compress.evaluation import harness, metrics, prediction
from compress.evaluation.costs import Costs, size
from compress.evaluation.examples import read_examples
from compress.evaluation.metrics import METRICS
from compress.evaluation.windows import Reading, masked_reading, reading
from compress.model import io, modeling, structure
from compress.model.config import config_of, quantizer_of, task_of
from compress.model.embedding import has_head, pooling_of
from compress.model.layers import FORMS
from transmeter.util.checkpoint import bytes_of
from transmeter.util.counts import counted

TOKENS = 100_000  # that perplexity is measured on
TEXTS = 300  # largest number of texts whose embeddings are compared, each with every other
FEWEST = 10  # and the smallest


@dataclass(frozen=True)
class Predictions:
    """What a model predicts.

    Attributes
    ----------
    outcome
        Of every item, as `compress.evaluation.metrics` takes it; of embeddings the embeddings.
    compared
        With the baseline, as `metrics.divergence` takes it; None where there is none, or none to compare with.
    logits
        (texts, classes) of a classifier, else None.
    """

    outcome: metrics.Outcome
    compared: np.ndarray | None = None
    logits: np.ndarray | None = None


@dataclass(frozen=True)
class Measured:
    """What one model reaches and costs.

    Attributes
    ----------
    result
        By name.
    predictions
        Of the model.
    model, tokenizer
        The model itself, where others are compared with what it predicts.
    """

    result: dict[str, object]
    predictions: Predictions
    model: nn.Module | None = None
    tokenizer: Tokenizer | None = None


@dataclass(frozen=True)
class EvaluationTask:
    """What models are measured on.

    Attributes
    ----------
    file
        Texts, or a labelled table.
    kind
        What the models are for, a key of `metrics.METRICS`.
    metric
        One of the metrics of that kind.
    content
        Of the file: texts, or inputs and what is right for them.
    reading
        How texts are read for perplexity, None for other kinds.
    """

    file: Path
    kind: str
    metric: str
    content: Sequence
    reading: Reading | None = None

    def predict(self, model: nn.Module, tokenizer: Tokenizer, baseline: Measured | None = None) -> Predictions:
        """What a model predicts for every item, compared with what a baseline does."""
        if self.reading:
            windows = self.reading.windows(tokenizer, self.content)
            other = baseline.model if baseline and _same_tokens(model, tokenizer, baseline) else None
            if self.reading.masked:
                how = self.reading.masked, self.reading.seed
                found = prediction.masked_losses(model, tokenizer, windows, *how, other)
                return Predictions(found[:, [0, 1, -1]], None if other is None else found[:, [2, 3, 1]])
            found = prediction.losses(model, tokenizer, windows, other)
            return Predictions(found[:, :2], None if other is None else found[:, [2, 3, 1]])
        if self.kind == "embeddings":
            return Predictions(prediction.embeddings(model, tokenizer, self.content))
        if self.kind != "classes":
            return Predictions(_outcome(model, tokenizer, self.kind, self.metric, *self.content))
        inputs, truths = self.content
        ids = prediction.class_ids(model, truths)
        if self.metric == "f1" and model.config.num_labels != 2:
            raise ValueError(f"f1 is for two classes, the model has {model.config.num_labels}: use --metric macro_f1")
        logits = prediction.logits(model, tokenizer, inputs)
        outcome = metrics.outcome(self.kind, self.metric, ids, logits.argmax(-1))
        other = baseline.predictions.logits if baseline and _same_classes(model, baseline) else None
        compared = None if other is None else metrics.divergence_of_classes(logits, other)
        return Predictions(outcome, compared, logits)

    def values(self, found: Predictions, baseline: Predictions | None = None) -> dict[str, metrics.Estimate]:
        """The metric with its interval, by name; of masked tokens and embeddings behind it the other one.

        Embeddings are compared with those of the baseline; without one it is the baseline whose they are.
        """
        own = found.outcome
        if self.kind == "embeddings":
            other = (baseline or found).outcome
            values = {"similarity_spearman": metrics.similarity(own, other)}
            if own.shape == other.shape:  # a student may have another width
                values["cosine"] = metrics.mean_cosine(own, other)
        elif self.kind == "masked":
            values = {"masked_perplexity": metrics.perplexity(own)}
            values["masked_accuracy"] = metrics.token_share(own[:, 2], own[:, 1])
        else:
            return {self.metric: metrics.perplexity(own) if self.reading else metrics.measure(self.metric, own)}
        if self.metric not in values:
            raise ValueError(
                "cosine is of embeddings of one width, the models differ: use --metric similarity_spearman"
            )
        return {self.metric: values[self.metric], **values}

    def about(self) -> dict[str, object]:
        """What the model card says of it: the data, their SHA-256 where they are one file, the metric, the windows."""
        found = {"data": str(self.file), "metric": self.metric, **self.windows()}
        return found | ({"sha256": hashlib.sha256(self.file.read_bytes()).hexdigest()} if self.file.is_file() else {})

    def windows(self) -> dict[str, object]:
        """What results say of the windows of texts."""
        return dict(self.reading.about()) if self.reading else {}

    def change(self, found: Predictions, baseline: Predictions) -> dict[str, metrics.Estimate]:
        """The paired change, and how far predictions are from the baseline's, each by its name.

        No change of windows that differ, as they do where tokenizers do, nor of embeddings, whose metrics say it.
        """
        if self.kind == "embeddings":
            return {}
        near = {} if found.compared is None else metrics.divergence(found.compared)
        own, other = found.outcome, baseline.outcome
        if not self.reading:
            return {f"{self.metric}_change": metrics.change(self.metric, own, other), **near}
        if not np.array_equal(own[:, 1], other[:, 1]):
            return near
        return {"loss_change_nats": metrics.loss_change(own, other), **near}


def _same_tokens(model: nn.Module, tokenizer: Tokenizer, baseline: Measured) -> bool:
    """Whether a baseline reads and predicts the same tokens; warns where it does not."""
    same = fingerprint(tokenizer) == fingerprint(baseline.tokenizer)
    return _comparable(same and model.config.vocab_size == baseline.model.config.vocab_size, "tokens")


def _same_classes(model: nn.Module, baseline: Measured) -> bool:
    """Whether a baseline has the same classes in the same order; warns where it has not."""
    return _comparable(list(model.config.id2label.values()) == list(baseline.model.config.id2label.values()), "classes")


def _comparable(same: bool, what: str) -> bool:
    if not same:
        warnings.warn(f"the baseline has other {what}: no KL divergence and agreement are given", stacklevel=4)
    return same


def evaluation_task(
    models: str | Sequence[str],
    file: Path,
    metric: str | None = None,
    *,
    tokens: int = TOKENS,
    window: int | None = None,
    stride: int | None = None,
    apart: bool = False,
    reference: str | None = None,
) -> EvaluationTask:
    """Read what models are measured on.

    Parameters
    ----------
    models
        Folders, GGUF files or names on the Hub, one or several for the same kind of task.
    file
        Texts, or a labelled table.
    metric
        One of `metrics.METRICS`; None: the first for what the first model is for.
    tokens
        Number of tokens that perplexity is measured on.
    window, stride, apart
        Of perplexity, as of `windows.reading`.
    reference
        Model whose embeddings those of the others will be compared with, where they have no head.

    Returns
    -------
    EvaluationTask
        For these models, and those that are made of them.

    Raises
    ------
    ValueError
        A model is of another kind or cannot give the metric, the data lack the labels that it needs, the windows do
        not fit the models, or there is nothing to compare embeddings with.
    """
    models = [models] if isinstance(models, str) else list(models)
    model = models[0]
    kind = task_of(model)
    if metric and metric not in METRICS[kind]:
        raise ValueError(f"{model} gives no {metric}: use --metric {' or '.join(METRICS[kind])}")
    for name in models[1:]:
        if task_of(name) != kind:
            kinds = f"{task_of(name)}, {kind}"
            raise ValueError(f"{name} is for another task than the first model ({kinds}): give models for the same")
    chosen = metric or METRICS[kind][0]
    if kind not in ("text", "masked"):
        if any((window, stride, apart)):
            raise ValueError(f"windows are of perplexity, {model} gives {chosen}: leave window, stride and apart out")
        if kind == "embeddings":
            return _embedding_task(model, file, chosen, reference)
        names = (config_of(model).get("id2label") or {}).values()
        return EvaluationTask(file, kind, chosen, read_examples(file, kind, names))
    contexts = {name: structure.context(io.skeleton(name, quantized=True)[0], structure.UNLIMITED) for name in models}
    tokenizer = io.skeleton(model, quantized=True)[1]
    if kind == "masked":
        how = masked_reading(tokens, window, stride, contexts)
        if tokenizer.mask_token_id is None:
            raise ValueError(f"the tokenizer of {model} has no mask token to predict behind: give the model's own")
    else:
        how = reading(tokens, window, stride, apart, contexts)
    return EvaluationTask(file, kind, chosen, read_texts(file, tokenizer), how)


def _embedding_task(model: str, file: Path, metric: str, reference: str | None) -> EvaluationTask:
    """What models without a head are measured on: at most `TEXTS` different texts, those of pairs one by one."""
    if reference is None:
        why = "has no head, so that only how near its embeddings are to another model's can be measured"
        raise ValueError(f"{model} {why}: give --baseline, the model that it was made of, in Python baseline=")
    tokenizer = io.skeleton(reference, quantized=True)[1]
    texts = list(dict.fromkeys(part for text in read_texts(file, tokenizer) for part in parts_of(text)))
    if len(texts) < FEWEST:
        raise ValueError(
            f"{file} holds {counted(len(texts), 'different text')}: give at least {FEWEST} to compare with each other"
        )
    if len(texts) > TEXTS:
        warnings.warn(f"{file} holds {len(texts):,} different texts: {TEXTS} are taken by chance, seed 0", stacklevel=3)
        texts = [texts[i] for i in np.sort(np.random.default_rng(0).permutation(len(texts))[:TEXTS])]
    return EvaluationTask(file, "embeddings", metric, texts)


def evaluate(
    models: str | Path | Sequence[str | Path],
    data: str | Path | None = None,
    *,
    task: str | Path | Sequence[str | Path] | None = None,
    baseline: str | Path | None = None,
    metric: str | None = None,
    tokens: int = TOKENS,
    window: int | None = None,
    stride: int | None = None,
    apart: bool = False,
    latency: bool = False,
    peak_memory: bool = False,
    energy: bool = False,
) -> list[dict[str, object]]:
    """Measure models: a metric with its 95 % interval, size, FLOPs and what it took to make them.

    Parameters
    ----------
    models
        Folders, GGUF files or names on the Hub, one or several for the same kind of task.
    data
        Texts, or a labelled table; None: `task` says what is measured.
    task
        Tasks of the lm-evaluation-harness, for models of next tokens: names, task files (.yaml) or folders of these.
        Each result has `tasks`, by task and metric; with a baseline also `recovery_percent`, of metrics that are a mean
        over documents, with the paired interval.
    baseline
        Another model, measured on the same items; each result has it, the paired change and, of tokens and classes,
        the mean KL divergence of the model's predictions from the baseline's (`kl_divergence_nats`) and the share of
        them whose most likely token or class is the same (`top1_agreement`). Models of tokens are in memory together
        with it. Models without a head need one: their metrics compare embeddings.
    metric
        One of `metrics.METRICS`; None: the first for what the first model is for.
    tokens
        Number of tokens that perplexity is measured on.
    window
        Largest number of tokens of a window of perplexity, in which all but the first are predicted; None: 2,048, or
        the shortest context.
    stride
        Tokens from one window to the next; of a smaller one than the window the new tokens alone are predicted, with
        more before them. None: windows do not overlap.
    apart
        Whether every text has windows of its own, each with the tokenizer's special tokens; else all texts are joined,
        as in published tables.
    latency
        Measure the time of a forward of one sequence too.
    peak_memory
        Measure what loading and one forward add to the memory of a new process too.
    energy
        Estimate the energy of a forward too, by codecarbon.

    Returns
    -------
    list
        A dict per model, with times in seconds, sizes in bytes and energies in joules.

    Raises
    ------
    ValueError
        For a model of another kind, a metric that it cannot give, data without the labels needed, windows that a model
        cannot read, tasks that are not known, or where codecarbon or lm-eval is missing.
    """
    names = [str(name) for name in ([models] if isinstance(models, str | Path) else models)]
    compared = [*names, *([str(baseline)] if baseline else [])]
    costs = Costs(latency, peak_memory, energy)
    costs.check()
    if (data is None) == (task is None):
        raise ValueError("give data, texts or a labelled table to measure on, or task, of the lm-evaluation-harness")
    if task is not None:
        if metric or window or stride or apart:
            raise ValueError("tasks have metrics of their own: leave metric, window, stride and apart out")
        asked = [str(name) for name in ([task] if isinstance(task, str | Path) else task)]
        return _on_tasks(names, asked, str(baseline) if baseline else None, costs)
    assert data is not None
    how: dict[str, Any] = {"tokens": tokens, "window": window, "stride": stride, "apart": apart}
    task = evaluation_task(compared, Path(data), metric, **how, reference=compared[-1] if baseline else None)
    dense = _measured(str(baseline), task, costs, keep=True) if baseline else None
    results = []
    for name in names:
        found, paired = _measured(name, task, costs, dense), {}
        if dense:
            changes = task.change(found.predictions, dense.predictions)
            paired = {"baseline": dense.result, "helps": _helps(found.result, dense.result), **changes}
        results.append({**found.result, "data": str(data), **task.windows(), **paired})
    return results


def _measured(
    name: str, task: EvaluationTask, costs: Costs, baseline: Measured | None = None, keep: bool = False
) -> Measured:
    """What one model reaches and costs; keep: with the model, which others are compared with."""
    net, tokenizer = io.load(name, quantized=True)
    found, depth = _predictions_and_depth(net, tokenizer, task, baseline)
    pooling = {} if has_head(net) else {"pooling": pooling_of(net).about()}
    values = task.values(found, baseline and baseline.predictions)
    result = {"model": name, **values, **pooling, **depth, **_costs(name, net, costs)}
    return Measured(result, found, *((net, tokenizer) if keep else ()))


def _costs(name: str, net: nn.Module, costs: Costs) -> dict[str, Any]:
    """What a model takes, and what it took to make it."""
    foreign, steps = quantizer_of(name), _steps(name)
    return {
        **size(io.skeleton(name, quantized=True)[0] if foreign else net),
        "bytes": bytes_of(name),
        "compression_seconds": None if steps is None else sum(step["seconds"] for step in steps),
        "packed": [foreign] if foreign else _packed(net),
        "steps": [{k: step[k] for k in ("method", "options")} for step in steps or []],
        **costs.measure(name, net),
    }


def _on_tasks(
    names: Sequence[str], asked: Sequence[str], baseline: str | None, costs: Costs
) -> list[dict[str, object]]:
    """Results on tasks of the lm-evaluation-harness."""
    harness.check_models([*names, *([baseline] if baseline else [])])
    tasks = harness.Tasks(asked)

    def measured(name: str) -> tuple[dict[str, Any], dict[str, dict[str, np.ndarray]]]:
        net, tokenizer = io.load(name, quantized=True)
        values, documents = tasks.run(net, tokenizer)
        return {"model": name, "tasks": values, **_costs(name, net, costs)}, documents

    dense = measured(baseline) if baseline else None
    results = []
    for name in names:
        found, documents = measured(name)
        if dense:
            left = harness.recovery(documents, dense[1])
            found |= {"baseline": dense[0], "helps": _helps(found, dense[0]), "recovery_percent": left}
        results.append(found)
    return results


def _packed(net: nn.Module) -> list[str]:
    """The forms in which weights are stored that are not plain numbers."""
    sparse = {"Bitmask"} if any(isinstance(m, nn.Linear) and modeling.is_sparse(m) for m in net.modules()) else set()
    return sorted({type(m).__name__ for m in net.modules() if isinstance(m, FORMS)} | sparse)


def _predictions_and_depth(
    net: nn.Module, tokenizer: Tokenizer, task: EvaluationTask, baseline: Measured | None = None
) -> tuple[Predictions, dict[str, float]]:
    """What a model predicts, and where it has exits its mean depth: the share of the blocks that ran."""
    exits = getattr(net, "exits", None)
    if exits is None:
        return task.predict(net, tokenizer, baseline), {}
    exits.left = [0] * len(exits.left)
    found = task.predict(net, tokenizer, baseline)
    blocks = net.config.num_hidden_layers
    ran = sum(n * a for n, a in zip(exits.left, [*exits.after, blocks]))
    return found, {"mean_depth": ran / (blocks * sum(exits.left))}


def _steps(name: str) -> list[dict[str, Any]] | None:
    """The steps that made the model, by its card; None where it has none."""
    file = Path(name) / "compression.json"
    return json.loads(file.read_text(encoding="utf-8")).get("steps", []) if file.exists() else None


def _helps(found: Mapping[str, Any], dense: Mapping[str, Any]) -> str:
    """On which hardware a model is better than `dense`, and in what."""
    gains = []
    if found["flops"] and dense["flops"] and found["flops"] < dense["flops"]:
        gains.append("time and memory everywhere")
    elif found["parameters"] < dense["parameters"] and not found["packed"]:
        gains.append("memory everywhere")
    if found["packed"]:
        foreign = set(found["packed"]) - {form.__name__ for form in FORMS}
        exported = "time where exported" if "Uniform" in found["packed"] else "time where its kernels run"
        gains.append(f"disk; {exported}" if foreign or "Uniform" in found["packed"] else "disk")
    return ", ".join(gains) or "nowhere"


def _outcome(
    model: nn.Module, tokenizer: Tokenizer, task: str, metric: str, inputs: Sequence, truths: Sequence
) -> metrics.Outcome:
    """What a model of values, answers or labels does on examples of `compress.evaluation.examples`."""
    if task == "values":
        return metrics.outcome(task, metric, truths, prediction.values(model, tokenizer, inputs))
    if task == "answers":
        may_be_none = any(not truth for truth in truths)
        return metrics.outcome(task, metric, truths, prediction.answers(model, tokenizer, inputs, may_be_none))
    outside = model.config.label2id.get("O", metrics.NONE)
    ids = [prediction.class_ids(model, truth) for truth in truths]
    found = prediction.labels(model, tokenizer, inputs)
    counted = [[np.where(words == outside, metrics.NONE, words) for words in side] for side in (ids, found)]
    return metrics.outcome(task, metric, *counted)
