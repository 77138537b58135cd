"""Time and memory of the main jobs, of this build and of commit c575207, in turns in one run: one table.

    git worktree add FORMER c575207
    python benchmarks/speed_report.py DATASETS MINILM SMOLLM2 --former FORMER --work W [--case "gptq"] [--repeats 3]

DATASETS has lm/, text/ and tabular/; MINILM is the folder of all-MiniLM-L6-v2, SMOLLM2 that of SmolLM2-135M-Instruct
(W/dense of real_models.py). Both builds run on the same libraries with one thread. CPU seconds and the peak of resident
memory are those from the command to its end, imports left out, of `rank` the whole process. The ratio is former / now,
the geometric mean over the repeats with its 95 % interval. What both give is compared: the loss of the compressed
models on eight windows of 512 tokens of held-out text (now less former, 95 % interval over windows). "Products" is what
the matrix products that this build does (counted by torch) would take at the rate of a large one; a method within twice
of that counts as done, as little else is left.

Every case goes to the result when it is done; a case that is there is measured anew only where it is named.
"""

import json
import math
import os
import shutil
import statistics
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import numpy as np
import quantization_speed as single
import real_models

from transmeter.util import writing
from transmeter.util.intervals import half_width

HERE = Path(__file__).resolve()
OUT = HERE.parent / "results" / "speed_report.json"
HEART = "va hungarian cleveland switzerland statlog failure".split()
SETS = "ag_news banking77 clinc150 cola hate_davidson mr newsgroups20 pros_cons rte sms_spam".split()
MORE = "sst2 sst5 subj tweet_hate tweet_offensive tweet_sentiment".split()
KEYS = ("cpu_seconds", "peak_bytes")
MANY = 200  # candidates that are parts of the sets
LM = "bronte c4_sample code_mbpp gsm8k_train".split()


@dataclass(frozen=True)
class Case:
    """A command line that both builds run.

    Attributes
    ----------
    target
        Times less CPU than the former build that are asked for.
    words
        The command; {work}, {data}, {minilm} and {smollm2} are put in.
    now
        Words that this build needs to do what the former did.
    whole
        Whether imports count.
    """

    target: float
    words: str
    now: str = "--length 128"
    whole: bool = False


def first_blocks(method: str, options: str = "") -> Case:
    """A method on the first four blocks of SmolLM2."""
    line = f"compress {{work}}/dense4 --method {method} {options} --calibration {{work}}/calibration.txt --tokens 8064"
    return Case(3.0, line)


CASES = {
    "kprune, 12 blocks of width 256, 2,048 tokens, 60 %": Case(
        3.0,
        "compress {work}/bert12 --method kprune --set ratio=0.6 --calibration {work}/calibration.txt --tokens 2048",
    ),
    "rank, README's command": Case(
        1 / 0.85, "rank {heart} {data}/tabular/pima_diabetes.csv --shots 5 --repeats 60", "", True
    ),
    "evaluate, perplexity of 8,000 tokens, SmolLM2": Case(
        3.0, "evaluate {smollm2} --data {work}/held_out.txt --tokens 8000", "--window 192 --apart"
    ),
    "calibrate, 20 candidates, MiniLM": Case(
        2.0,
        "calibrate {work}/classifier --target {trec} {candidates} --tokens 20000 --cache {work}/cache",
    ),
    "calibrate, 200 candidates, MiniLM": Case(
        1 / 0.6,
        "calibrate {work}/classifier --target {trec} {many} --tokens 2000 --cache {work}/cache",
    ),
    "wanda, 4 blocks of SmolLM2": first_blocks("wanda"),
    "sparsegpt, 4 blocks of SmolLM2": first_blocks("sparsegpt"),
    "awq, 4 blocks of SmolLM2": first_blocks("awq"),
    "svd, 4 blocks of SmolLM2": first_blocks("svd"),
    "mixed, 4 blocks of SmolLM2": first_blocks("mixed"),
    "kmeans, 4 blocks of SmolLM2": first_blocks("kmeans"),
    "gptq, SmolLM2": Case(10.0, "compress {smollm2} --method gptq --calibration {work}/calibration.txt --tokens 8064"),
}


@click.command()
@click.argument("datasets", type=click.Path(exists=True, path_type=Path))
@click.argument("minilm", type=click.Path(exists=True, path_type=Path))
@click.argument("smollm2", type=click.Path(exists=True, path_type=Path))
@click.option("--former", required=True, type=click.Path(exists=True, path_type=Path), help="Checkout of c575207.")
@click.option("--work", required=True, type=click.Path(path_type=Path))
@click.option("--case", "cases", multiple=True, help="May repeat.  [default: all that are missing]")
@click.option("--repeats", default=2, show_default=True)
@click.option("--out", default=OUT, type=click.Path(path_type=Path))
def main(
    datasets: Path, minilm: Path, smollm2: Path, former: Path, work: Path, cases: Sequence[str], repeats: int, out: Path
) -> None:
    """Run the cases that are missing, and write all with the table."""
    places = {"work": work.absolute(), "data": datasets.absolute(), "minilm": minilm.absolute()}
    places |= {"trec": datasets.absolute() / "text/trec6/train.csv.gz"}
    places |= {"smollm2": smollm2.absolute(), "heart": " ".join(f"{datasets}/tabular/heart_{h}.csv" for h in HEART)}
    sets = [f"{datasets}/text/{name}/train.csv.gz" for name in SETS + MORE] + [f"{datasets}/lm/{n}.txt" for n in LM]
    named = [f"--candidate c{number}={path}" for number, path in enumerate(sets)]
    places["candidates"] = " ".join(named)
    places["many"] = " ".join(f"--candidate {work.absolute()}/shelf/{number}.txt" for number in range(MANY))
    prepare(places["data"], places["minilm"], places["smollm2"], places["work"])
    found: dict[str, Any] = json.loads(out.read_text()) if out.exists() else {}
    for name in cases or [case for case in CASES if case not in found]:
        found[name] = measured(CASES[name], places, former.absolute(), repeats)
        writing.write_text(out, json.dumps(found, indent=1) + "\n")
        writing.write_text(out.with_suffix(".md"), "\n".join(table(found)) + "\n")
        click.echo("\n".join(table({name: found[name]})), err=True)


def prepare(data: Path, minilm: Path, smollm2: Path, work: Path) -> None:
    """Texts and models of the cases, as far as they are not there."""
    import torch
    from transformers import AutoTokenizer, BertConfig, BertForSequenceClassification

    from compress.calibration.texts import read_texts

    work.mkdir(parents=True, exist_ok=True)
    shutil.copy(data / "lm/wikitext_train_part.txt", work / "calibration.txt")
    shutil.copy(data / "lm/wikitext2_valid.txt", work / "held_out.txt")
    if not (work / "shelf").exists():
        (work / "shelf").mkdir()
        for number in range(MANY):
            texts, part = read_texts(data / "text" / (SETS + MORE)[number % 16] / "train.csv.gz"), number // 16
            some = [text if isinstance(text, str) else " ".join(text) for text in texts[part :: MANY // 16 + 1][:400]]
            (work / "shelf" / f"{number}.txt").write_text("\n\n".join(some), encoding="utf-8")
    if not (work / "dense4").exists():
        single.cut(smollm2, 4, work / "dense4")
    if not (work / "classifier").exists():  # the former build takes no model without a head
        torch.manual_seed(0)
        BertForSequenceClassification.from_pretrained(minilm, num_labels=6).save_pretrained(work / "classifier")
        AutoTokenizer.from_pretrained(minilm).save_pretrained(work / "classifier")
    if not (work / "bert12").exists():
        torch.manual_seed(0)
        sizes = {"hidden_size": 256, "num_hidden_layers": 12, "num_attention_heads": 4, "intermediate_size": 1024}
        net = BertForSequenceClassification(BertConfig(**sizes))
        net.save_pretrained(work / "bert12")
        AutoTokenizer.from_pretrained(minilm).save_pretrained(work / "bert12")


def measured(case: Case, places: dict[str, Any], former: Path, repeats: int) -> dict[str, Any]:
    """CPU seconds and peaks of both builds in turns, their ratios, and what both give."""
    sides = {"former": (former, case.words), "now": (HERE.parent.parent, f"{case.words} {case.now}")}
    runs: dict[str, list[dict[str, float]]] = {side: [] for side in sides}
    outs = {side: places["work"] / f"out {side}" for side in sides}
    for _ in range(repeats):
        for side, (checkout, words) in sides.items():
            line = [word.format(**places) for word in words.split()]
            line = cleared([word for part in line for word in part.split()], outs[side], places["work"])
            runs[side].append(timed(checkout, line, case.whole))
            click.echo(f"{side} {line[0]} {json.dumps(runs[side][-1])}", err=True)
    found: dict[str, Any] = {"target": case.target, "runs": runs, "load": os.getloadavg()[0]}
    if not case.whole:
        found |= single.run("multiplied", *cleared(line, outs["now"], places["work"]))
    for key in KEYS:
        found[key] = ratio([a[key] / b[key] for a, b in zip(runs["former"], runs["now"])])
    if "dense4" in case.words or (case.words.startswith("compress") and "smollm2" in case.words):
        found["loss now less former, nats"] = quality(outs, former, places["work"])
    return found


def cleared(line: list[str], out: Path, work: Path) -> list[str]:
    """The command with its `--out`, which is not there any more, nor anything stored."""
    for old in (out, out.parent / f".{out.name}.unfinished", work / "cache"):
        shutil.rmtree(old, ignore_errors=True)
    if line[0] in ("compress", "calibrate") and "--out" not in line:
        line = [*line, "--out", str(out)]
    return line


def timed(checkout: Path, line: list[str], whole: bool) -> dict[str, float]:
    """One run of a command of a checkout in a process of its own."""
    if whole:
        return real_models.run([sys.executable, "-W", "ignore", "-m", "cli", *line], checkout)
    return single.run("job", *line, checkout=checkout)


def ratio(values: Sequence[float]) -> dict[str, float | None]:
    """Geometric mean with its t interval; None: of one repeat there is none."""
    mean = statistics.fmean(map(math.log, values))
    if len(values) == 1:
        return {"value": math.exp(mean), "ci_low": None, "ci_high": None}
    error = statistics.stdev(map(math.log, values)) / math.sqrt(len(values))
    reach = half_width(error, len(values) - 1)
    return {"value": math.exp(mean), "ci_low": math.exp(mean - reach), "ci_high": math.exp(mean + reach)}


def quality(outs: dict[str, Path], former: Path, work: Path) -> dict[str, Any]:
    """How much more this build's model loses than the former's, each read by its own build."""
    from compress.evaluation import metrics

    held = str(work / "held_out.txt")
    lost = {
        side: np.array(single.run("losses", str(folder), held, None, checkout=checkout)["losses"])
        for (side, folder), checkout in zip(outs.items(), (former, None))
    }
    return metrics.loss_change(lost["now"], lost["former"])


def table(found: dict[str, Any]) -> list[str]:
    """Lines of the table."""
    lines = [
        "CPU seconds and peak memory over what imports take (medians), c575207 and now, one thread; former / now with",
        "its 95 % interval over repeats; products: what its products take alone; met: as asked, or a method at most",
        "twice the products; loss: now less former, nats a token, 95 % interval over windows.",
        "",
        "| job | former, s | now, s | products, s | times less (asked) | met | former, MB | now, MB | loss |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for name, case in found.items():
        sides = [case["runs"][side] for side in ("former", "now")]
        seconds, peaks = ([statistics.median(run[k] for run in runs) for runs in sides] for k in KEYS)
        times, loss = case["cpu_seconds"], case.get("loss now less former, nats")
        products = case.get("products_seconds")
        met = "yes" if times["value"] >= case["target"] else "no"
        if met == "no" and products and seconds[1] <= 2 * products and "compress" in CASES[name].words:
            met = "by products"
        cells = [name, *(f"{s:.1f}" for s in seconds), f"{products:.1f}" if products else ""]
        cells += [f"{spread(times, 2)} ({case['target']:.2g})", met]
        cells += [*(f"{p / 1e6:,.0f}" for p in peaks), spread(loss, 3) if loss else ""]
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def spread(estimate: dict[str, float | None], digits: int) -> str:
    """A value with its interval."""
    value, *ends = (estimate[key] for key in ("value", "ci_low", "ci_high"))
    return f"{value:.{digits}f}" + ("" if ends[0] is None else f" [{ends[0]:.{digits}f}, {ends[1]:.{digits}f}]")


if __name__ == "__main__":
    main()
