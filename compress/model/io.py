"""The public address of model input and output; how it is done is in reading.py and saving.py."""

from compress.model.reading import load, skeleton
from compress.model.saving import save

__all__ = ["load", "save", "skeleton"]
