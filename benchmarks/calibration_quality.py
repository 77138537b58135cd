"""Does the calibration score foretell accuracy after pruning? One encoder task, many candidate text sets.

    python benchmarks/finetune.py MODELS/all-MiniLM-L6-v2-fp16 DATASETS/text/sst2 --out dense
    python benchmarks/calibration_quality.py dense DATASETS sst2 --out benchmarks/results/calibration_sst2.json

Every candidate calibrates K-prune with the same number of tokens; truth is the accuracy on held-out sentences, the mean
over seeds. The task's own training text is reported beside, and is no candidate.
"""

import json
import warnings
from pathlib import Path

import click
import numpy as np
from scipy import stats

from compress import calibration, metrics, models, predict
from compress.examples import read_examples
from compress.methods import kprune
from compress.texts import batches, cut, read_texts
from transmeter import data, ranking

TEXTS = (
    "ag_news",
    "banking77",
    "clinc150",
    "cola",
    "hate_davidson",
    "pros_cons",
    "rte",
    "sms_spam",
    "sst2",
    "subj",
    "trec6",
)
LM = ("c4_sample", "wiki_sents", "gsm8k_train", "tinyshakespeare")
TERMS = ("mean_distance", "discriminator", "coverage")


@click.command()
@click.argument("model")
@click.argument("datasets", type=click.Path(exists=True, path_type=Path))
@click.argument("task")
@click.option("--ratio", default=0.8)
@click.option("--tokens", default=6000)
@click.option("--seeds", default=2)
@click.option("--rows", default=1000, help="Test sentences, the first of the file.")
@click.option("--out", required=True, type=click.Path(path_type=Path))
def main(model: str, datasets: Path, task: str, ratio: float, tokens: int, seeds: int, rows: int, out: Path) -> None:
    """Prune with every candidate and seed, correlate with the score and with each of its terms alone."""
    dense, tokenizer = models.load(model)
    texts, labels = read_examples(datasets / "text" / task / "test.csv.gz")
    texts, labels = texts[:rows], predict.class_ids(dense, labels[:rows])
    own = read_texts(datasets / "text" / task / "train.csv.gz")
    pools = {name: read_texts(datasets / "text" / name / "train.csv.gz") for name in TEXTS if name != task}
    pools |= {name: read_texts(datasets / "lm" / f"{name}.txt") for name in LM}

    scores = predicted(dense, tokenizer, own, pools, tokens)
    runs = []
    for name, pool in {f"own ({task})": own, **pools}.items():
        accuracy = []
        for seed in range(seeds):
            net = kprune.compress(dense, batches(tokenizer, cut(tokenizer, pool, tokens, 64, seed)), ratio=ratio)
            accuracy.append(float((predict.classes(net, tokenizer, texts) == labels).mean()))
        length = float(np.mean([len((t if isinstance(t, str) else " ".join(t)).split()) for t in pool[:2000]]))
        runs.append({"candidate": name, "accuracy": accuracy, "words": length, **scores.get(name, {})})
        click.echo(json.dumps(runs[-1]))
    truth = np.array([np.mean(r["accuracy"]) for r in runs[1:]])
    halves = [[r["accuracy"][i] for r in runs[1:]] for i in range(min(seeds, 2))]
    summary = {
        measure: float(stats.spearmanr([r[measure] for r in runs[1:]], truth).statistic)
        for measure in ("alignment", *TERMS, "words")
    }
    summary["seed against seed"] = float(stats.spearmanr(*halves).statistic) if seeds > 1 else None
    best = max(runs[1:], key=lambda r: r["alignment"])["candidate"]
    reached = float(truth[[r["candidate"] for r in runs[1:]].index(best)])
    gains = {"picked": best, "picked accuracy": reached, "mean of candidates": float(truth.mean())}
    gains |= {"best of candidates": float(truth.max()), "worst of candidates": float(truth.min())}
    dense_accuracy = metrics.share(predict.classes(dense, tokenizer, texts) == labels)
    result = {"task": task, "ratio": ratio, "tokens": tokens, "seeds": seeds, "dense": dense_accuracy}
    out.write_text(json.dumps(result | {"spearman": summary, "choice": gains, "runs": runs}, indent=1))
    click.echo(json.dumps(summary | gains))


def predicted(dense, tokenizer, own: list[str], pools: dict[str, list[str]], tokens: int) -> dict[str, dict]:
    """The alignment score and each of its terms alone, by candidate."""
    target = data.from_arrays("target", *calibration.features(dense, tokenizer, own, tokens))
    found: dict[str, dict] = {name: {} for name in pools}
    tables = [data.from_arrays(n, *calibration.features(dense, tokenizer, p, tokens)) for n, p in pools.items()]
    for measure in ("alignment", *TERMS):
        options = {} if measure == "alignment" else {t: float(t == measure) for t in TERMS}
        for row in ranking.rank(target, tables, "alignment", options=options).rows:
            found[row.source][measure] = row.score
    return found


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    main()
