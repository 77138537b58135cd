"""Time of pruning beside other implementations, and what the pruned models are worth.

    python benchmarks/prune_speed.py --part llmcompressor --train WIKITEXT_A --held-out WIKITEXT_B --venv V --work W

Part llmcompressor: SparseGPT at 50 % and Wanda 2:4 of a Llama of 4 layers, width 256, trained here on the text of
--train, calibrated on 32 x 128 of its tokens; llmcompressor runs in its own environment V, made where it is not there.
Both sides: a fresh process, the same threads, models in memory, no import and no file counted. `first` is the first
call of the process, which a single run pays; `median` that of the others. Perplexity on --held-out. Every part writes
its own key of the results.

    python benchmarks/prune_speed.py --part memory --work W

Part memory: peaks of whole jobs (load, compress, save, compare) on a random Llama of 6 layers, width 1024, fp16 in
shards, in memory and streamed, each in a fresh process with its interpreter and libraries; beside them the estimates
that are told before, and whether both ways gave the same weights.

    python benchmarks/prune_speed.py --part kprune --part gains --part growth --work W

    python benchmarks/prune_speed.py --part weights --work W

Part weights: the same peaks in memory on a random Llama of the sizes of SmolLM2-135M, stored in bfloat16 and float32,
less what the process took before, as a multiple of its weights in float32; `load` is compress.load alone.

Parts kprune, gains and growth (prune_cost.py): K-prune at BERT-base shape beside its bound and its public code; latency
and bytes of pruned models beside their FLOPs; seconds and memory against tokens, layers and width.
"""

import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import TypeVar

import click
import numpy as np
import prune_cost
import torch
import transformers
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

from compress.calibration.texts import batches, cut, read_texts
from compress.evaluation import metrics, prediction
from compress.evaluation.windows import apart
from compress.model.structure import block_linears
from compress.pipeline import Step, apply

T = TypeVar("T")
HERE = Path(__file__).resolve().parent
SAMPLES, TOKENS = 32, 128
WINDOW = 192  # tokens of a perplexity window
CASES = {
    "sparsegpt ratio=0.5": Step("sparsegpt", {"ratio": 0.5}),
    "wanda pattern=2:4": Step("wanda", {"pattern": "2:4"}),
}


@dataclass(frozen=True)
class Given:
    """The options of the command."""

    train: Path | None
    held_out: Path | None
    venv: Path | None
    work: Path
    threads: int
    steps: int
    repeats: int
    cases: tuple[str, ...]
    out: Path


def train(given: Given) -> None:
    """Write a trained Llama to WORK/dense and the calibration tokens beside it, where they are not there."""
    if (given.work / "calibration.safetensors").exists():
        return
    tokenizer = AutoTokenizer.from_pretrained(HERE.parent / "data/mixlm")
    sequences = [s for s in cut(tokenizer, read_texts(given.train), sys.maxsize, TOKENS) if len(s) == TOKENS]
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=256,
        intermediate_size=688,
        num_hidden_layers=4,
        num_attention_heads=8,
        max_position_embeddings=256,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        tie_word_embeddings=True,
    )
    model = LlamaForCausalLM(config).train()
    optimiser = torch.optim.AdamW(model.parameters(), lr=2e-3, weight_decay=0.1)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 2e-3, total_steps=given.steps)
    for _ in range(given.steps):
        ids = torch.tensor([sequences[i] for i in torch.randint(len(sequences), (8,)).tolist()])
        loss = model(input_ids=ids, labels=ids).loss
        optimiser.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        schedule.step()
    click.echo(f"trained, last loss {loss.item():.3f}")
    model.save_pretrained(given.work / "dense")
    tokenizer.save_pretrained(given.work / "dense")
    drawn = [sequences[i] for i in torch.randperm(len(sequences))[:SAMPLES].tolist()]
    save_file({"input_ids": torch.tensor(drawn)}, given.work / "calibration.safetensors")


def dense(work: Path) -> LlamaForCausalLM:
    """The trained model."""
    return LlamaForCausalLM.from_pretrained(work / "dense", dtype=torch.float32).eval()


def ours(given: Given) -> dict[str, list[dict[str, float]]]:
    """Wall and processor seconds of every run of every case; the pruned models go to WORK."""
    torch.set_num_threads(given.threads)
    tokenizer, model = AutoTokenizer.from_pretrained(given.work / "dense"), dense(given.work)
    data = batches(tokenizer, load_file(given.work / "calibration.safetensors")["input_ids"].tolist(), SAMPLES)
    runs: dict[str, list[dict[str, float]]] = {}
    for name, step in CASES.items():
        for _ in range(given.repeats + 1):
            begin, cpu = time.perf_counter(), time.process_time()
            small = apply(model, data, step, in_place=False)
            seconds = {"seconds": time.perf_counter() - begin, "cpu_seconds": time.process_time() - cpu}
            runs.setdefault(name, []).append(seconds)
        weights = {k: v.detach().clone().contiguous() for k, v in small.state_dict().items()}
        save_file(weights, given.work / f"ours {name}.safetensors")
    return runs


def fresh(measure: Callable[..., T], *arguments: object) -> T:
    """What `measure` gives in a process of its own."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(measure, *arguments).result()


def theirs(given: Given) -> dict:
    """What peer_llmcompressor.py measured in its environment, which is made first where it is not there."""
    python = given.venv / "bin/python"
    if not python.exists():
        subprocess.run([sys.executable, "-m", "venv", given.venv], check=True)
        torch_version = f"torch=={torch.__version__.partition('+')[0]}"
        for packages in ([torch_version], [torch_version, "llmcompressor"]):
            subprocess.run([python, "-m", "pip", "install", "--quiet", *packages], check=True)
    command = [python.absolute(), HERE / "peer_llmcompressor.py", given.work.absolute(), str(given.threads)]
    environment = os.environ | {"OMP_NUM_THREADS": str(given.threads)}
    with (given.work / "peer.log").open("w") as log:
        subprocess.run(command, check=True, cwd=given.work, env=environment, stdout=log, stderr=log)
    return json.loads((given.work / "timings.json").read_text())


def llmcompressor(given: Given) -> dict:
    """Our runs before and after theirs, so that a busy machine slows both sides; then the worth of all models."""
    if None in (given.train, given.held_out, given.venv):
        raise click.UsageError("part llmcompressor needs --train, --held-out and --venv")
    train(given)
    first, peer, second = fresh(ours, given), theirs(given), fresh(ours, given)
    tokenizer = AutoTokenizer.from_pretrained(given.work / "dense")
    windows = apart(tokenizer, read_texts(given.held_out), 50_000, WINDOW)

    def losses(net: nn.Module) -> np.ndarray:
        return prediction.losses(net, tokenizer, windows)

    model, rows = dense(given.work), []
    for name in CASES:
        nets = {side: dense(given.work) for side in ("ours", "llmcompressor")}
        for side, net in nets.items():
            net.load_state_dict(load_file(given.work / f"{side} {name}.safetensors"))
        lost = {side: losses(net) for side, net in nets.items()}
        warm = statistics.median(r["seconds"] for runs in (first, second) for r in runs[name][1:])
        warm_cpu = statistics.median(r["cpu_seconds"] for runs in (first, second) for r in runs[name][1:])
        row = {
            "case": name,
            "ours": {"first": first[name][0], "median": {"seconds": warm, "cpu_seconds": warm_cpu}},
            "llmcompressor": [r for r in peer["runs"] if r["case"] == name],
            "perplexity": {side: metrics.perplexity(found) for side, found in lost.items()},
            "loss_change_nats": metrics.loss_change(lost["ours"], lost["llmcompressor"]),
            "zeros": {side: zeros(net) for side, net in nets.items()},
        }
        for size in sorted({r["batch_size"] for r in row["llmcompressor"]}):
            runs = [r for r in row["llmcompressor"] if r["batch_size"] == size]
            median = row["ours"]["median"]
            row[f"ratio, batch_size={size}"] = {k: min(r[k] for r in runs) / median[k] for k in median}
        rows.append(row)
        click.echo(json.dumps(row, indent=1))
    about = {
        "threads": given.threads,
        "load of the machine": os.getloadavg(),
        "samples": SAMPLES,
        "tokens": TOKENS,
        "steps of training": given.steps,
    }
    versions = {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
    }
    return about | {
        "versions": {"ours": versions, "llmcompressor": peer["versions"]},
        "dense perplexity": metrics.perplexity(losses(model)),
        "rows": rows,
    }


def zeros(model: nn.Module) -> float:
    """Share of zeros in the linear layers of the blocks."""
    found = [m.weight == 0 for block in range(model.config.num_hidden_layers) for _, m in block_linears(model, block)]
    return sum(int(z.sum()) for z in found) / sum(z.numel() for z in found)


MEMORY_CASES = {
    "magnitude": {"ratio": 0.5, "unit": "weights"},
    "wanda": {"ratio": 0.5},
    "sparsegpt": {"ratio": 0.5},
    "kprune": {"ratio": 0.5, "iterative": False},
    "round_to_nearest": {"bits": 4},
    "gptq": {"bits": 4},
    "awq": {"bits": 4},
    "svd": {"ratio": 0.3},
}


def memory(given: Given) -> dict:
    """Peak and estimated bytes of every case, in memory and streamed, each in a fresh process."""
    source, names = given.work / "wide", given.cases or tuple(MEMORY_CASES)
    known = json.loads(given.out.read_text()).get("memory", {}).get("rows", []) if given.out.exists() else []
    rows = [row for row in known if row["method"] not in names]
    sizes = {"hidden_size": 1024, "intermediate_size": 2816, "num_hidden_layers": 6, "num_attention_heads": 16}
    random(source, torch.float16, vocab_size=4096, **sizes)
    for name in names:
        found = {}
        for kind in ("whole", "streamed"):
            shutil.rmtree(given.work / kind, ignore_errors=True)
            found[kind] = fresh(peak, name, kind, source, given)
        weights = [
            {k: v for f in (given.work / kind).glob("*.safetensors") for k, v in load_file(f).items()} for kind in found
        ]
        same = weights[0].keys() == weights[1].keys() and all(
            torch.equal(v, weights[1][k]) for k, v in weights[0].items()
        )
        rows.append({"method": name, "options": MEMORY_CASES[name], **found, "equal": same})
        click.echo(json.dumps(rows[-1], indent=1))
    return {"parameters": 81_279_488, "threads": given.threads, "tokens": 1024, "batch_size": 4, "rows": rows}


def random(folder: Path, dtype: torch.dtype, **sizes: int) -> None:
    """Write a random Llama in shards, where it is not there."""
    if folder.exists():
        return
    tokenizer = AutoTokenizer.from_pretrained(HERE.parent / "data/mixlm")
    torch.manual_seed(0)
    config = LlamaConfig(**sizes, max_position_embeddings=512, tie_word_embeddings=True)
    LlamaForCausalLM(config).to(dtype).save_pretrained(folder, max_shard_size="50MB")
    tokenizer.save_pretrained(folder)


SMALL_CASES = ("load", "wanda", "kprune", "round_to_nearest", "gptq")


def weights(given: Given) -> dict:
    """Peaks beyond the process before as multiples of the weights in float32, each in a fresh process."""
    sizes = {"hidden_size": 576, "intermediate_size": 1536, "num_hidden_layers": 30}
    sizes |= {"num_attention_heads": 9, "num_key_value_heads": 3, "vocab_size": 49_152}
    known = json.loads(given.out.read_text()).get("weights", {}) if given.out.exists() else {}
    rows = known.get("rows", {})
    for dtype in (torch.bfloat16, torch.float32):
        kind = str(dtype).removeprefix("torch.")
        source = given.work / f"small-{kind}"
        random(source, dtype, **sizes)
        for name in given.cases or SMALL_CASES:
            shutil.rmtree(given.work / "whole", ignore_errors=True)
            found = fresh(peak, name, "whole", source, given)
            times = (found["peak"] - found["before"]) / (4 * found["parameters"])
            rows.setdefault(kind, {})[name] = found | {"times": times}
            click.echo(f"{kind} {name}: {times:.2f} times the weights, {found['seconds']:.0f} s")
    return {"threads": given.threads, "tokens": 1024, "batch_size": 4, "rows": rows}


def peak(name: str, kind: str, source: Path, given: Given) -> dict[str, float]:
    """Bytes of this process at most, their estimate before the start, and seconds of one job; writes WORK/KIND."""
    from compress import pipeline
    from compress.algorithms import memory as estimates
    from compress.methods import traits
    from compress.model import io
    from compress.model.structure import context

    def status(key: str) -> int:
        return next(1024 * int(x.split()[1]) for x in open("/proc/self/status") if x.startswith(key))

    torch.set_num_threads(given.threads)
    sizes, tokenizer = io.skeleton(source)
    parameters = sum(p.numel() for p in sizes.parameters())
    if name == "load":
        taken, begin = estimates.taken_before(), time.perf_counter()
        io.load(source)
        seconds = time.perf_counter() - begin
        return {"peak": status("VmHWM"), "before": taken, "parameters": parameters, "seconds": seconds}
    step, texts = [pipeline.Step(name, MEMORY_CASES[name])], HERE.parent / "data/text/math.txt"
    data = batches(tokenizer, cut(tokenizer, read_texts(texts), 1024, context(sizes, TOKENS), 0), 4)
    found = estimates.estimate(sizes, data, traits(name), MEMORY_CASES[name], torch.float32)
    taken, begin = estimates.taken_before(), time.perf_counter()
    expected = taken + getattr(found, kind)
    machine = pipeline.Machine(batch_size=4, memory=taken + (found.whole + found.streamed) // 2)  # so that it streams
    if kind == "whole":
        machine = pipeline.Machine(batch_size=4, memory=2 * expected)
    pipeline.run(str(source), step, texts, given.work / kind, tokens=1024, length=TOKENS, machine=machine)
    seconds, most = time.perf_counter() - begin, status("VmHWM")
    found = {"peak": most, "estimate": expected, "ratio": expected / most, "seconds": seconds}
    return found | {"before": taken, "parameters": parameters}


def growth(given: Given) -> list[dict[str, object]]:
    """How cost grows; the picture lies beside the results."""
    return prune_cost.growth(given.threads, given.out.with_name("prune_growth.svg"))


PARTS = {
    "llmcompressor": llmcompressor,
    "memory": memory,
    "weights": weights,
    "kprune": lambda given: prune_cost.speed(given.threads),
    "gains": lambda given: prune_cost.gains(given.threads, given.work),
    "growth": growth,
}


@click.command()
@click.option("--part", "parts", multiple=True, required=True, type=click.Choice(list(PARTS)))
@click.option("--train", type=click.Path(exists=True, path_type=Path), help="Text to train on; llmcompressor.")
@click.option("--held-out", type=click.Path(exists=True, path_type=Path), help="Text for perplexity; llmcompressor.")
@click.option("--venv", type=click.Path(path_type=Path), help="Environment of llmcompressor.")
@click.option("--work", required=True, type=click.Path(path_type=Path), help="Folder for models.")
@click.option("--threads", default=2, show_default=True)
@click.option("--steps", default=400, show_default=True, help="Of training.")
@click.option("--repeats", default=5, show_default=True, help="Of ours, before the others and again after them.")
@click.option(
    "--case",
    "cases",
    multiple=True,
    type=click.Choice(["load", *MEMORY_CASES]),
    help="Of memory and weights. Default: all.",
)
@click.option("--out", default="benchmarks/results/prune_speed.json", type=click.Path(path_type=Path))
def main(
    parts: tuple[str, ...],
    train: Path | None,
    held_out: Path | None,
    venv: Path | None,
    work: Path,
    threads: int,
    steps: int,
    repeats: int,
    cases: tuple[str, ...],
    out: Path,
) -> None:
    """Measure some parts and put them into the results."""
    options = Given(train, held_out, venv, work, threads, steps, repeats, cases, out)
    work.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(threads)
    for part in parts:
        found = PARTS[part](options)
        known = json.loads(out.read_text()) if out.exists() else {}
        out.write_text(json.dumps(known | {part: found}, indent=1) + "\n")


if __name__ == "__main__":
    main()
