"""Embeddings of texts by models without a head: how the states of the tokens become one vector.

A folder of the library sentence-transformers says it in modules.json and in the folders that this names. Those files
are carried along, as they are, into every folder that is made of such a model.
"""

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from transmeter.util import checkpoint

MODULES = "modules.json"
SETTINGS = ("config_sentence_transformers.json", "sentence_*_config.json", "router_config.json")  # beside it
# settings of a pooling that are true or false, in the order in which several vectors are joined, and their modes
SWITCHES = {
    "pooling_mode_cls_token": "cls",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len_tokens",
    "pooling_mode_weightedmean_tokens": "weightedmean",
    "pooling_mode_lasttoken": "lasttoken",
}


def _cls(states: Tensor, mask: Tensor) -> Tensor:
    return states[torch.arange(len(states)), mask.argmax(1)]


def _last(states: Tensor, mask: Tensor) -> Tensor:
    return states[torch.arange(len(states)), mask.shape[1] - 1 - mask.flip(1).argmax(1)]


def _max(states: Tensor, mask: Tensor) -> Tensor:
    return states.masked_fill(mask[:, :, None] == 0, torch.finfo(states.dtype).min).amax(1)


def _mean(states: Tensor, mask: Tensor) -> Tensor:
    weights = mask[:, :, None].to(states.dtype)
    return (states * weights).sum(1) / weights.sum(1)


def _mean_by_root(states: Tensor, mask: Tensor) -> Tensor:
    weights = mask[:, :, None].to(states.dtype)
    return (states * weights).sum(1) / weights.sum(1).sqrt()


def _later_counts_more(states: Tensor, mask: Tensor) -> Tensor:
    weights = (mask.cumsum(1) * mask)[:, :, None].to(states.dtype)
    return (states * weights).sum(1) / weights.sum(1)


# by mode: of states (batch, tokens, width) and mask (batch, tokens), 1 for real tokens, a vector (batch, width); and
# what it is called
MODES: dict[str, tuple[Callable[[Tensor, Tensor], Tensor], str]] = {
    "cls": (_cls, "the first token"),
    "max": (_max, "the maximum over the tokens"),
    "mean": (_mean, "the mean over the tokens"),
    "mean_sqrt_len_tokens": (_mean_by_root, "the sum over the tokens by the root of their number"),
    "weightedmean": (_later_counts_more, "the mean over the tokens, later ones counting more"),
    "lasttoken": (_last, "the last token"),
}


@dataclass(frozen=True)
class Pooling:
    """How the states of the tokens of a text become its embedding.

    Attributes
    ----------
    modes
        Of `MODES`; the vectors of several are joined.
    normalize
        Whether embeddings have length 1.
    length
        Largest number of tokens that are read of a text; None: as many as the model can.
    file
        That says so, relative to the folder of the model; "": none does.
    others
        Kinds of modules behind it, which are carried along and not computed.
    """

    modes: tuple[str, ...] = ("mean",)
    normalize: bool = False
    length: int | None = None
    file: str = ""
    others: tuple[str, ...] = ()

    def embed(self, states: Tensor, mask: Tensor) -> Tensor:
        """Embeddings of texts.

        Parameters
        ----------
        states
            (texts, tokens, width), what leaves the model.
        mask
            (texts, tokens), 1 for real tokens, 0 for padding.

        Returns
        -------
        Tensor
            (texts, width), as many times the width as there are modes.
        """
        found = torch.cat([MODES[mode][0](states, mask) for mode in self.modes], 1)
        return nn.functional.normalize(found, dim=1) if self.normalize else found

    def about(self) -> str:
        """What is done, in one line."""
        what = " and ".join(MODES[mode][1] for mode in self.modes) + (", normalized" if self.normalize else "")
        why = f"as {self.file} says" if self.file else f"as the folder has no {MODULES}"
        left = f"; {', '.join(self.others)} behind it not computed" if self.others else ""
        return f"{what}, {why}{left}"


@dataclass(frozen=True)
class Companions:
    """What lies beside a model for sentence-transformers.

    Attributes
    ----------
    files
        Contents by path relative to the folder of the model.
    """

    files: Mapping[str, bytes] = field(default_factory=dict, repr=False)

    def write(self, folder: Path) -> None:
        """Write them into the folder of another model.

        Parameters
        ----------
        folder
            An existing one.
        """
        for name, content in self.files.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(content)


def read_modules(source: str | Path, folder: Path) -> list[tuple[str, Path | None]]:
    """The modules of sentence-transformers that a folder names.

    Parameters
    ----------
    source
        What messages call the model.
    folder
        Of the model.

    Returns
    -------
    list
        Kind (Transformer, Pooling, Normalize, ...) and folder of each, None for one that has none; empty where there
        is no modules.json.

    Raises
    ------
    ValueError
        The file is no list of modules inside the folder.
    """
    if not (folder / MODULES).is_file():
        return []
    try:
        entries = json.loads((folder / MODULES).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ValueError(f"{source}: {MODULES} cannot be read as JSON: {error}") from None
    found = []
    for entry in entries if isinstance(entries, list) else [None]:
        kind, path = (entry.get(key) if isinstance(entry, dict) else None for key in ("type", "path"))
        if not isinstance(kind, str) or not re.fullmatch(r"[\w.-]*", str(path)) or str(path) in (".", ".."):
            raise ValueError(f"{source}: {MODULES} holds no list of modules in it: give a sound copy of the model")
        found.append((kind.rpartition(".")[2], folder / path if path else None))
    return found


def gives_embeddings(source: str | Path, folder: Path) -> bool:
    """Whether a folder says that the states of its model are pooled, whatever head its config names.

    Parameters
    ----------
    source
        What messages call the model.
    folder
        Of the model.

    Returns
    -------
    bool
        Whether modules.json has a pooling.
    """
    return any(kind == "Pooling" for kind, _ in read_modules(source, folder))


def read_pooling(source: str | Path, folder: Path) -> Pooling:
    """How a model without a head gives embeddings.

    Parameters
    ----------
    source
        What messages call the model.
    folder
        Of the model.

    Returns
    -------
    Pooling
        The mean over the tokens where nothing says otherwise.

    Raises
    ------
    ValueError
        A file cannot be read, or names a pooling that is not known.
    """
    modules = read_modules(source, folder)
    place = next((i for i, (kind, _) in enumerate(modules) if kind == "Pooling"), None)
    length = next((_max_length(source, file) for file in sorted(folder.glob(SETTINGS[1]))), None)
    if place is None:
        return Pooling(length=length)
    path = modules[place][1] or folder
    name = f"{path.relative_to(folder)}/config.json" if path != folder else "config.json"
    settings = checkpoint.read_json(source, folder, name)
    modes: Any = settings.get("pooling_mode") or [mode for switch, mode in SWITCHES.items() if settings.get(switch)]
    modes = [modes] if isinstance(modes, str) else modes or ["mean"]
    unknown = next((mode for mode in modes if mode not in MODES), None)
    if unknown is not None:
        raise ValueError(f"{source}: {name} asks for the pooling '{unknown}': give one of {', '.join(MODES)}")
    kinds = [kind for kind, _ in modules[place + 1 :]]
    others = tuple(kind for kind in kinds if kind not in ("Normalize", "Dropout"))
    return Pooling(tuple(modes), "Normalize" in kinds, length, name, others)


def _max_length(source: str | Path, file: Path) -> int | None:
    found = checkpoint.read_json(source, file.parent, file.name).get("max_seq_length")
    return found if isinstance(found, int) and found > 0 else None


def read_companions(source: str | Path, folder: Path) -> Companions:
    """What a folder has for sentence-transformers; nothing in it is opened but modules.json.

    Parameters
    ----------
    source
        What messages call the model.
    folder
        Of the model.

    Returns
    -------
    Companions
        Empty where there is no modules.json.

    Raises
    ------
    ValueError
        That file is broken.
    """
    modules = read_modules(source, folder)
    if not modules:
        return Companions()
    files = [folder / MODULES, *(file for pattern in SETTINGS for file in sorted(folder.glob(pattern)))]
    files += [file for _, path in modules if path for file in sorted(path.rglob("*"))]
    return Companions({file.relative_to(folder).as_posix(): file.read_bytes() for file in files if file.is_file()})


def has_head(model: nn.Module) -> bool:
    """Whether a model has more than its states to give.

    Parameters
    ----------
    model
        Any of transformers, or compressed.

    Returns
    -------
    bool
        False for a model whose states are pooled to embeddings.
    """
    return model.base_model is not model


def pooling_of(model: nn.Module) -> Pooling:
    """How a model without a head gives embeddings.

    Parameters
    ----------
    model
        Read from a folder, or made in Python.

    Returns
    -------
    Pooling
        As its folder says; the mean over the tokens for one that was made in Python.
    """
    return getattr(model, "pooling", None) or Pooling()
