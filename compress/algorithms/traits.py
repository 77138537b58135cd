"""What a method declares of itself: the constant TRAITS of its file."""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Needs:
    """What a method holds in memory; see compress.algorithms.memory. The defaults are more than most methods need.

    Attributes
    ----------
    models
        Sets of all weights, 2 where the old ones stay beside the new.
    states
        Sets of the hidden states of all batches.
    gradients
        Whether gradients go through the blocks and the head.
    matrices
        Float64 matrices, inputs x inputs of the widest layer, at once.
    copies
        Float32 copies of the largest weight matrix at once.
    shrinks
        Whether what the ratio takes away takes no memory any more.
    blockwise
        Whether gradients are taken a block at a time in memory too.
    """

    models: int = 2
    states: int = 2
    gradients: bool = True
    matrices: int = 6
    copies: int = 8
    shrinks: bool = False
    blockwise: bool = False


@dataclass(frozen=True)
class Traits:
    """What the pipeline has to know of a method before it runs it.

    Attributes
    ----------
    needs
        What it holds in memory.
    changes
        What it changes: it removes units (heads and neurons), sublayers, blocks or key-value heads, lowers ranks,
        replaces the values of weights, stores them in fewer bits, or adds exits.
    texts
        Whether it looks at calibration texts.
    learns
        Whether it takes a `teacher`: the model as it was before the first step.
    resumes
        Whether it takes `progress`, in which it keeps what is finished.
    streams
        Whether it works on blocks that are read from files, one after the other.
    """

    needs: Needs = Needs()
    changes: Literal["units", "sublayers", "blocks", "heads", "ranks", "weights", "bits", "exits"] = "weights"
    texts: bool = True
    learns: bool = False
    resumes: bool = False
    streams: bool = True

    @property
    def quantizes(self) -> bool:
        """Whether weights are stored in few bits, and do not change any more."""
        return self.changes == "bits"

    @property
    def removes(self) -> bool:
        """Whether heads and neurons go, one by one or with what they are in."""
        return self.changes in ("units", "sublayers", "blocks")
