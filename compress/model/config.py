"""What the config.json of a model folder says: the class of the model, what it is for, and who quantized it."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import transformers
from transformers import PreTrainedModel

from compress.model.gguf import reading as gguf_reading
from transmeter.util import checkpoint

# what a model is for, by the end of its class's name; a classifier of one class gives "values"
HEADS = {
    "ForCausalLM": "text",
    "LMHeadModel": "text",
    "ForSequenceClassification": "classes",
    "ForTokenClassification": "labels",
    "ForQuestionAnswering": "answers",
}


def config_of(source: str | Path) -> dict[str, Any]:
    """The config of a model, as it is written.

    Parameters
    ----------
    source
        A folder, a GGUF file or a hub name.

    Returns
    -------
    dict
        The object in config.json, or what stands for it in a GGUF file.

    Raises
    ------
    ValueError
        There is none, or a value in it is one that no model can have.
    """
    if checkpoint.is_gguf(source):
        return gguf_reading.check(source)[1]
    return checkpoint.read_config(source, checkpoint.folder_of(source))


def base_of(source: str | Path, config: Mapping[str, Any]) -> type[PreTrainedModel]:
    """The transformers class of a model, or of which it is the compressed kind.

    Parameters
    ----------
    source
        What messages call the model.
    config
        Its config, as `config_of` returns it.

    Returns
    -------
    type
        A class whose name ends in one of the `HEADS`.

    Raises
    ------
    ValueError
        The config names no such class.
    """
    name = (config.get("architectures") or ["(none)"])[0].removeprefix("Compressed")
    check_head(source, name)
    return getattr(transformers, name)


def check_head(source: str | Path, name: str) -> None:
    """Check that a model can be compressed for a task.

    Parameters
    ----------
    source
        What messages call the model.
    name
        The name of its class.

    Raises
    ------
    ValueError
        It is no class of transformers with one of the `HEADS`.
    """
    if not hasattr(transformers, name) or not name.endswith(tuple(HEADS)):
        remedy = f"give a class of transformers that ends in {', '.join(HEADS)}"
        raise ValueError(f"{source}: architecture '{name}' has no head to compress for: {remedy}")


def task_of(source: str | Path) -> str:
    """What a model is for.

    Parameters
    ----------
    source
        A folder or a hub name.

    Returns
    -------
    str
        text, classes, values (a regression), labels (of tokens), or answers.

    Raises
    ------
    ValueError
        The config is broken, or names no class with one of the `HEADS`.
    """
    config = config_of(source)
    name = base_of(source, config).__name__
    task = next(task for head, task in HEADS.items() if name.endswith(head))
    return "values" if task == "classes" and len(config.get("id2label") or "two") == 1 else task


def quantizer_of(source: str | Path) -> str | None:
    """The method by which another tool has quantized a model.

    Parameters
    ----------
    source
        A folder or a hub name.

    Returns
    -------
    str or None
        As transformers calls it; None for a model that is not quantized.

    Raises
    ------
    ValueError
        The config is broken.
    """
    return checkpoint.quantizer_of(checkpoint.folder_of(source), config_of(source))
