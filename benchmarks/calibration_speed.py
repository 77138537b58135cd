"""What choosing calibration data costs, beside the compression that it is for.

    python benchmarks/calibration_speed.py DATASETS MODELS/all-MiniLM-L6-v2-fp16

The choice among 20 and among 1,000 candidates, drawn from the sets of calibration_truth.py, for MiniLM, 2,000 tokens
looked at of each; once anew and once with what the first left in its cache; beside K-prune, Kwon and GPTQ on the
tokens chosen, as far as the candidate has them. CPU seconds in one thread. Writes results/calibration_speed.json.
"""

import json
import random
import resource
import tempfile
import time
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import calibration_truth as truth
import click
import numpy as np
import torch

import compress
from compress.calibration.contamination import without_copies
from compress.calibration.texts import Text, batches, read_texts
from compress.model import io
from compress.pipeline import Step, apply

METHODS = {"kprune": {"ratio": 0.75}, "kwon": {"ratio": 0.6}, "gptq": {"bits": 3}}
TOKENS = 20_000
MORE = ("newsgroups20", "clinc150", "hate_davidson")  # sets beside those of calibration_truth.py
CHARACTERS = 10_000  # of a candidate: about 2,000 tokens
OUT = Path(__file__).resolve().parent / "results" / "calibration_speed.json"


@click.command()
@click.argument("datasets", type=click.Path(exists=True, path_type=Path))
@click.argument("model")
@click.option("--many", default=1000, show_default=True)
def main(datasets: Path, model: str, many: int) -> None:
    """Time the choice and the compression."""
    warnings.simplefilter("ignore")
    pools = truth.pools("encoders", datasets)
    target = {"sst2": pools.pop("sst2")}
    pools |= {name: read_texts(datasets / "text" / name / "train.csv.gz") for name in MORE}
    shelf = list(split(pools).items())
    torch.set_num_threads(1)
    found: dict[str, Any] = {}
    chosen = None
    for count in (20, many):
        sets = dict(random.Random(0).sample(shelf, count))
        with tempfile.TemporaryDirectory() as cache:
            for kind in ("anew", "again"):
                start = time.process_time()
                chosen = compress.calibrate(model, sets, target, tokens=TOKENS, length=truth.LENGTH, cache=cache)
                seconds = time.process_time() - start
                peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
                case = {"cpu_seconds": seconds, "chosen": chosen.parts[0].name, "peak_bytes": peak}
                found[f"{count} candidates, {kind}"] = case
                click.echo(f"{count} {kind}: {seconds:.1f} s")
    net, tokenizer = io.load(model)
    for name, options in METHODS.items():
        start = time.process_time()
        apply(net, batches(tokenizer, chosen.sequences), Step(name, options), in_place=False)
        found[name] = {"cpu_seconds": time.process_time() - start, "tokens": sum(map(len, chosen.sequences))}
        click.echo(f"{name}: {found[name]['cpu_seconds']:.1f} s")
    OUT.write_text(json.dumps(found, indent=1), encoding="utf-8")


def split(pools: Mapping[str, Sequence[Text]]) -> dict[str, list[str]]:
    """Parts of the sets, of `CHARACTERS` each."""
    lines = {n: [line for text in texts for line in text_of(text).splitlines() if line] for n, texts in pools.items()}
    found: dict[str, list[str]] = {}
    for name, texts in without_copies(lines).items():
        ends = np.cumsum([len(text) for text in texts])
        for number, part in enumerate(
            np.split(texts, np.searchsorted(ends, np.arange(CHARACTERS, ends[-1], CHARACTERS)))
        ):
            found[f"{name}-{number}"] = [str(text) for text in part]
    return {name: texts for name, texts in found.items() if sum(map(len, texts)) > 0.8 * CHARACTERS}


def text_of(text: Text) -> str:
    """A pair as one text."""
    return text if isinstance(text, str) else " ".join(text)


if __name__ == "__main__":
    main()
