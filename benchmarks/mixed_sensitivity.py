"""Which estimate tells best what rounding a single layer costs, from which `mixed` gives bits to layers?

    python benchmarks/mixed_sensitivity.py DATASETS MODEL --name NAME [--every 4] [--bits 2 --bits 3]

MODEL is a causal language model; DATASETS has lm/ with the texts. Every linear layer of every n-th block is rounded to
nearest by itself, ranges of least weighted error, groups of 64; the truth is the KL divergence from the dense model
over 1,024 held-out tokens. The estimates come from 4,096 other tokens: squared gradients of labels that the model draws

- of the whole layer in the mean, times the squared error that rounding leaves on its output (`mixed` as it was),
- of an output and of an input in the mean, their product (`mixed`), and of an input alone,
- of every single weight, which takes as much memory as the weights.

Told: Spearman's correlation with the truth over the layers, and the standard deviation of the logarithm of their
ratio, which shifts bits to the wrong layers; each the mean of two seeds. Writes benchmarks/results/mixed_sensitivity.md
with a table a model.
"""

from collections.abc import Iterator
from pathlib import Path

import click
import numpy as np
import pandas as pd
import torch
from scipy.stats import spearmanr
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import AutoModelForCausalLM, AutoTokenizer

from compress.algorithms.fisher import fisher
from compress.algorithms.hessian import blocks, gram
from compress.algorithms.quantization import Grid
from compress.model.structure import block_linears
from compress.model.walk import Batch, run
from transmeter.util import writing
from transmeter.util.progress import track

OUT = Path(__file__).resolve().parent / "results" / "mixed_sensitivity.md"
TOKENS, LENGTH, HELD_OUT, SEEDS = 2048, 512, 512, (0, 1)  # tokens of each text
TEXTS = ("wikitext_train_part.txt", "c4_sample.txt")
OTHERS = ("wikitext2_valid.txt", "gsm8k_train.txt")


def batches(tokenizer, datasets: Path, names: tuple[str, ...], tokens: int) -> list[Batch]:
    """The first tokens of some texts."""
    found = []
    for name in names:
        ids = tokenizer((datasets / "lm" / name).read_text(encoding="utf-8")[: 10 * tokens])["input_ids"][:tokens]
        x = torch.tensor(ids).view(-1, LENGTH)
        found.append({"input_ids": x, "attention_mask": torch.ones_like(x)})
    return found


def estimates(squares: Tensor, error: Tensor, hessian: Tensor) -> dict[str, float]:
    """What each estimate gives for the error (out, in) of a layer."""
    by_output, by_input = squares.mean(1), squares.mean(0)
    squared, layer = error.double().square(), squares.mean()
    left = ((error.double() @ hessian) * error).sum()
    return {
        "of the layer, times the error of its output": float(layer * left / hessian.diagonal().mean()),
        "of outputs times inputs": float(by_output @ squared @ by_input / layer),
        "of inputs": float((squared @ by_input).sum()),
        "of single weights": float((squares * squared).sum()),
    }


def divergence(net: nn.Module, dense: list[Tensor], states: list[Tensor], held: list[Batch], block: int) -> float:
    """Mean KL divergence of the next tokens, from what enters a block on."""
    total = 0.0
    for logs, state, batch in zip(dense, states, held):
        now = F.log_softmax(run(net, batch, block, None, state).float(), -1)
        total += float((logs.exp() * (logs - now)).sum(-1).mean()) / len(held)
    return total


def layers(net: nn.Module, data: list[Batch], held: list[Batch], bits: tuple[int, ...], every: int) -> Iterator[dict]:
    """A row a layer, number of bits, seed and estimate, with the truth."""
    squares = [fisher(net, data, seed, lambda squared: squared) for seed in SEEDS]
    hessians = {p: h for shared in blocks(net, data, gram, "Moments") for paths, h in shared for p in paths}
    with torch.no_grad():
        dense = [F.log_softmax(run(net, batch).float(), -1) for batch in held]
        states = [run(net, batch, stop=0) for batch in held]
        for block in track(range(net.config.num_hidden_layers), "Truth"):
            for path, linear in block_linears(net, block) if block % every == 0 else ():
                for number in bits:
                    weight, hessian = linear.weight.data.clone(), hessians[path].double()
                    error = Grid(number, 64, False).rounded(weight, torch.float16, hessian.diagonal()) - weight
                    linear.weight.data += error
                    truth = divergence(net, dense, states, held, block)
                    linear.weight.data = weight
                    for seed, found in enumerate(squares):
                        for name, value in estimates(found[path], error, hessian).items():
                            about = {"layer": path, "bits": number, "seed": seed, "estimate": name}
                            yield {**about, "value": value, "truth": truth}
            states = [run(net, batch, block, block + 1, state) for batch, state in zip(held, states)]


@click.command()
@click.argument("datasets", type=click.Path(exists=True, path_type=Path))
@click.argument("model", type=click.Path(exists=True, path_type=Path))
@click.option("--every", default=4, show_default=True, help="Blocks from one that is measured to the next.")
@click.option("--bits", multiple=True, type=int, default=(2, 3), show_default=True)
@click.option("--name", required=True, help="Of the model, in the result.")
def main(datasets: Path, model: Path, every: int, bits: tuple[int, ...], name: str) -> None:
    """Measure and write the table of a model."""
    torch.set_num_threads(1)
    net = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32).eval()
    tokenizer = AutoTokenizer.from_pretrained(model)
    data, held = (batches(tokenizer, datasets, *what) for what in ((TEXTS, TOKENS), (OTHERS, HELD_OUT)))
    rows = pd.DataFrame(layers(net, data, held, bits, every))
    lines = [f"## {name}", "", "| squared gradients | bits | Spearman | deviation of the logarithm | layers |"]
    lines.append("|---|---|---|---|---|")
    for (estimate, number), case in rows.groupby(["estimate", "bits"], sort=False):
        each = [own for _, own in case.groupby("seed")]
        rank = np.mean([spearmanr(own.value, own.truth).statistic for own in each])
        spread = np.mean([np.log(own.value / own.truth).std() for own in each])
        lines.append(f"| {estimate} | {number} | {rank:.3f} | {spread:.3f} | {len(each[0])} |")
    click.echo("\n".join(lines))
    before = OUT.read_text(encoding="utf-8").split("## ")[1:] if OUT.exists() else []
    others = ["## " + part.rstrip() for part in before if not part.startswith(f"{name}\n")]
    writing.write_text(OUT, "\n\n".join([*others, "\n".join(lines)]) + "\n")


if __name__ == "__main__":
    main()
