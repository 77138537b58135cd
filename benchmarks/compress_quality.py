r"""What the families beside pruning leave of a model, at how many bytes, and what chains of them reach.

    for task in sst2 ag_news; do
        python benchmarks/finetune.py MODELS/all-MiniLM-L6-v2-fp16 DATASETS/text/$task --out dense/$task; done
    python benchmarks/compress_quality.py DATASETS MODELS dense

Parts: quantize (bits by method, decoder and encoders), low_rank, heads (grouped queries), share, chain (prune, distil,
quantize, in several orders), data (distillation with picked and with random texts). Seeds change the calibration draw
and the training. Every finished cell goes to the result at once; a stopped run goes on with what is missing.
"""

import json
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import click
import numpy as np
import pandas as pd
import torch
from calibration_truth import pools as candidates
from joblib import Parallel, delayed
from prune_quality import DOMAINS, LENGTH, WINDOW, blocks
from torch import nn
from transformers import PreTrainedTokenizerBase as Tokenizer

from compress.calibration import hidden_states
from compress.calibration.calibrate import MEASURED
from compress.calibration.candidates import compare, scores_of
from compress.calibration.texts import USUAL, Text, batches, cut, read_texts
from compress.evaluation import metrics, prediction
from compress.evaluation.examples import read_examples
from compress.evaluation.windows import apart
from compress.model import io
from compress.model.storage import stored_bytes
from compress.model.walk import Batch
from compress.pipeline import Step, apply
from transmeter.util import writing
from transmeter.util.intervals import around
from transmeter.util.progress import track

Steps = list[tuple[str, dict[str, object]]]
Measure = Callable[[nn.Module], dict[str, float]]

ALL = {"embeddings": True, "head": True}
QUANTIZED: dict[str, Steps] = {
    f"{method} {bits} bits": [(method, {"bits": bits})]
    for bits in (2, 3, 4)
    for method in ("round_to_nearest", "gptq", "awq", "kmeans")
    if (method, bits) != ("kmeans", 2)
}
QUANTIZED |= {"vector 2 bits": [("vector", {})], "mixed 3 bits": [("mixed", {"bits": 3.0})]}
QUANTIZED |= {"smoothquant W8A8": [("smoothquant", {})], "round_to_nearest 8 bits": [("round_to_nearest", {"bits": 8})]}
TINY: dict[str, Steps] = {  # no group divides its 172 neurons; codebooks of vectors would take more than the weights
    name: [(method, options | ({} if method in ("kmeans", "smoothquant") else {"group": None}))]
    for name, [(method, options)] in QUANTIZED.items()
    if method != "vector"
}
LOW_RANK: dict[str, Steps] = {
    f"svd {kind} {ratio:.0%}": [("svd", {"kind": kind, "ratio": ratio})]
    for ratio in (0.2, 0.4, 0.6)
    for kind in ("plain", "activation", "fisher", "whitened")
}
HEADS: dict[str, Steps] = {
    f"gqa {merge} {heads} of 6 heads": [("gqa", {"heads": heads, "merge": merge})]
    for heads in (3, 2, 1)
    for merge in ("mean", "fit")
}
HEADS["gqa fit 2 of 6 heads, distil"] = [("gqa", {"heads": 2}), ("distil", {})]
SHARED: dict[str, Steps] = {
    "share 3 of 6, merge alone": [("share", {"groups": 3, "steps": 0})],
    "share 3 of 6": [("share", {"groups": 3})],
    "share 3 of 6, mean instead of fit": [("share", {"groups": 3, "merge": "mean"})],
    "depth 50%, distil": [("depth", {"ratio": 0.5}), ("distil", {})],  # as few parameters, in half the blocks
}
PRUNE = ("kprune", {"ratio": 0.5, "multiple": 32})
QUANTIZE = ("gptq", {"bits": 4, "group": 32, **ALL})
CHAINS: dict[str, Steps] = {
    "quantize": [QUANTIZE],
    "prune": [PRUNE],
    "prune, distil": [PRUNE, ("distil", {})],
    "prune, quantize": [PRUNE, QUANTIZE],
    "prune, distil, quantize": [PRUNE, ("distil", {}), QUANTIZE],
    "distil to 3 blocks, quantize": [("distil", {"depth": 3, "rate": 3e-4}), QUANTIZE],
    "distil to 3 blocks, prune, quantize": [
        ("distil", {"depth": 3}),
        ("kprune", {"ratio": 0.2, "multiple": 32}),
        QUANTIZE,
    ],
}
DECODERS = {"mixlm": tuple(DOMAINS), "stories260K": ("stories",)}  # and the domains that they are measured on
PARTS = {  # (methods, models that they are tried on)
    "quantize": (QUANTIZED, ("mixlm", "sst2", "ag_news")),
    "quantize, whole rows": (TINY, ("stories260K",)),
    "low_rank": (LOW_RANK, ("mixlm", "sst2")),
    "heads": (HEADS, ("mixlm",)),
    "share": (SHARED, ("mixlm",)),
    "chain": (CHAINS, ("sst2",)),
    "data": ({}, ("sst2",)),
}


@click.command()
@click.argument("datasets", type=click.Path(exists=True, path_type=Path))
@click.argument("small", type=click.Path(exists=True, path_type=Path))
@click.argument("dense", type=click.Path(exists=True, path_type=Path))
@click.option("--part", "parts", multiple=True, default=tuple(PARTS), help="May repeat. Default: all.")
@click.option("--tokens", default=16_000, show_default=True, help="Of calibration.")
@click.option("--seeds", default=3, show_default=True)
@click.option("--jobs", default=2, show_default=True, help="Cells at a time, one thread each.")
@click.option("--out", default="benchmarks/results/compress_quality.json", type=click.Path(path_type=Path))
def main(
    datasets: Path, small: Path, dense: Path, parts: Sequence[str], tokens: int, seeds: int, jobs: int, out: Path
) -> None:
    """Compress by every method of the parts and every seed; write every run, and the summary, to JSON."""
    done = json.loads(out.read_text())["runs"] if out.exists() else []
    have = {(r["part"], r["model"], r["seed"]) for r in done}
    cells = [(p, m, s) for s in range(seeds) for p in parts for m in PARTS[p][1] if (p, m, s) not in have]

    def cell(part: str, model: str, seed: int) -> list[dict]:
        torch.set_num_threads(1)
        folder = str(small / model if model in DECODERS else dense / model)
        net, tokenizer = io.load(folder)
        texts, measure = task(model, tokenizer, datasets)
        if part == "data":
            found = picked_or_random(net, tokenizer, texts, datasets, tokens, seed, measure)
        else:
            data = batches(tokenizer, cut(tokenizer, texts, tokens, 128 if model in DECODERS else LENGTH, seed))
            found = [{"method": "dense", **cost(net), **measure(net)}] if seed == 0 else []
            made: dict[str, nn.Module] = {}
            found += [chain(net, name, steps, data, seed, measure, made) for name, steps in PARTS[part][0].items()]
        return [{"part": part, "model": model, "seed": seed, **run} for run in found]

    ran = Parallel(n_jobs=jobs, return_as="generator_unordered")(delayed(cell)(*c) for c in cells)
    for runs in track(ran, f"{len(cells)} cells"):
        done.extend(runs)
        writing.write_text(out, json.dumps({"tokens": tokens, "summary": summary(done), "runs": done}, indent=1))
    click.echo(json.dumps(summary(done), indent=1))


def task(model: str, tokenizer: Tokenizer, datasets: Path) -> tuple[list[Text], Measure]:
    """Texts to calibrate on, and what measures a model: accuracy, or the mean loss and perplexities of the domains."""
    if model not in DECODERS:
        texts, labels = read_examples(datasets / "text" / model / "test.csv.gz")
        return read_texts(datasets / "text" / model / "train.csv.gz"), partial(
            accuracy, tokenizer=tokenizer, texts=texts[:1000], labels=labels[:1000]
        )
    domains = {name: blocks(datasets / "lm", DOMAINS[name]) for name in DECODERS[model]}
    return [t for own, _ in domains.values() for t in own[:40]], partial(
        perplexities, tokenizer=tokenizer, domains=domains
    )


def accuracy(net: nn.Module, tokenizer: Tokenizer, texts: Sequence, labels: Sequence) -> dict[str, float]:
    """Share of sentences whose class is right."""
    return {"accuracy": float((prediction.classes(net, tokenizer, texts) == prediction.class_ids(net, labels)).mean())}


def perplexities(net: nn.Module, tokenizer: Tokenizer, domains: dict) -> dict[str, float]:
    """Perplexity on the held-out text of every domain, and exp of the mean of their losses."""
    each = {
        d: metrics.perplexity(prediction.losses(net, tokenizer, apart(tokenizer, held, 8000, WINDOW)))["value"]
        for d, (_, held) in domains.items()
    }
    return {"perplexity": float(np.exp(np.mean(np.log(list(each.values()))))), "domains": each}


def chain(
    net: nn.Module,
    name: str,
    steps: Steps,
    data: Sequence[Batch],
    seed: int,
    measure: Measure,
    made: dict[str, nn.Module],
) -> dict:
    """One run of several steps, one after the other; made: what the same first steps gave before."""
    small = net
    for index, (method, options) in enumerate(steps):
        key = json.dumps(steps[: index + 1])
        if key not in made:
            made[key] = apply(small, data, Step(method, options), seed, net if index else None, in_place=False)
        small = made[key]
    return {"method": name, **cost(small), **measure(small)}


def cost(net: nn.Module) -> dict[str, int]:
    """Bytes that the weights take on disk."""
    return {"bytes": stored_bytes(net)}


def picked_or_random(
    net: nn.Module, tokenizer: Tokenizer, own: Sequence[Text], datasets: Path, tokens: int, seed: int, measure: Measure
) -> list[dict]:
    """A student of 2 blocks, distilled with the texts that the ranking picks, with random ones, and with the task's."""
    pools = {name: texts for name, texts in candidates("encoders", datasets).items() if name != "sst2"}
    measured = {n: cut(tokenizer, t, MEASURED, USUAL, seed) for n, t in {"own": own, **pools}.items()}
    views = {name: hidden_states.collect(net, tokenizer, name, ids) for name, ids in measured.items()}
    aim = views.pop("own")
    closeness = scores_of(compare(views, aim))
    best = max(closeness, key=lambda name: closeness[name])
    rng, found = np.random.default_rng(seed), []
    every = [(name, i) for name in pools for i in range(min(len(pools[name]), 2000))]
    mixed = [pools[every[k][0]][every[k][1]] for k in rng.permutation(len(every))[:4000]]
    for name, texts in ((f"picked ({best})", pools[best]), ("random, all candidates", mixed), ("own text", own)):
        data = batches(tokenizer, cut(tokenizer, texts, tokens, LENGTH, seed))
        found.append(
            chain(net, f"distil to 2 blocks, {name}", [("distil", {"depth": 2, "rate": 3e-4})], data, seed, measure, {})
        )
    return found


def summary(runs: Sequence[dict]) -> dict[str, dict[str, str]]:
    """Mean (lowest to highest seed) of accuracy or perplexity, and the bytes, by part, model and method."""
    rows = [{**r, "value": r.get("accuracy", r.get("perplexity"))} for r in runs]
    found: dict[str, dict[str, str]] = {}
    for (part, model, method), g in pd.DataFrame(rows).groupby(["part", "model", "method"], sort=False):
        value = f"{g.value.mean():.4g} ({g.value.min():.4g} to {g.value.max():.4g}), {g.bytes.mean() / 1e6:.2f} MB"
        found.setdefault(f"{part}, {model}", {})[method] = value
    if any(r["part"] == "data" for r in runs):
        found["data, sst2"]["picked over random, paired by draw (95 %)"] = picked_over_random(runs)
    return found


def picked_over_random(runs: Sequence[dict]) -> str:
    """Accuracy of students of the picked texts minus that of random ones, the mean over draws and its 95 % interval."""
    rows = [r for r in runs if r["part"] == "data"]
    picked, mixed = (
        {r["seed"]: r["accuracy"] for r in rows if f"2 blocks, {kind}" in r["method"]} for kind in ("picked", "random")
    )
    lead = np.array([picked[seed] - mixed[seed] for seed in picked])
    found = around(float(lead.mean()), float(lead.std(ddof=1) / len(lead) ** 0.5), len(lead) - 1)
    return f"{found.mean:+.3f} ({found.low:+.3f} to {found.high:+.3f}), {len(lead)} draws"


if __name__ == "__main__":
    main()
