"""What a plain shape costs: nats a token that a decoder loses with shape=free and with shape=uniform.

    python benchmarks/plain_shapes.py             (five minutes a seed beside other work)

Structured methods on the decoder of `data/`, calibrated on texts of its mathematics, measured on held-out ones; seeds
change the draw of the calibration texts. One thread. Writes benchmarks/results/plain_shapes.md.
"""

from collections.abc import Sequence
from pathlib import Path
from statistics import mean

import click
import torch
from torch import nn

from compress.calibration.texts import batches, cut, read_texts
from compress.evaluation import metrics, prediction
from compress.evaluation.windows import apart
from compress.model import io
from compress.model.walk import Batch
from compress.pipeline import Step, apply
from transmeter.util import writing
from transmeter.util.progress import track

METHODS = ("kprune", "kwon", "magnitude")
RATIOS = (0.1, 0.2, 0.3)
LENGTH, WINDOW = 128, 192  # tokens of a calibration sequence, and of a perplexity window
DATA = Path(__file__).resolve().parent.parent / "data"
OUT = Path(__file__).resolve().parent / "results" / "plain_shapes.md"


@click.command()
@click.option("--tokens", default=4000, show_default=True, help="Number of tokens to calibrate on.")
@click.option("--held-out", default=12_000, show_default=True, help="Number of tokens to measure on.")
@click.option("--seeds", default=3, show_default=True, help="Draws of the calibration texts.")
def main(tokens: int, held_out: int, seeds: int) -> None:
    """Prune with every method, shape, ratio and seed; write what is lost, and which plain shapes are left."""
    torch.set_num_threads(1)
    dense, tokenizer = io.load(DATA / "mixlm")
    texts, held = read_texts(DATA / "text/math.txt"), read_texts(DATA / "text/math_heldout.txt")
    draws = [batches(tokenizer, cut(tokenizer, texts, tokens, LENGTH, seed)) for seed in range(seeds)]
    windows = apart(tokenizer, held, held_out, WINDOW)
    before = prediction.losses(dense, tokenizer, windows)

    def lost(net: nn.Module) -> float:
        return float(metrics.loss_change(prediction.losses(net, tokenizer, windows), before)["value"])

    lines = [
        f"Nats a token more than the dense decoder ({kept(dense)}), by share of the FLOPs removed: mean over {seeds}",
        f"draws of {tokens:,} calibration tokens (lowest to highest), {held_out:,} held-out tokens.",
        "",
        "| method | removed | shape=free | shape=uniform | what every layer keeps then |",
        "|---|---|---|---|---|",
    ]
    for method, ratio in track([(m, r) for m in METHODS for r in RATIOS], "methods and ratios"):
        free, uniform = (pruned(dense, draws, method, ratio, shape) for shape in ("free", "uniform"))
        shapes = "; ".join(dict.fromkeys(kept(net) for net in uniform))
        cells = (spread([lost(net) for net in nets]) for nets in (free, uniform))
        lines.append(f"| {method} | {ratio:.0%} | {' | '.join(cells)} | {shapes} |")
    writing.write_text(OUT, "\n".join(lines) + "\n")
    click.echo("\n".join(lines))


def pruned(
    dense: nn.Module, draws: Sequence[Sequence[Batch]], method: str, ratio: float, shape: str
) -> list[nn.Module]:
    """The model pruned on each of the draws."""
    step = Step(method, {"ratio": ratio, "shape": shape})
    return [apply(dense, data, step, in_place=False) for data in draws]


def kept(net: nn.Module) -> str:
    """Heads and neurons in every layer, by the config of a plain model."""
    return f"{net.config.num_attention_heads} heads, {net.config.intermediate_size} neurons"


def spread(values: Sequence[float]) -> str:
    """Mean of some values, and the lowest and the highest."""
    return f"{mean(values):.3f} ({min(values):.3f} to {max(values):.3f})"


if __name__ == "__main__":
    main()
