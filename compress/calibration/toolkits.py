"""Files of calibration data that other toolkits read, each with the code or the command that uses it.

The tokens are those that were chosen: toolkits that take token ids get them, the others texts of which the model's
tokenizer makes them again. auto-round leaves out what is shorter than its one length, so that shorter texts are joined
for it. The settings in the code are those whose defaults would cut or drop tokens.
"""

import json
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # a command reads the names alone, and transformers takes seconds to import
    from transformers import PreTrainedTokenizerBase as Tokenizer

CODE = {
    "llm-compressor": """\
from datasets import load_dataset
from llmcompressor import oneshot

data = load_dataset("json", data_files={file}, split="train")
oneshot(model={model}, recipe=RECIPE, dataset=data, num_calibration_samples={count}, max_seq_length={length})
""",
    "gptqmodel": """\
import json
from gptqmodel import GPTQModel, QuantizeConfig

rows = [json.loads(line) for line in open({file})]
model = GPTQModel.load({model}, QuantizeConfig(bits=4, group_size=64))
model.quantize(rows, calibration_data_min_length=1)
""",
    "auto-round": "auto-round --model {model} --dataset {file} --seqlen {length} --nsamples {count}\n",
    "llama.cpp": "llama-imatrix -m MODEL.gguf -f {file} -c {length} --parse-special -o imatrix.gguf\n",
}


def check(toolkits: Sequence[str]) -> None:
    """Refuse what is no toolkit.

    Parameters
    ----------
    toolkits
        Names.

    Raises
    ------
    ValueError
        One is not in `CODE`.
    """
    for name in toolkits:
        if name not in CODE:
            raise ValueError(f"toolkit is '{name}', which is not known: give {' or '.join(CODE)}")


def write(
    toolkit: str, folder: Path, place: Path, sequences: Sequence[list[int]], tokenizer: "Tokenizer", model: str
) -> str:
    """Write the file that a toolkit reads.

    Parameters
    ----------
    toolkit
        One of `CODE`.
    folder
        Where the file goes.
    place
        What the folder will be called.
    sequences
        Token ids of every sequence.
    tokenizer
        That they are of.
    model
        Folder or name of the model, for the code.

    Returns
    -------
    str
        The code or the command that uses it.
    """
    lengths = [len(ids) for ids in sequences]
    name = f"{toolkit}.txt" if toolkit == "llama.cpp" else f"{toolkit}.jsonl"
    file, about = str(place / name), {"model": model, "count": len(lengths), "length": max(lengths)}
    if toolkit == "llama.cpp":
        content = "\n\n".join(text(tokenizer, ids) for ids in sequences)
    elif toolkit == "auto-round":
        texts = [text(tokenizer, ids).rstrip() for ids in _full(sequences, tokenizer)]  # it strips them so
        content = _lines([{"text": each} for each in texts])
        about |= {"count": len(texts), "length": min(len(tokenizer(each)["input_ids"]) for each in texts)}
    else:
        content = _lines([{"input_ids": ids, "attention_mask": [1] * len(ids)} for ids in sequences])
    (folder / name).write_text(content, encoding="utf-8")
    if toolkit in ("llm-compressor", "gptqmodel"):
        return CODE[toolkit].format(**{k: json.dumps(v) for k, v in {**about, "file": file}.items()})
    return CODE[toolkit].format(**{k: shlex.quote(str(v)) for k, v in {**about, "file": file}.items()})


def _full(sequences: Sequence[list[int]], tokenizer: "Tokenizer") -> list[list[int]]:
    """Sequences of one length, the largest: others are joined, an end token between them, and cut anew."""
    length = max(map(len, sequences))
    if all(len(ids) == length for ids in sequences):
        return list(sequences)
    between = [] if tokenizer.eos_token_id is None else [tokenizer.eos_token_id]
    joined = [token for ids in sequences for token in [*ids, *between]]
    return [joined[i : i + length] for i in range(0, len(joined) - length + 1, length)]


def text(tokenizer: "Tokenizer", ids: Sequence[int]) -> str:
    """Text of token ids with its special tokens, but for those that the tokenizer adds itself.

    Parameters
    ----------
    tokenizer
        That they are of.
    ids
        Token ids.

    Returns
    -------
    str
        Of which the tokenizer makes the same ids, as far as they come from whole words.
    """
    added = tokenizer("")["input_ids"]
    start = next((i for i in range(len(added), 0, -1) if list(ids[:i]) == added[:i]), 0)
    end = len(ids) - next((i for i in range(len(added) - start, 0, -1) if list(ids[-i:]) == added[-i:]), 0)
    return tokenizer.decode(ids[start:end], clean_up_tokenization_spaces=False)


def _lines(rows: Sequence[dict]) -> str:
    """JSON, one line a row."""
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
