r"""Time and memory of the main jobs, of this build and of commit c575207, in turns in one run: one table.

    git worktree add FORMER c575207
    python benchmarks/speed_report.py DATASETS MINILM SMOLLM2 --former FORMER --work W \
        [--peer PYTHON] [--case "gptq, SmolLM2"] [--repeats 3]

DATASETS has lm/, text/ and tabular/; MINILM is the folder of all-MiniLM-L6-v2, SMOLLM2 that of SmolLM2-135M-Instruct
(W/dense of real_models.py). Both builds run on the same libraries with one thread. PYTHON is that of an environment
with llm-compressor, which does what the case gptq does, as quantization_speed.py has it. CPU seconds and the peak of
resident memory are those from the command to its end, imports left out, of `rank` the whole process. The ratio is
former / now, the geometric mean over the repeats with its 95 % interval. What both give is compared: the loss of the
compressed models on eight windows of 512 tokens of held-out text (now less former, 95 % interval over windows).
"Products" is what the matrix products that this build does (counted by torch) would take at the rate of a large one;
a method within twice of that counts as done, as little else is left.

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

from compress.evaluation import metrics
from transmeter.util import writing
from transmeter.util.intervals import half_width

HERE = Path(__file__).resolve()
OUT = HERE.parent / "results" / "speed_report.json"
HEART = "va hungarian cleveland switzerland statlog failure".split()
SETS = "ag_news banking77 clinc150 cola hate_davidson mr newsgroups20 pros_cons rte sms_spam".split()
MORE = "sst2 sst5 subj tweet_hate tweet_offensive tweet_sentiment".split()
KEYS = ("cpu_seconds", "peak_bytes")
PEER_MEMORY = 1 / 0.7  # times less than llm-compressor that are asked for
MANY = 200  # candidates that are parts of the sets
BERTS = {"bert12": (256, 4), "bert-base": (768, 12)}  # width and heads of 12 random blocks
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
    peer
        Times less CPU than llm-compressor that are asked for; None: it is not run.
    whole
        Whether imports count.
    """

    target: float
    words: str
    now: str = "--length 128"
    whole: bool = False
    peer: float | None = None


def compressed(model: str, method: str, target: float = 3.0, peer: float | None = None) -> Case:
    """A method on SmolLM2 or its first four blocks."""
    line = f"compress {model} --method {method} --calibration {{work}}/calibration.txt --tokens 8064"
    return Case(target, line, peer=peer)


CASES = {
    "kprune, 12 blocks of width 256, 2,048 tokens, 60 %": Case(
        3.0,
        "compress {work}/bert12 --method kprune --set ratio=0.6 --calibration {work}/calibration.txt --tokens 2048",
    ),
    "kprune, BERT-base's shape, 4,096 tokens, 60 %": Case(
        3.0,
        "compress {work}/bert-base --method kprune --set ratio=0.6 --calibration {work}/calibration.txt --tokens 4096",
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
    "wanda, SmolLM2": compressed("{smollm2}", "wanda"),
    "sparsegpt, SmolLM2": compressed("{smollm2}", "sparsegpt"),
    "kmeans, SmolLM2": compressed("{smollm2}", "kmeans"),
    "awq, SmolLM2": compressed("{smollm2}", "awq"),
    "gptq, SmolLM2": compressed("{smollm2}", "gptq", 10.0, 1 / 0.9),
    "svd, 4 blocks of SmolLM2": compressed("{work}/dense4", "svd"),
    "mixed, 4 blocks of SmolLM2": compressed("{work}/dense4", "mixed"),
}


@click.command()
@click.argument("datasets", type=click.Path(exists=True, path_type=Path))
@click.argument("minilm", type=click.Path(exists=True, path_type=Path))
@click.argument("smollm2", type=click.Path(exists=True, path_type=Path))
@click.option("--former", required=True, type=click.Path(exists=True, path_type=Path), help="Checkout of c575207.")
@click.option("--work", required=True, type=click.Path(path_type=Path))
@click.option("--peer", type=click.Path(path_type=Path), help="python of an environment with llm-compressor.")
@click.option("--case", "cases", multiple=True, help="May repeat.  [default: all that are missing]")
@click.option("--repeats", default=2, show_default=True)
@click.option("--out", default=OUT, type=click.Path(path_type=Path))
def main(
    datasets: Path,
    minilm: Path,
    smollm2: Path,
    former: Path,
    work: Path,
    peer: Path | None,
    cases: Sequence[str],
    repeats: int,
    out: Path,
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
        found[name] = measured(CASES[name], places, former.absolute(), peer and peer.absolute(), repeats)
        found = {case: found[case] for case in CASES if case in found}
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
    for name, (width, heads) in BERTS.items():
        if not (work / name).exists():
            torch.manual_seed(0)
            sizes = {"num_attention_heads": heads, "intermediate_size": 4 * width, "num_hidden_layers": 12}
            BertForSequenceClassification(BertConfig(hidden_size=width, **sizes)).save_pretrained(work / name)
            AutoTokenizer.from_pretrained(minilm).save_pretrained(work / name)


def measured(case: Case, places: dict[str, Any], former: Path, peer: Path | None, repeats: int) -> dict[str, Any]:
    """CPU seconds and peaks of both builds, and perhaps of the peer, in turns, their ratios, and what all give."""
    sides = {"former": (former, case.words), "now": (HERE.parent.parent, f"{case.words} {case.now}")}
    runs: dict[str, list[dict[str, float]]] = {side: [] for side in sides}
    outs = {side: places["work"] / f"out {side}" for side in sides}
    for _ in range(repeats):
        for side, (checkout, words) in sides.items():
            line = [word.format(**places) for word in words.split()]
            line = cleared([word for part in line for word in part.split()], outs[side], places["work"])
            runs[side].append(timed(checkout, line, case.whole))
            click.echo(f"{side} {line[0]} {json.dumps(runs[side][-1])}", err=True)
        if case.peer and peer:
            shutil.rmtree(places["work"] / "out peer", ignore_errors=True)
            given = (str(places["smollm2"]), str(places["work"] / "calibration.txt"), "gptq")
            theirs = single.run("peer", *given, str(places["work"] / "out peer"), python=peer)
            runs.setdefault("peer", []).append(theirs)
            click.echo(f"peer {json.dumps(theirs)}", err=True)
    found: dict[str, Any] = {"target": case.target, "runs": runs, "load": os.getloadavg()[0]}
    if not case.whole:
        found |= single.run("multiplied", *cleared(line, outs["now"], places["work"]))
    for key in KEYS:
        found[key] = ratio([a[key] / b[key] for a, b in zip(runs["former"], runs["now"])])
    if "dense4" in case.words or (case.words.startswith("compress") and "smollm2" in case.words):
        held = str(places["work"] / "held_out.txt")
        lost = {
            side: losses(str(outs[side]), held, None, checkout)
            for side, checkout in (("former", former), ("now", None))
        }
        found["loss now less former, nats"] = metrics.loss_change(lost["now"], lost["former"])
        if "peer" in runs:
            for key in KEYS:
                found[f"{key}, peer / now"] = ratio([a[key] / b[key] for a, b in zip(runs["peer"], runs["now"])])
            theirs = losses(str(places["smollm2"]), held, str(places["work"] / "out peer.rounded"), None)
            found["loss now less peer, nats"] = metrics.loss_change(lost["now"], theirs)
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


def losses(folder: str, held_out: str, rounded: str | None, checkout: Path | None) -> np.ndarray:
    """What a saved model loses in every window, read by the build that wrote it."""
    return np.array(single.run("losses", folder, held_out, rounded, checkout=checkout)["losses"])


def table(found: dict[str, Any]) -> list[str]:
    """Lines of the tables."""
    lines = [
        "CPU seconds and peak memory over what imports take (medians), c575207 and now, one thread; former / now with",
        "its 95 % interval over repeats; products: what its products take alone; met: as asked, or a method at most",
        "twice the products; at most: former / products; loss: now less former, nats a token, 95 % interval over",
        "windows.",
        "",
        "| job | former, s | now, s | products, s | times less (asked) | met | former, MB | now, MB | loss |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for name, case in found.items():
        (former, now), (before, peak) = medians(case, "former", "now")
        times, loss = case["cpu_seconds"], case.get("loss now less former, nats")
        products = case.get("products_seconds")
        met = "yes" if times["value"] >= case["target"] else "no"
        if met == "no" and products and now <= 2 * products and "compress" in CASES[name].words:
            met = "by products"
        elif met == "no" and products and former / products < case["target"]:
            met = f"no, at most {former / products:.2f}"
        cells = [name, f"{former:.1f}", f"{now:.1f}", f"{products:.1f}" if products else ""]
        cells += [f"{spread(times, 2)} ({case['target']:.2g})", met]
        cells += [f"{before / 1e6:,.0f}", f"{peak / 1e6:,.0f}", spread(loss, 3) if loss else ""]
        lines.append(f"| {' | '.join(cells)} |")
    lines += ["", *beside_peers({name: case for name, case in found.items() if "peer" in case["runs"]})]
    return lines


def beside_peers(found: dict[str, Any]) -> list[str]:
    """Lines of the cases that llm-compressor ran too."""
    if not found:
        return []
    lines = [
        "Beside llm-compressor, in turns; times and memory: theirs / now; loss: now less theirs.",
        "",
        "| job | now, s | theirs, s | times (asked) | met | now, MB | theirs, MB | memory (asked) | met | loss |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for name, case in found.items():
        cells = [name]
        for key, digits, values, asked in zip(
            KEYS, (1, 0), medians(case, "now", "peer"), (CASES[name].peer, PEER_MEMORY), strict=True
        ):
            unit, share = (1, 1e6)[key == "peak_bytes"], case[f"{key}, peer / now"]
            cells += [f"{value / unit:,.{digits}f}" for value in values]
            cells += [f"{spread(share, 2)} ({asked:.2g})", "yes" if share["value"] >= asked else "no"]
        lines.append(f"| {' | '.join([*cells, spread(case['loss now less peer, nats'], 3)])} |")
    return lines


def medians(case: dict[str, Any], *sides: str) -> list[list[float]]:
    """CPU seconds of sides, and their peaks."""
    return [[statistics.median(run[key] for run in case["runs"][side]) for side in sides] for key in KEYS]


def spread(estimate: dict[str, float | None], digits: int) -> str:
    """A value with its interval."""
    value, *ends = (estimate[key] for key in ("value", "ci_low", "ci_high"))
    return f"{value:.{digits}f}" + ("" if ends[0] is None else f" [{ends[0]:.{digits}f}, {ends[1]:.{digits}f}]")


if __name__ == "__main__":
    main()
