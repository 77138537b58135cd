"""A small language model has to solve school maths with fewer weights. Which texts should the pruning look at?

python examples/prune_decoder.py
"""

import json
from pathlib import Path
from tempfile import TemporaryDirectory

import compress
from cli import main as transmeter
from compress.evaluation import evaluate

DATA = Path(__file__).resolve().parent.parent / "data"
MODEL, TEXTS = str(DATA / "mixlm"), DATA / "text"
CANDIDATES = ("code", "drama", "math", "novels", "web")
TOKENS = 800

with TemporaryDirectory() as folder:
    # 1. Draw calibration texts by how close they come to a sample of the task; at random: equal shares of everything.
    words = ["calibrate", MODEL, "--target", f"{TEXTS}/math_sample.txt", "--tokens", str(TOKENS)]
    words += [f"--candidate={TEXTS}/{name}.txt" for name in CANDIDATES]
    transmeter([*words, "--out", f"{folder}/chosen"], standalone_mode=False)
    equal = ",".join(f"{TEXTS}/{name}.txt:{TOKENS // len(CANDIDATES)}" for name in CANDIDATES)

    # 2. Prune with each: three tenths of the FLOPs of heads and neurons go.
    tokenizer = compress.load(MODEL)[1]
    draws = {"random": equal, "chosen": f"{folder}/chosen"}
    pruned = {name: compress.compress(MODEL, "kprune", ratio=0.3, calibration=draw) for name, draw in draws.items()}

    # 3. Ask all three models about maths that none has seen.
    task = evaluate.evaluation_task(MODEL, TEXTS / "math_heldout.txt", "perplexity", tokens=3000)
    for name, model in {"as it was": compress.load(MODEL)[0], **pruned}.items():
        found = task.value(task.outcome(model, tokenizer))
        print(f"{name}: perplexity {found['value']:.2f} ({found['ci_low']:.2f} to {found['ci_high']:.2f})")

    # 4. Keep the better one. The folder has a model card, and reloads to the same logits.
    kept = compress.save(pruned["chosen"], tokenizer, f"{folder}/small")
    print(f"{kept}: {', '.join(sorted(p.name for p in kept.iterdir()))}")
    card = json.loads((kept / "compression.json").read_text())
    print("calibrated on", {p["name"]: p["tokens"] for p in card["calibration"]["provenance"]["parts"]})
