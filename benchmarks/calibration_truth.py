"""What compressed models are worth by the texts that calibrated them: the ground truth for a choice of texts.

    for t in sst2 subj trec6 ag_news banking77; do
        python benchmarks/finetune.py MODELS/all-MiniLM-L6-v2-fp16 DATASETS/text/$t --out DENSE/$t; done
    python benchmarks/calibration_truth.py encoders DATASETS DENSE
    python benchmarks/calibration_truth.py decoder DATASETS data/mixlm
    for n in 2000 32000; do
        python benchmarks/calibration_truth.py decoder DATASETS data/mixlm --tokens $n --method "sparsegpt 70 %"; done

A cell is one compression: a method, a token budget, who gives the texts (a set; a way of choosing texts from all sets,
for an encoder those of other tasks; the model itself), and a seed. Its quality is the accuracy on the
first test rows of the encoder's task, or minus the nats a token that compression adds on the held-out text of every
domain. Finished cells are kept in benchmarks/results/calibration_truth_PART.csv, the first seed of all cells first; the
same command goes on with what is missing.
"""

import warnings
from collections.abc import Mapping
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, astuple, dataclass
from functools import cache, lru_cache
from multiprocessing import get_context
from pathlib import Path

import click
import pandas as pd
import torch
from prune_quality import DOMAINS, TASKS, blocks
from torch import nn
from transformers import PreTrainedTokenizerBase as Tokenizer

from compress.calibration import hidden_states
from compress.calibration.calibrate import TARGET_SEED
from compress.calibration.generation import generate
from compress.calibration.hidden_states import HiddenStates
from compress.calibration.selection import NEED_TARGET, WAYS, fill
from compress.calibration.texts import Text, batches, cut, read_texts
from compress.evaluation import prediction
from compress.evaluation.examples import read_examples
from compress.evaluation.windows import apart
from compress.model import io
from compress.pipeline import Step, apply
from transmeter.util import writing
from transmeter.util.progress import track

OTHERS = ("cola", "pros_cons")  # candidates beside the tasks themselves
LM = {"web": "c4_sample", "wikitext": "wikitext_train_part", "drama": "tinyshakespeare"}
ROWS, EVALUATION_TOKENS = 500, 6000
LENGTH, WINDOW = 128, 192  # tokens of a calibration sequence, and of a perplexity window
METHODS: dict[str, dict[str, tuple[str, dict[str, object]]]] = {
    "encoders": {
        "kprune 75 %": ("kprune", {"ratio": 0.75}),
        "kwon 60 %": ("kwon", {"ratio": 0.6}),
        "svd 70 %": ("svd", {"ratio": 0.7}),
        "kprune 60 %": ("kprune", {"ratio": 0.6}),
        "gptq 3 bits": ("gptq", {"bits": 3}),
    },
    "decoder": {
        "sparsegpt 50 %": ("sparsegpt", {"ratio": 0.5}),
        "sparsegpt 70 %": ("sparsegpt", {"ratio": 0.7}),
        "wanda 2:4": ("wanda", {"pattern": "2:4"}),
        "kprune 30 %": ("kprune", {"ratio": 0.3}),
        "gptq 3 bits": ("gptq", {"bits": 3}),
    },
}
TOKENS = {"encoders": 2000, "decoder": 8000}


@dataclass(frozen=True)
class Cell:
    """One compression. task: of an encoder, else the target of a way of choosing that has one, else ""."""

    task: str
    method: str
    tokens: int
    drawer: str
    seed: int


def cells(part: str, seeds: int, tokens: int) -> list[Cell]:
    """All compressions of a part, those that everything else is compared with first."""
    found = []
    ways = [w for w in WAYS if w != "random"]  # a random set is what it is compared with
    for seed in range(seeds):
        if part == "encoders":
            names = (*TASKS, *OTHERS, *LM, *ways, "closeness, own among them")
            found += [Cell(t, m, tokens, name, seed) for m in METHODS[part] for t in TASKS for name in names]
        else:
            free = (*DOMAINS, *(w for w in ways if w not in NEED_TARGET), "self")
            found += [Cell("", m, tokens, name, seed) for m in METHODS[part] for name in free]
            found += [Cell(d, m, tokens, name, seed) for m in METHODS[part] for d in DOMAINS for name in NEED_TARGET]
    return found


@cache
def pools(part: str, datasets: Path) -> Mapping[str, list[Text]]:
    """The candidates' texts."""
    if part == "decoder":
        return {name: blocks(datasets / "lm", files)[0] for name, files in DOMAINS.items()}
    found = {name: read_texts(datasets / "text" / name / "train.csv.gz") for name in (*TASKS, *OTHERS)}
    return found | {name: read_texts(datasets / "lm" / f"{file}.txt") for name, file in LM.items()}


@cache
def dense(part: str, folder: Path, task: str) -> tuple[nn.Module, Tokenizer]:
    """The model that is compressed."""
    return io.load(folder / task if part == "encoders" else folder)


@cache
def losses(datasets: Path, folder: Path) -> dict[str, float]:
    """Nats a token of the dense decoder on the held-out text of every domain."""
    return measured("decoder", datasets, "", *dense("decoder", folder, ""))


def measured(part: str, datasets: Path, task: str, net: nn.Module, tokenizer: Tokenizer) -> dict[str, float]:
    """Accuracy of the task, or nats a token by domain, of `task` alone where that is one."""
    if part == "encoders":
        texts, labels = read_examples(datasets / "text" / task / "test.csv.gz")
        right = prediction.classes(net, tokenizer, texts[:ROWS]) == prediction.class_ids(net, labels[:ROWS])
        return {task: float(right.mean())}
    found = {}
    for name, files in DOMAINS.items():
        if task not in ("", name):
            continue
        windows = apart(tokenizer, blocks(datasets / "lm", files)[1], EVALUATION_TOKENS, WINDOW)
        sums, counts = prediction.losses(net, tokenizer, windows).T
        found[name] = float(sums.sum() / counts.sum())
    return found


@lru_cache(3)
def hidden_states_of(
    part: str, datasets: Path, folder: Path, task: str, tokens: int, seed: int
) -> dict[str, HiddenStates]:
    """What the model of the task makes of every candidate."""
    net, tokenizer = dense(part, folder, task)
    return {
        name: hidden_states.collect(net, tokenizer, name, cut(tokenizer, texts, tokens, LENGTH, seed))
        for name, texts in pools(part, datasets).items()
    }


def drawn(part: str, datasets: Path, folder: Path, cell: Cell) -> list[list[int]]:
    """The calibration sequences of a cell."""
    sets, (net, tokenizer) = pools(part, datasets), dense(part, folder, cell.task if part == "encoders" else "")
    if cell.drawer in sets:
        return cut(tokenizer, sets[cell.drawer], cell.tokens, LENGTH, cell.seed)
    if cell.drawer == "self":
        return generate(net, tokenizer, cell.tokens, LENGTH, cell.seed)
    way, own = cell.drawer.split(",")[0], part == "decoder" or "own" in cell.drawer
    views = hidden_states_of(part, datasets, folder, cell.task if part == "encoders" else "", cell.tokens, cell.seed)
    pool = hidden_states.merge([v for name, v in views.items() if own or name != cell.task])
    target = None
    if cell.task:
        other = cut(tokenizer, sets[cell.task], cell.tokens, LENGTH, cell.seed + TARGET_SEED)
        target = hidden_states.collect(net, tokenizer, cell.task, other)
    order = WAYS[way](pool, target, cell.tokens, cell.seed)
    return [pool.sequences[i] for i in fill(pool, order, cell.tokens)]


def run(part: str, datasets: Path, folder: Path, cell: Cell) -> list[dict[str, object]]:
    """Compress by the cell; a row a target."""
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    net, tokenizer = dense(part, folder, cell.task if part == "encoders" else "")
    name, options = METHODS[part][cell.method]
    sequences = drawn(part, datasets, folder, cell)
    small = apply(net, batches(tokenizer, sequences), Step(name, options), in_place=False)
    found = measured(part, datasets, cell.task, small, tokenizer)
    if part == "decoder":
        found = {d: losses(datasets, folder)[d] - v for d, v in found.items()}
    return [{**asdict(cell), "target": target, "quality": round(value, 5)} for target, value in found.items()]


@click.command()
@click.argument("part", type=click.Choice(list(METHODS)))
@click.argument("datasets", type=click.Path(exists=True, path_type=Path))
@click.argument("folder", type=click.Path(exists=True, path_type=Path))
@click.option("--seeds", default=3, show_default=True)
@click.option("--tokens", type=click.IntRange(100), help="Of every cell. Default: 2,000 (encoders) or 8,000.")
@click.option("--jobs", default=2, show_default=True, help="Cells at a time, one thread each.")
@click.option("--method", "wanted", multiple=True, help="May repeat. Default: all.")
@click.option("--drawer", "drawers", multiple=True, help="May repeat. Default: all.")
@click.option("--out", type=click.Path(path_type=Path))
def main(
    part: str,
    datasets: Path,
    folder: Path,
    seeds: int,
    tokens: int | None,
    jobs: int,
    wanted: tuple,
    drawers: tuple,
    out: Path | None,
) -> None:
    """Measure every cell of PART that is not there yet."""
    out = out or Path(__file__).resolve().parent / "results" / f"calibration_truth_{part}.csv"
    rows = pd.read_csv(out, keep_default_na=False).to_dict("records") if out.exists() else []
    done = {tuple(r[f] for f in ("task", "method", "tokens", "drawer", "seed")) for r in rows}
    left = [c for c in cells(part, seeds, tokens or TOKENS[part]) if astuple(c) not in done]
    left = [c for c in left if c.method in (wanted or METHODS[part]) and c.drawer in (drawers or (c.drawer,))]
    with ProcessPoolExecutor(jobs, get_context("spawn")) as pool:
        waiting = [pool.submit(run, part, datasets, folder, cell) for cell in left]
        for future in track(as_completed(waiting), f"{len(left)} cells"):
            rows += future.result()
            with writing.replacing(out) as partial:
                pd.DataFrame(rows).to_csv(partial, index=False)


if __name__ == "__main__":
    main()
