"""What a model can do and what it costs: a metric of its task, bytes, parameters, FLOPs, latency, peak memory."""

import hashlib
import json
import logging
import statistics
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from transformers import PreTrainedTokenizerBase as Tokenizer

from compress.algorithms.budget import flops
from compress.calibration.texts import read_texts
from compress.evaluation import metrics, prediction
from compress.evaluation.examples import read_examples
from compress.evaluation.metrics import METRICS
from compress.model import io, modeling, structure
from compress.model.config import config_of, quantizer_of, task_of
from compress.model.layers import FORMS
from compress.model.modeling import SPARSE_FROM
from compress.model.walk import Batch
from transmeter.util.checkpoint import bytes_of

LENGTH = 128  # tokens of the sequence that FLOPs and latency are given for


@dataclass(frozen=True)
class EvaluationTask:
    """What models are measured on: the content of a file, for a task, by a metric.

    tokens: that perplexity is measured on.
    """

    file: Path
    kind: str
    metric: str
    content: Sequence
    tokens: int

    def outcome(self, model: nn.Module, tokenizer: Tokenizer) -> metrics.Outcome:
        """What a model does on every item, as `compress.evaluation.metrics` takes it."""
        if self.kind == "text":
            return prediction.losses(model, tokenizer, self.content, self.tokens)
        return _outcome(model, tokenizer, self.kind, self.metric, *self.content)

    def value(self, found: metrics.Outcome) -> metrics.Estimate:
        """The metric with its interval."""
        return metrics.perplexity(found) if self.kind == "text" else metrics.measure(self.metric, found)

    def about(self) -> dict[str, str]:
        """What the model card says of it: the data, their SHA-256 where they are one file, the metric."""
        found = {"data": str(self.file), "metric": self.metric}
        return found | ({"sha256": hashlib.sha256(self.file.read_bytes()).hexdigest()} if self.file.is_file() else {})

    def change(self, found: metrics.Outcome, baseline: metrics.Outcome) -> dict[str, metrics.Estimate]:
        """The paired change, by its name; empty where the items differ, as windows do where tokenizers do."""
        if self.kind != "text":
            return {f"{self.metric}_change": metrics.change(self.metric, found, baseline)}
        same = np.array_equal(found[:, 1], baseline[:, 1])
        return {"loss_change_nats": metrics.loss_change(found, baseline)} if same else {}


def evaluation_task(model: str, file: Path, metric: str | None, tokens: int) -> EvaluationTask:
    """What `model` and models like it are measured on.

    metric: one of `evaluation.metrics.METRICS`; None: the first for what the model is for. Raises ValueError where the
    model cannot give the metric or the data lack the labels that it needs.
    """
    task = task_of(model)
    if metric and metric not in METRICS[task]:
        raise ValueError(f"{model} gives no {metric}: use --metric {' or '.join(METRICS[task])}")
    if task == "text":
        content: Sequence = read_texts(file, io.skeleton(model, quantized=True)[1])
    else:
        content = read_examples(file, task, (config_of(model).get("id2label") or {}).values())
    return EvaluationTask(file, task, metric or METRICS[task][0], content, tokens)


def report(
    names: Sequence[str], baseline: str | None, task: EvaluationTask, energy: bool = False
) -> list[dict[str, object]]:
    """Everything about models on what `task` says, each with the baseline and the paired change.

    energy: estimate that of a forward too. Raises ValueError for a model of another task, or where codecarbon is
    missing.
    """
    for name in (*names, baseline):
        if name and task_of(name) != task.kind:
            tasks = f"{task_of(name)}, {task.kind}"
            raise ValueError(f"{name} is for another task than the first model ({tasks}): give models for the same")
    if energy and find_spec("codecarbon") is None:
        raise ValueError("the energy is estimated by codecarbon: pip install 'transmeter[energy]'")
    dense, reference = _measured(baseline, task, energy) if baseline else (None, None)
    found = []
    for name in names:
        result, outcome = _measured(name, task, energy)
        result["data"] = str(task.file)
        if baseline:
            result |= {"baseline": dense, "helps": helps(result, dense), **task.change(outcome, reference)}
        found.append(result)
    return found


def _measured(name: str, task: EvaluationTask, energy: bool) -> tuple[dict[str, object], metrics.Outcome]:
    """What one model reaches and costs, and its outcome."""
    net, tokenizer = io.load(name, quantized=True)
    outcome, depth = _leaving(net, tokenizer, task)
    foreign = quantizer_of(name)
    sizes = size(io.skeleton(name, quantized=True)[0] if foreign else net)
    found = {"model": name, task.metric: task.value(outcome), **depth, **sizes, "bytes": bytes_of(name)}
    found |= {"latency_seconds": latency(net), "peak_memory_bytes": peak_memory(name)}
    packed = [foreign] if foreign else _packed(net)
    steps = _steps(name)
    found |= {"compression_seconds": sum(s["seconds"] for s in steps) if steps is not None else None, "packed": packed}
    found |= {"steps": [{k: s[k] for k in ("method", "options")} for s in steps or []]}
    return found | ({"energy_joules_estimate": joules(net)} if energy else {}), outcome


def _packed(net: nn.Module) -> list[str]:
    """The forms in which weights are stored that are not plain numbers."""
    sparse = {"Bitmask"} if any(isinstance(m, nn.Linear) and modeling.is_sparse(m) for m in net.modules()) else set()
    return sorted({type(m).__name__ for m in net.modules() if isinstance(m, FORMS)} | sparse)


def _leaving(net: nn.Module, tokenizer: Tokenizer, task: EvaluationTask) -> tuple[metrics.Outcome, dict[str, float]]:
    """The outcome of a model, and where it has exits its mean depth: the share of the blocks that ran."""
    exits = getattr(net, "exits", None)
    if exits is None:
        return task.outcome(net, tokenizer), {}
    exits.left = [0] * len(exits.left)
    outcome = task.outcome(net, tokenizer)
    blocks = net.config.num_hidden_layers
    ran = sum(n * a for n, a in zip(exits.left, [*exits.after, blocks]))
    return outcome, {"mean_depth": ran / (blocks * sum(exits.left))}


def curve(
    net: nn.Module, tokenizer: Tokenizer, task: EvaluationTask, thresholds: Sequence[float | None]
) -> list[dict[str, object]]:
    """The metric and the mean depth of a model with exits at every threshold; None: all samples go to the end."""
    found = []
    for threshold in thresholds:
        with modeling.leaving_at(net, 2.0 if threshold is None else threshold):  # no probability is 2
            outcome, depth = _leaving(net, tokenizer, task)
        found.append({"threshold": threshold, task.metric: task.value(outcome), **depth})
    return found


def _steps(name: str) -> list[dict[str, Any]] | None:
    """The steps that made the model, by its card; None where it has none."""
    file = Path(name) / "compression.json"
    return json.loads(file.read_text(encoding="utf-8")).get("steps", []) if file.exists() else None


def helps(found: Mapping[str, Any], dense: Mapping[str, Any]) -> str:
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


def joules(model: nn.Module, seconds: float = 2.0) -> float:
    """Energy of one forward of `LENGTH` tokens, as codecarbon estimates it from the machine's power."""
    from codecarbon import OfflineEmissionsTracker

    logging.getLogger("codecarbon").disabled = True  # its own level comes too late for its first lines
    tracker = OfflineEmissionsTracker(
        country_iso_code="USA", save_to_file=False, log_level="critical", allow_multiple_runs=True
    )
    batch, count = example(model), 0
    tracker.start()
    end = time.perf_counter() + seconds
    with torch.no_grad():
        while time.perf_counter() < end:
            model(**batch)
            count += 1
    tracker.stop()
    return 3.6e6 * tracker.final_emissions_data.energy_consumed / count  # from kWh


def _outcome(
    model: nn.Module, tokenizer: Tokenizer, task: str, metric: str, inputs: Sequence, truths: Sequence
) -> metrics.Outcome:
    """What a model does on examples of `compress.evaluation.examples`, as `compress.evaluation.metrics` takes it."""
    if task == "classes":
        ids = prediction.class_ids(model, truths)
        if metric == "f1" and model.config.num_labels != 2:
            raise ValueError(f"f1 is for two classes, the model has {model.config.num_labels}: use --metric macro_f1")
        return metrics.outcome(task, metric, ids, prediction.classes(model, tokenizer, inputs))
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


def size(model: nn.Module) -> dict[str, int | None]:
    """Parameters that are not stored as zeros, and FLOPs at `LENGTH` tokens; of a skeleton all parameters count."""
    parameters = 0
    packed = [m for m in model.modules() if isinstance(m, FORMS)]
    inside = {id(p) for form in packed for p in form.parameters()}
    for form in {id(next(f.parameters())): f for f in packed}.values():  # a tied one once
        parameters += form.rows * form.columns
    for parameter in model.parameters():
        if id(parameter) not in inside:
            zeros = 0 if parameter.is_meta else int((parameter == 0).sum())
            stored = parameter.numel()
            parameters += stored - zeros if stored and zeros / stored >= SPARSE_FROM else stored
    known = model.config.model_type.removeprefix("compressed_") in structure.ARCHITECTURES
    cost = round(flops(model, LENGTH)) if known else None
    return {"parameters": parameters, "flops": cost}


@torch.no_grad()
def latency(model: nn.Module, repeats: int = 20) -> dict[str, float | int]:
    """Seconds of one forward of one sequence of `LENGTH` tokens: median and quartiles over the repeats.

    It asks every exit of a model that has some, and leaves by none.
    """
    batch = example(model)
    seconds = []
    with modeling.leaving_at(model, 2.0):
        for _ in range(repeats + 3):
            start = time.perf_counter()
            model(**batch)
            seconds.append(time.perf_counter() - start)
    low, median, high = statistics.quantiles(seconds[3:], n=4)
    return {"median": median, "q1": low, "q3": high, "n": repeats, "tokens": LENGTH}


def example(model: nn.Module) -> Batch:
    """One sequence of `LENGTH` tokens."""
    ids = (torch.arange(structure.context(model, LENGTH)) * 37 % model.config.vocab_size)[None]
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids)}


_PEAK = """
import sys, torch
from compress.evaluation.evaluate import example
from compress.model.config import base_of, config_of
from compress.model.io import load
def status(key):
    return next(int(line.split()[1]) * 1024 for line in open('/proc/self/status') if line.startswith(key))
base_of(sys.argv[1], config_of(sys.argv[1]))  # imports what the model needs, so that only the model itself counts
with torch.no_grad():
    torch.nn.Linear(64, 64)(torch.zeros(64, 64))
    before = status('VmRSS')
    model = load(sys.argv[1], quantized=True)[0]
    model(**example(model))
print(status('VmHWM') - before)
"""


def peak_memory(source: str) -> int | None:
    """Bytes that loading and one forward add to the peak of a fresh process; None where the system does not tell."""
    here = str(Path(__file__).resolve().parents[2])
    command = [sys.executable, "-c", f"import sys; sys.path.insert(0, {here!r})" + _PEAK, source]
    done = subprocess.run(command, capture_output=True, text=True)
    return int(done.stdout.split()[-1]) if done.returncode == 0 and done.stdout.strip() else None
