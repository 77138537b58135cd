r"""GPTQ beside llmcompressor's and gptqmodel's: time, and what the quantized model is worth.

    python benchmarks/compress_speed.py DATASETS --work W \
        --peer llmcompressor=VENV --peer gptqmodel=VENV [--model data/mixlm --group 64]

4 bits, calibrated on 32 x 128 tokens of all domains of prune_quality.py; perplexity on their held-out blocks. Every
peer runs in its own environment, in a fresh process as we do, with the same threads, models in memory, no import and no
file counted; we run before and after the peers. Every model writes its own key of the results.
"""

import json
import os
import platform
import shutil
import statistics
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import click
import numpy as np
import torch
import transformers
from prune_quality import DOMAINS, blocks
from prune_speed import fresh
from safetensors.torch import load_file, save_file
from torch import nn

from compress.calibration.texts import batches, cut
from compress.evaluation import metrics, prediction
from compress.evaluation.windows import apart
from compress.model import io
from compress.pipeline import Step, apply

HERE = Path(__file__).resolve().parent
SAMPLES, TOKENS = 32, 128
WINDOW = 192  # tokens of a perplexity window
CASES = {"symmetric=false": False, "symmetric=true": True}


@dataclass(frozen=True)
class Given:
    """The options of the command."""

    datasets: Path
    model: str
    group: int
    work: Path
    threads: int
    repeats: int
    tokens: int


def prepare(given: Given) -> None:
    """Write the model to WORK/dense and the calibration tokens beside it."""
    shutil.rmtree(given.work / "dense", ignore_errors=True)
    shutil.copytree(given.model, given.work / "dense")
    _, tokenizer = io.load(given.model)
    drawn = []
    for files in DOMAINS.values():
        own, _ = blocks(given.datasets / "lm", files)
        drawn.append([s for s in cut(tokenizer, own, 4 * SAMPLES * TOKENS, TOKENS, 0) if len(s) == TOKENS])
    mixed = [part[i] for i in range(SAMPLES) for part in drawn if i < len(part)][:SAMPLES]
    save_file({"input_ids": torch.tensor(mixed)}, given.work / "calibration.safetensors")


def ours(given: Given) -> dict[str, list[dict[str, float]]]:
    """Wall and processor seconds of every run of every case."""
    torch.set_num_threads(given.threads)
    model, data = dense(given)
    runs: dict[str, list[dict[str, float]]] = {}
    for name, symmetric in CASES.items():
        for _ in range(given.repeats):
            begin = time.perf_counter(), time.process_time()
            apply(model, data, Step("gptq", {"group": given.group, "symmetric": symmetric}), in_place=False)
            seconds = {"seconds": time.perf_counter() - begin[0], "cpu_seconds": time.process_time() - begin[1]}
            runs.setdefault(name, []).append(seconds)
    return runs


def dense(given: Given) -> tuple[nn.Module, list[dict[str, torch.Tensor]]]:
    """The model and its calibration batch."""
    model, tokenizer = io.load(given.work / "dense")
    return model, batches(tokenizer, load_file(given.work / "calibration.safetensors")["input_ids"].tolist(), SAMPLES)


def theirs(library: str, venv: str, given: Given) -> dict:
    """What peer_quantization.py measured of `library`."""
    script, work = HERE / "peer_quantization.py", given.work.absolute()
    command = [Path(venv).absolute() / "bin/python", script, library, work, str(given.group), str(given.threads)]
    environment = os.environ | {"OMP_NUM_THREADS": str(given.threads)}
    environment.pop("PYTHONPATH", None)
    with (work / f"{library}.log").open("w") as log:
        subprocess.run(command, check=True, cwd=work, env=environment, stdout=log, stderr=log)
    return json.loads((work / f"{library}.json").read_text())


def losses(given: Given, libraries: Sequence[str]) -> dict[str, dict[str, np.ndarray]]:
    """By case and side the losses (windows, 2) on held-out text of all domains."""
    torch.set_num_threads(given.threads)
    model, data = dense(given)
    _, tokenizer = io.load(given.work / "dense")
    held = [blocks(given.datasets / "lm", files)[1] for files in DOMAINS.values()]
    windows = [apart(tokenizer, texts, given.tokens, WINDOW) for texts in held]

    def lost(net: nn.Module) -> np.ndarray:
        return np.concatenate([prediction.losses(net, tokenizer, each) for each in windows])

    found = {}
    for name, symmetric in CASES.items():
        options = {"group": given.group, "symmetric": symmetric}
        found[name] = {
            "dense": lost(model),
            "round to nearest": lost(apply(model, data, Step("round_to_nearest", options), in_place=False)),
            "ours": lost(apply(model, data, Step("gptq", options), in_place=False)),
        }
        for library in libraries:
            net, _ = io.load(given.work / "dense")
            weights = load_file(given.work / f"{library} {name}.safetensors")
            unknown = net.load_state_dict(weights, strict=False).unexpected_keys
            if unknown:
                raise RuntimeError(f"{library} gave weights of layers that are not there, such as {unknown[0]}")
            found[name][library] = lost(net)
    return found


def row(name: str, runs: Sequence[dict], peers: dict[str, dict], lost: dict[str, np.ndarray]) -> dict:
    """Figures of one case; a ratio is a peer's best run over the median of ours."""
    median = {clock: statistics.median(r[clock] for r in runs) for clock in ("seconds", "cpu_seconds")}
    found = {"case": name, "ours": median, "perplexity": {side: metrics.perplexity(x) for side, x in lost.items()}}
    for library, peer in peers.items():
        best = {clock: min(r[clock] for r in peer["seconds"][name]) for clock in median}
        found[library] = {
            "runs": peer["seconds"][name],
            "ratio": {clock: best[clock] / median[clock] for clock in median},
            "ours less theirs, nats": metrics.loss_change(lost["ours"], lost[library]),
        }
    return found


@click.command()
@click.argument("datasets", type=click.Path(exists=True, path_type=Path))
@click.option("--model", default="data/mixlm", show_default=True, help="Folder of a Llama.")
@click.option("--group", default=64, show_default=True)
@click.option("--peer", "peers", multiple=True, help="LIBRARY=VENV, an environment that has it. May repeat.")
@click.option("--work", required=True, type=click.Path(path_type=Path), help="Folder for models.")
@click.option("--threads", default=1, show_default=True)
@click.option("--repeats", default=3, show_default=True, help="Runs of ours, before and after the peers'.")
@click.option("--tokens", default=20_000, show_default=True, help="Held-out tokens of each domain.")
@click.option("--out", default="benchmarks/results/compress_speed.json", type=click.Path(path_type=Path))
def main(
    datasets: Path,
    model: str,
    group: int,
    peers: Sequence[str],
    work: Path,
    threads: int,
    repeats: int,
    tokens: int,
    out: Path,
) -> None:
    """Measure one model and put it into the results."""
    given = Given(datasets, model, group, work, threads, repeats, tokens)
    work.mkdir(parents=True, exist_ok=True)
    prepare(given)
    environments = dict(peer.split("=", 1) for peer in peers)
    first = fresh(ours, given)
    measured = {library: theirs(library, venv, given) for library, venv in environments.items()}
    second = fresh(ours, given)
    lost = fresh(losses, given, list(measured))
    versions = {"python": platform.python_version(), "torch": torch.__version__}
    found = {
        "group": group,
        "threads": threads,
        "load of the machine": os.getloadavg(),
        "samples": SAMPLES,
        "tokens": TOKENS,
        "versions": {"ours": versions | {"transformers": transformers.__version__}}
        | {library: peer["versions"] for library, peer in measured.items()},
        "rows": [row(name, first[name] + second[name], measured, lost[name]) for name in CASES],
    }
    click.echo(json.dumps(found, indent=1))
    known = json.loads(out.read_text()) if out.exists() else {}
    out.write_text(json.dumps(known | {Path(model).name: found}, indent=1) + "\n")


if __name__ == "__main__":
    main()
