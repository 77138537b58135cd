"""What a model can do and what it costs: accuracy, perplexity, bytes, parameters, FLOPs, latency, peak memory."""

import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from scipy import stats
from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase as Tokenizer

from compress import models, structure
from compress.budget import flops
from compress.layers import SPARSE_FROM
from compress.texts import batches, cut, read_examples, read_texts
from compress.walk import Batch

Estimate = dict[str, float | int]
LENGTH = 128  # tokens of the sequence that FLOPs and latency are given for
WINDOW = 192  # tokens of a perplexity window, the first of which is the start token


@torch.no_grad()
def predict(model: nn.Module, tokenizer: Tokenizer, texts: Sequence[str], max_length: int = LENGTH) -> Tensor:
    """Class of every text, (texts,) int64."""
    max_length = structure.context(model, max_length)
    order = sorted(range(len(texts)), key=lambda i: len(texts[i]), reverse=True)
    found = torch.zeros(len(texts), dtype=torch.long)
    for start in range(0, len(order), 64):
        part = order[start : start + 64]
        inputs = tokenizer(
            [texts[i] for i in part], padding=True, truncation=True, max_length=max_length, return_tensors="pt"
        )
        found[part] = model(input_ids=inputs["input_ids"], attention_mask=inputs["attention_mask"]).logits.argmax(-1)
    return found


def class_ids(model: nn.Module, labels: Sequence[str]) -> Tensor:
    """Labels, given as class ids or as names of the model's config, as ids. Raises ValueError for an unknown one."""
    names = {str(name): int(i) for i, name in model.config.id2label.items()}
    known = {str(i): i for i in names.values()} | names
    for label in labels:
        if label not in known:
            raise ValueError(f"label '{label}' is no class of the model: its classes are {', '.join(known)}")
    return torch.tensor([known[label] for label in labels])


def accuracy(correct: Tensor) -> Estimate:
    """Share of `correct` (n,) bool with its 95 % Wilson interval."""
    n, k = len(correct), int(correct.sum())
    interval = stats.binomtest(k, n).proportion_ci(method="wilson")
    return {"value": k / n, "ci_low": float(interval.low), "ci_high": float(interval.high), "n": n}


@torch.no_grad()
def window_losses(model: nn.Module, tokenizer: Tokenizer, texts: Sequence[str], tokens: int) -> Tensor:
    """(windows, 2): sum of the next-token losses in nats and number of tokens predicted, of every window.

    Each text is cut into windows of `WINDOW` tokens; the first `tokens` tokens of the texts are used.
    """
    found = []
    sequences = cut(tokenizer, texts, tokens, structure.context(model, WINDOW))
    for batch in batches(tokenizer, [s for s in sequences if len(s) > 1], size=16):
        logits = model(**batch).logits[:, :-1]
        targets, mask = batch["input_ids"][:, 1:], batch["attention_mask"][:, 1:]
        losses = nn.functional.cross_entropy(logits.flatten(0, 1), targets.flatten(), reduction="none")
        found.append(torch.stack([(losses.view_as(mask) * mask).sum(1), mask.sum(1).float()], 1))
    if not found:
        raise ValueError("the texts have no two tokens in a row to predict: give longer texts")
    return torch.cat(found)


def perplexity(losses: Tensor) -> Estimate:
    """exp of the mean loss a token with its 95 % interval over windows; losses (windows, 2) of `window_losses`."""
    mean, reach = _a_token(losses[:, 0], losses[:, 1])
    low, high = float(np.exp(mean - reach)), float(np.exp(min(mean + reach, 700)))
    return {"value": float(np.exp(mean)), "ci_low": low, "ci_high": high, "n": int(losses[:, 1].sum())}


def _a_token(sums: Tensor, counts: Tensor) -> tuple[float, float]:
    """(mean a token, reach of its 95 % interval) from the sums and token counts of windows: the ratio estimator."""
    sums, counts, windows = sums.double(), counts.double(), len(sums)
    mean = float(sums.sum() / counts.sum())
    if windows < 2:
        return mean, float("inf")
    squares = (sums - mean * counts).square().sum() * windows / (windows - 1)
    return mean, float(squares.sqrt() / counts.sum()) * float(stats.t.ppf(0.975, windows - 1))


def paired_change(value: Tensor, baseline: Tensor) -> Estimate:
    """Mean difference value - baseline, both (n,) on the same items, with its 95 % interval."""
    difference = (value.double() - baseline.double()).numpy()
    error = float(difference.std(ddof=1) / len(difference) ** 0.5) if len(difference) > 1 else float("inf")
    mean = float(difference.mean())
    reach = error * float(stats.t.ppf(0.975, max(len(difference) - 1, 1)))
    return {"value": mean, "ci_low": mean - reach, "ci_high": mean + reach, "n": len(difference)}


def loss_change(losses: Tensor, baseline: Tensor) -> Estimate:
    """Difference of the mean losses a token with its 95 % interval over windows; both (windows, 2)."""
    mean, reach = _a_token(losses[:, 0] - baseline[:, 0], losses[:, 1])
    return {"value": mean, "ci_low": mean - reach, "ci_high": mean + reach, "n": int(losses[:, 1].sum())}


def report(model: str, baseline: str | None, file: Path, metric: str | None, tokens: int) -> dict[str, object]:
    """Everything about `model` on the texts of `file`, with `baseline` beside it and the paired change.

    metric: accuracy or perplexity; None: perplexity for a model that predicts tokens, else accuracy. Raises ValueError
    where the model cannot give the metric or the data lack labels.
    """
    read = {"accuracy": read_examples, "perplexity": read_texts}
    content = read[metric](file) if metric else None  # before the models, where the metric is known
    found: list[dict[str, object]] = []
    items: list[Tensor] = []
    for name in (model, baseline) if baseline else (model,):
        net, tokenizer = models.load(name)
        predicts_tokens = net.get_output_embeddings() is not None
        metric = metric or ("perplexity" if predicts_tokens else "accuracy")
        if (metric == "perplexity") != predicts_tokens:
            raise ValueError(
                f"{name} gives no {metric}: use --metric {'perplexity' if predicts_tokens else 'accuracy'}"
            )
        content = content or read[metric](file)
        if metric == "accuracy":
            texts, labels = content
            correct = predict(net, tokenizer, texts) == class_ids(net, labels)
            value, each = accuracy(correct), correct
        else:
            losses = window_losses(net, tokenizer, content, tokens)
            value, each = perplexity(losses), losses
        costs = {"latency_seconds": latency(net), "peak_memory_bytes": peak_memory(name)}
        found.append({"model": name, metric: value, **size(net, name), **costs})
        items.append(each)
    result = {**found[0], "data": str(file)}
    if baseline:
        result["baseline"] = found[1]
        if metric == "accuracy":
            result["accuracy_change"] = paired_change(items[0], items[1])
        elif torch.equal(items[0][:, 1:], items[1][:, 1:]):  # windows differ where tokenizers do
            result["loss_change_nats"] = loss_change(items[0], items[1])
    return result


def size(model: nn.Module, source: str) -> dict[str, int | None]:
    """Parameters that are not stored as zeros, bytes of the weight files, and FLOPs at `LENGTH` tokens."""
    parameters = 0
    for parameter in model.parameters():
        zeros = int((parameter == 0).sum())
        stored = parameter.numel()
        parameters += stored - zeros if stored and zeros / stored >= SPARSE_FROM else stored
    known = model.config.model_type.removeprefix("compressed_") in structure.ARCHITECTURES
    cost = round(flops(model, LENGTH)) if known else None
    return {"parameters": parameters, "bytes": models.bytes_of(source), "flops": cost}


@torch.no_grad()
def latency(model: nn.Module, repeats: int = 20) -> dict[str, float | int]:
    """Seconds of one forward of one sequence of `LENGTH` tokens: median and quartiles over the repeats."""
    batch = example(model)
    seconds = []
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
from compress.evaluate import example
from compress.models import base_of, config_of, load
def status(key):
    return next(int(line.split()[1]) * 1024 for line in open('/proc/self/status') if line.startswith(key))
base_of(sys.argv[1], config_of(sys.argv[1]))  # imports what the model needs, so that only the model itself counts
with torch.no_grad():
    torch.nn.Linear(64, 64)(torch.zeros(64, 64))
    before = status('VmRSS')
    model = load(sys.argv[1])[0]
    model(**example(model))
print(status('VmHWM') - before)
"""


def peak_memory(source: str) -> int | None:
    """Bytes that loading and one forward add to the peak of a fresh process; None where the system does not tell."""
    here = str(Path(__file__).resolve().parent.parent)
    command = [sys.executable, "-c", f"import sys; sys.path.insert(0, {here!r})" + _PEAK, source]
    done = subprocess.run(command, capture_output=True, text=True)
    return int(done.stdout.split()[-1]) if done.returncode == 0 and done.stdout.strip() else None
