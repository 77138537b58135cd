r"""What pruning leaves of a model: accuracy of encoders and perplexity of a decoder by domain, by method and ratio.

    for task in sst2 subj trec6 ag_news; do
        python benchmarks/finetune.py MODELS/all-MiniLM-L6-v2-fp16 DATASETS/text/$task --out dense/$task; done
    python benchmarks/finetune.py MODELS/all-MiniLM-L6-v2-fp16 DATASETS/text/banking77 --out dense/banking77 \
        --rows 10003 --epochs 3
    python benchmarks/prune_quality.py DATASETS dense --decoder data/mixlm

Calibration is drawn from the task's own training texts, and for the decoder in equal parts from all its domains; seeds
change the draw. Every finished cell goes to the result at once; a stopped run goes on with what is missing.
"""

import json
from collections.abc import Sequence
from pathlib import Path

import click
import numpy as np
import pandas as pd
import torch
from joblib import Parallel, delayed
from torch import nn
from transformers import PreTrainedTokenizerBase as Tokenizer

from compress.algorithms.budget import flops
from compress.calibration.texts import batches, cut
from compress.evaluation import metrics, prediction
from compress.evaluation.examples import read_examples
from compress.evaluation.windows import apart
from compress.model import io
from compress.model.walk import Batch, mean_length
from compress.pipeline import Step, apply
from transmeter.util import writing
from transmeter.util.progress import track

TASKS = ("sst2", "subj", "trec6", "ag_news", "banking77")
RATIOS = (0.4, 0.6, 0.8)
STRUCTURED = {"kprune": Step("kprune", {}), "kwon": Step("kwon", {})}  # kwon with the true labels, as published
# by the first seed alone
ONCE = {"magnitude": Step("magnitude", {}), "kwon, labels of the model": Step("kwon", {})}
ABLATED = ("sst2", "trec6")  # tasks, at the highest ratio, by the first seed alone
ABLATION = {
    "kprune, no tuning": Step("kprune", {"tune": False}),
    "kprune, no predictive knowledge": Step("kprune", {"predictive": 0.0}),
    "kprune, no representational knowledge": Step("kprune", {"representational": 0.0}),
    "kprune, measured anew": Step("kprune", {"iterative": True}),
    "kprune, measured anew, knowledge=gradient": Step("kprune", {"iterative": True, "knowledge": "gradient"}),
}
DECODER = {
    **{name: Step(name, {}) for name in ("kprune", "kwon", "sublayer", "magnitude", "wanda", "sparsegpt")},
    "dynamic_sparse": Step("dynamic_sparse", {}),
    "magnitude, unit=weights": Step("magnitude", {"unit": "weights"}),
}
DOMAINS = {
    "stories": ("tinystories_1000",),
    "wiki": ("wikitext2_valid", "wikitext_train_part", "wiki_sents"),
    "web": ("c4_sample",),
    "math": ("gsm8k_train",),
    "code": ("code_mbpp", "code_humaneval"),
    "novels": ("bronte",),
    "drama": ("tinyshakespeare",),
}
BLOCK, EVERY, HELD_OUT = 4000, 20, 7  # characters; of every 20 blocks the eighth was held out of the decoder's training
LENGTH = 64  # tokens of an encoder's sequence
WINDOW = 192  # tokens of a perplexity window


@click.command()
@click.argument("datasets", type=click.Path(exists=True, path_type=Path))
@click.argument("dense", type=click.Path(exists=True, path_type=Path))
@click.option("--decoder", default="data/mixlm", show_default=True)
@click.option("--task", "tasks", multiple=True, default=(*TASKS, "decoder"), help="May repeat. Default: all.")
@click.option("--tokens", default=8000, show_default=True, help="Of calibration; the decoder gets twice as many.")
@click.option("--seeds", default=3, show_default=True)
@click.option("--rows", default=1000, show_default=True, help="Test sentences, the first of the file.")
@click.option("--jobs", default=2, show_default=True, help="Cells at a time, one thread each.")
@click.option("--out", default="benchmarks/results/prune_quality.json", type=click.Path(path_type=Path))
def main(
    datasets: Path,
    dense: Path,
    decoder: str,
    tasks: Sequence[str],
    tokens: int,
    seeds: int,
    rows: int,
    jobs: int,
    out: Path,
) -> None:
    """Prune with every method, ratio and seed; write every run, and the summary, to JSON."""
    done = json.loads(out.read_text())["runs"] if out.exists() else []
    have = {(r["task"], r["seed"]) for r in done}
    cells = [(t, s) for s in range(seeds) for t in tasks if (t, s) not in have]

    def cell(task: str, seed: int) -> list[dict]:
        torch.set_num_threads(1)
        if task == "decoder":
            return decoder_runs(decoder, datasets / "lm", 2 * tokens, seed)
        return encoder_runs(str(dense / task), datasets / "text" / task, tokens, rows, seed)

    found = Parallel(n_jobs=jobs, return_as="generator_unordered")(delayed(cell)(*c) for c in cells)
    for runs in track(found, f"{len(cells)} cells"):
        done.extend(runs)
        result = {"tokens": tokens, "tokens_decoder": 2 * tokens, "summary": summary(done), "runs": done}
        writing.write_text(out, json.dumps(result, indent=1))
    click.echo(json.dumps(summary(done), indent=1))


def encoder_runs(folder: str, task: Path, tokens: int, rows: int, seed: int) -> list[dict]:
    """Accuracy after every method and ratio, with calibration drawn by `seed`."""
    dense, tokenizer = io.load(folder)
    texts, labels = read_examples(task / "test.csv.gz")
    texts, labels = texts[:rows], prediction.class_ids(dense, labels[:rows])
    data = labelled(tokenizer, *read_examples(task / "train.csv.gz"), tokens, seed)
    plain = [{k: v for k, v in b.items() if k != "labels"} for b in data]
    length, before = mean_length(data), flops(dense, mean_length(data))

    def run(name: str, ratio: float, net: nn.Module) -> dict:
        correct = prediction.classes(net, tokenizer, texts) == labels
        removed = 1 - flops(net, length) / before
        about = {"task": task.name, "seed": seed, "method": name, "ratio": ratio, "removed": removed}
        return about | {"accuracy": float(correct.mean()), "n": len(texts)}

    found = [run("dense", 0.0, dense)]
    steps = STRUCTURED | (ONCE if seed == 0 else {})
    for ratio in RATIOS:
        ablation = ABLATION if seed == 0 and task.name in ABLATED and ratio == max(RATIOS) else {}
        for name, step in {**steps, **ablation}.items():
            found.append(run(name, ratio, pruned(dense, data if name == "kwon" else plain, step, ratio)))
    return found


def labelled(
    tokenizer: Tokenizer, texts: Sequence[str], labels: Sequence[str], tokens: int, seed: int, size: int = 32
) -> list[Batch]:
    """Batches of about `tokens` tokens of texts drawn by `seed`, with their class ids under "labels"."""
    drawn: list[tuple[list[int], int]] = []
    for i in np.random.default_rng(seed).permutation(len(texts)):
        ids = tokenizer(texts[i], truncation=True, max_length=LENGTH)["input_ids"]
        if sum(len(s) for s, _ in drawn) + len(ids) > tokens:
            break
        drawn.append((ids, int(labels[i])))
    drawn.sort(key=lambda pair: len(pair[0]), reverse=True)
    found = batches(tokenizer, [ids for ids, _ in drawn], size)
    for batch, part in zip(found, torch.tensor([label for _, label in drawn]).split(size)):
        batch["labels"] = part
    return found


def decoder_runs(folder: str, texts: Path, tokens: int, seed: int) -> list[dict]:
    """Perplexity on the held-out text of every domain after every method and ratio."""
    dense, tokenizer = io.load(folder)
    domains = {name: blocks(texts, files) for name, files in DOMAINS.items()}
    sequences = [s for own, _ in domains.values() for s in cut(tokenizer, own, tokens // len(domains), 128, seed)]
    windows = {d: apart(tokenizer, held, 20_000, WINDOW) for d, (_, held) in domains.items()}
    data = batches(tokenizer, sequences)
    length, before = mean_length(data), flops(dense, mean_length(data))

    def run(name: str, ratio: float, net: nn.Module) -> dict:
        losses = {d: prediction.losses(net, tokenizer, held) for d, held in windows.items()}
        removed = 1 - flops(net, length) / before
        found = {"task": "decoder", "seed": seed, "method": name, "ratio": ratio, "removed": removed}
        return found | {"perplexity": {d: metrics.perplexity(each)["value"] for d, each in losses.items()}}

    return [run("dense", 0.0, dense)] + [
        run(name, ratio, pruned(dense, data, step, ratio)) for ratio in (0.2, 0.4) for name, step in DECODER.items()
    ]


def pruned(dense: nn.Module, data: Sequence[Batch], step: Step, ratio: float) -> nn.Module:
    """The model after a step with this ratio."""
    return apply(dense, data, Step(step.method, {**step.options, "ratio": ratio}), in_place=False)


def blocks(folder: Path, files: Sequence[str]) -> tuple[list[str], list[str]]:
    """(texts the decoder was trained on, held-out texts) of the joined files, in blocks of characters."""
    text = "\n".join((folder / f"{name}.txt").read_text(encoding="utf-8") for name in files)
    parts = [text[i : i + BLOCK] for i in range(0, len(text), BLOCK)]
    held = [p for i, p in enumerate(parts) if i % EVERY == HELD_OUT]
    return [p for i, p in enumerate(parts) if i % EVERY != HELD_OUT], held


def summary(runs: Sequence[dict]) -> dict[str, dict[str, str]]:
    """Mean (lowest to highest seed) of accuracy by task, method and ratio, and of the decoder's perplexity."""
    rows = [
        {"task": r["task"], "method": f"{r['method']} {r['ratio']:.0%}", "value": r["accuracy"]}
        for r in runs
        if "accuracy" in r
    ]
    rows += [
        {"task": f"perplexity, {d}", "method": f"{r['method']} {r['ratio']:.0%}", "value": v}
        for r in runs
        for d, v in r.get("perplexity", {}).items()
    ]
    grouped = pd.DataFrame(rows).groupby(["task", "method"], sort=False)["value"]
    found: dict[str, dict[str, str]] = {}
    for (task, method), values in grouped:
        found.setdefault(task, {})[method] = f"{values.mean():.3f} ({values.min():.3f} to {values.max():.3f})"
    return found


if __name__ == "__main__":
    main()
