"""What the config.json of a model folder says: the class of the model, what it is for, and who quantized it."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import transformers
from transformers import PreTrainedModel

from compress.model.embedding import gives_embeddings
from compress.model.gguf import reading as gguf_reading
from transmeter.util import checkpoint

# what a model is for, by the end of its class's name, the first that fits; a classifier of one class gives "values"
HEADS = {
    "ForCausalLM": "text",
    "LMHeadModel": "text",
    "ForMaskedLM": "masked",
    "ForSequenceClassification": "classes",
    "ForTokenClassification": "labels",
    "ForQuestionAnswering": "answers",
    "Model": "embeddings",  # the states of the tokens alone, which AutoModel gives
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

    A folder that says how the states of its model are pooled (compress.model.embedding) is of the class without a head,
    whatever head its config still names.

    Parameters
    ----------
    source
        A folder or a hub name.
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
    cls = getattr(transformers, name)
    return _without_head(cls) or cls if gives_embeddings(source, checkpoint.folder_of(source)) else cls


def _without_head(cls: type[PreTrainedModel]) -> type[PreTrainedModel] | None:
    """The class that AutoModel takes for the config of another one, None where it takes none or several."""
    known: Any = transformers.AutoModel._model_mapping
    found = known[cls.config_class] if cls.config_class in known else None
    return found if isinstance(found, type) else None


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
    cls = getattr(transformers, name, None) if name.endswith(tuple(HEADS)) else None
    if cls is None or HEADS[_head_of(name)] == "embeddings" and _without_head(cls) is not cls:
        remedy = f"give a class of transformers that ends in {', '.join(HEADS)}"
        raise ValueError(f"{source}: architecture '{name}' is none that can be compressed: {remedy}")


def _head_of(name: str) -> str:
    return next(head for head in HEADS if name.endswith(head))


def task_of(source: str | Path) -> str:
    """What a model is for.

    Parameters
    ----------
    source
        A folder or a hub name.

    Returns
    -------
    str
        text, masked (tokens), classes, values (a regression), labels (of tokens), answers, or embeddings.

    Raises
    ------
    ValueError
        The config is broken, or names no class with one of the `HEADS`.
    """
    config = config_of(source)
    name = base_of(source, config).__name__
    task = HEADS[_head_of(name)]
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
