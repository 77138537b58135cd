"""What K-prune and SparseGPT cost, how that grows, and what pruned models save: parts of prune_speed.py.

Random models in fresh processes: cost depends on shapes, not on what the weights know.
"""

import shutil
import statistics
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import nullcontext
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
import transformers
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from compress.algorithms.budget import flops
from compress.model import io, latency
from compress.model.walk import Batch
from compress.pipeline import Step, apply
from transmeter.util.checkpoint import bytes_of

T = TypeVar("T")
METHODS = ("kprune", "sparsegpt")
PUBLIC_SECONDS = 24 * 29.0  # of K-prune's public code: sublayers x the middle ones, 64 samples, BERT-base, two threads
BATCH = 512  # tokens of a batch
LENGTH = 128  # tokens of a sequence whose latency is taken
GROWTH = {"tokens": (1024, 4096, 16384, 102400), "layers": (2, 4, 8, 16, 30), "width": (128, 256, 512, 1024)}


def speed(threads: int) -> dict[str, object]:
    """K-prune at BERT-base shape, 64 samples of 64 tokens, 60 %: seconds, memory, and the bound by its own FLOPs."""
    shape = {"layers": 12, "width": 768, "tokens": 64 * 64, "ratio": 0.6}
    found = in_new_process(partial(cost, "kprune", **shape, threads=threads))
    counted = in_new_process(partial(cost, "kprune", **shape, threads=threads, count=True))
    bound = counted["flops"] / found["flops_a_second"]
    times = {"bound_seconds": bound, "times_bound": found["seconds"] / bound}
    public = {"public_code_seconds": PUBLIC_SECONDS, "times_faster": PUBLIC_SECONDS / found["seconds"]}
    return {**shape, "threads": threads, **found, "flops": counted["flops"], **times, **public}


def in_new_process(function: Callable[[], T]) -> T:
    """The result of `function` in a process of its own, so that peaks are its own."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(function).result()


def bert(layers: int, width: int) -> nn.Module:
    """A random BERT classifier in heads of 64, feed-forward networks of 4 widths."""
    torch.manual_seed(0)
    config = transformers.BertConfig(
        num_hidden_layers=layers,
        hidden_size=width,
        num_attention_heads=width // 64,
        intermediate_size=4 * width,
        num_labels=2,
    )
    return transformers.BertForSequenceClassification(config).eval()


def cost(
    method: str, layers: int, width: int, tokens: int, ratio: float, threads: int, count: bool = False
) -> dict[str, float]:
    """Seconds of one pruning by clock and processor, bytes over what was there before, and FLOPs a second."""
    torch.set_num_threads(threads)
    before = status("VmRSS")
    model = bert(layers, width)
    ids = torch.randint(5, model.config.vocab_size, (tokens // 64, 64))
    data = [{"input_ids": i, "attention_mask": torch.ones_like(i)} for i in ids.split(BATCH // 64)]
    rates = [product_rate(width)]
    with FlopCounterMode(display=False) if count else nullcontext() as counter:
        start, begin = time.perf_counter(), time.process_time()
        apply(model, data, Step(method, {"ratio": ratio}))
        spent = {"seconds": time.perf_counter() - start, "cpu_seconds": time.process_time() - begin}
    rates.append(product_rate(width))
    found = {**spent, "peak_bytes": status("VmHWM") - before, "flops_a_second": statistics.mean(rates)}
    return found | ({"flops": float(counter.get_total_flops())} if count else {})


def product_rate(width: int, repeats: int = 30) -> float:
    """FLOPs a second of the product of (BATCH, width) and (width, 4 width), by the median time."""
    a, b = torch.randn(BATCH, width), torch.randn(width, 4 * width)
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        a @ b
        times.append(time.perf_counter() - start)
    return 8 * BATCH * width**2 / statistics.median(times)


def status(key: str) -> int:
    """Bytes of a line of this process's status, such as VmRSS."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(key))


def gains(threads: int, work: Path) -> list[dict[str, object]]:
    """Latency, FLOPs and bytes of pruned models, as what the dense one has over what they have."""
    torch.set_num_threads(threads)
    found = []
    for shape, dense in {"BERT-base": bert(12, 768), "6 layers, width 384": bert(6, 384)}.items():
        steps = {f"magnitude, {r:.0%} of FLOPs": Step("magnitude", {"ratio": r}) for r in (0.4, 0.6, 0.8)}
        steps["wanda, 60% of weights"] = Step("wanda", {"ratio": 0.6})
        nets = {name: apply(dense, batch(), step, in_place=False) for name, step in steps.items()}
        full = {"flops": flops(dense, LENGTH), "bytes": stored(dense, work), "parameters": parameters(dense)}
        for size in (1, 32):
            first, *others = latency.seconds([dense, *nets.values()], LENGTH, batch=size)
            for (name, net), taken in zip(nets.items(), others):
                left = {"flops": flops(net, LENGTH), "bytes": stored(net, work), "parameters": parameters(net)}
                ratios = {f"{key}_ratio": full[key] / left[key] for key in full} | {"latency_ratio": first / taken}
                share = ratios["latency_ratio"] / ratios["flops_ratio"]
                about = {"model": shape, "method": name, "batch": size, "threads": threads}
                found.append(about | ratios | {"share_of_flops_ratio": share})
    return found


def batch() -> list[Batch]:
    """One sequence of `LENGTH` tokens."""
    ids = torch.arange(5, 5 + LENGTH)[None]
    return [{"input_ids": ids, "attention_mask": torch.ones_like(ids)}]


def stored(net: nn.Module, work: Path) -> int:
    """Bytes of the weights when saved."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(Path(__file__).resolve().parent.parent / "data/mixlm")
    shutil.rmtree(work / "stored", ignore_errors=True)
    return bytes_of(io.save(net, tokenizer, work / "stored", {}))


def parameters(net: nn.Module) -> int:
    """Number of weights, zeros included."""
    return sum(p.numel() for p in net.parameters())


def growth(threads: int, picture: Path) -> list[dict[str, object]]:
    """CPU seconds and peak bytes against tokens, layers and width, one varied at a time; draws `picture`."""
    base = {"layers": 4, "width": 256, "tokens": 4096}
    found = []
    for varied, values in GROWTH.items():
        for value in values:
            for method in METHODS:
                shape = base | {varied: value}
                spent = in_new_process(partial(cost, method, **shape, ratio=0.6, threads=threads))
                found.append({"varied": varied, "method": method, **shape, **spent})
    draw(found, picture)
    return found


def exponent(rows: Sequence[dict], varied: str, key: str) -> float:
    """The power of what is varied with which a figure grows, by least squares of the logarithms."""
    return float(np.polyfit(*(np.log([row[k] for row in rows]) for k in (varied, key)), 1)[0])


def draw(found: Sequence[dict], picture: Path) -> None:
    """CPU seconds above, peak memory below, both axes logarithmic; in the legends the powers with which they grow."""
    from matplotlib import pyplot as plt  # the other parts do without it

    plt.switch_backend("svg")
    figure, axes = plt.subplots(2, len(GROWTH), figsize=(9, 5), sharey="row", constrained_layout=True)
    for column, varied in enumerate(GROWTH):
        for method in METHODS:
            rows = [r for r in found if r["varied"] == varied and r["method"] == method]
            for axis, key, unit in zip(axes[:, column], ("cpu_seconds", "peak_bytes"), (1, 2**20)):
                label = f"{method}: power {exponent(rows, varied, key):.1f}"
                axis.loglog([r[varied] for r in rows], [r[key] / unit for r in rows], "o-", label=label)
        for axis in axes[:, column]:
            axis.set_xticks(GROWTH[varied], map(str, GROWTH[varied]))
            axis.minorticks_off()
            axis.grid(alpha=0.3)
            axis.legend(frameon=False, fontsize=8)
        axes[1, column].set_xlabel(varied)
    axes[0, 0].set_ylabel("CPU seconds")
    axes[1, 0].set_ylabel("peak memory, MiB")
    figure.suptitle("Cost of pruning a BERT, 4 layers, width 256, 4,096 tokens, one of them varied")
    figure.savefig(picture)
