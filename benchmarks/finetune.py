"""Fine-tune an encoder on one text task, so that the other benchmarks have a dense model to compress.

    python benchmarks/finetune.py MODEL TASK_DIR --out DIR

TASK_DIR holds train.csv.gz with columns text,label (label: class ids). Writes a plain transformers folder.
"""

from pathlib import Path

import click
import numpy as np
import pandas as pd
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer


@click.command()
@click.argument("model")
@click.argument("task", type=click.Path(exists=True, path_type=Path))
@click.option("--out", required=True, type=click.Path(path_type=Path))
@click.option("--rows", default=4800, help="Training sentences, drawn by the seed.")
@click.option("--epochs", default=2)
@click.option("--seed", default=0)
def main(model: str, task: Path, out: Path, rows: int, epochs: int, seed: int) -> None:
    """Train with AdamW, learning rate 1e-4, batches of 32, 64 tokens."""
    table = pd.read_csv(task / "train.csv.gz", keep_default_na=False, dtype={"label": int})
    rng = np.random.default_rng(seed)
    torch.manual_seed(seed)
    table = table.iloc[rng.permutation(len(table))[:rows]]
    tokenizer = AutoTokenizer.from_pretrained(model)
    net = AutoModelForSequenceClassification.from_pretrained(
        model, dtype=torch.float32, num_labels=int(table["label"].max()) + 1
    )
    optimiser = torch.optim.AdamW(net.parameters(), lr=1e-4)
    batches = epochs * -(-len(table) // 32)
    schedule = torch.optim.lr_scheduler.LinearLR(optimiser, 1.0, 0.0, total_iters=batches)
    net.train()
    for _ in range(epochs):
        order = rng.permutation(len(table))
        for start in range(0, len(table), 32):
            part = table.iloc[order[start : start + 32]]
            inputs = tokenizer(list(part["text"]), truncation=True, max_length=64, padding=True, return_tensors="pt")
            loss = net(**inputs, labels=torch.tensor(part["label"].values)).loss
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            schedule.step()
    net.eval().save_pretrained(out)
    tokenizer.save_pretrained(out)
    click.echo(f"{out}: last loss {loss.item():.3f}")


if __name__ == "__main__":
    main()
