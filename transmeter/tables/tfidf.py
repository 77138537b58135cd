"""TF-IDF of words and pairs of words with an SVD: texts as numbers without a model, by figures that can be saved."""

import re
from collections.abc import Mapping, Sequence

import numpy as np
from sklearn.decomposition import TruncatedSVD
from sklearn.feature_extraction.text import TfidfVectorizer

DIMENSIONS = 64  # after the SVD
VOCABULARY = 50_000


class Tfidf:
    """Fitted on the given texts. Raises ValueError where they hold no word."""

    def __init__(self, texts: Sequence[str], seed: int = 0):
        if not any(re.search(r"\w", text) for text in texts):
            raise ValueError("the texts hold no word: give texts of letters, or an --encoder")
        self._vectorizer = _vectorizer()
        vectors = self._vectorizer.fit_transform(texts)
        size = min(DIMENSIONS, vectors.shape[0] - 1, vectors.shape[1] - 1)
        self._components = TruncatedSVD(max(size, 1), random_state=seed).fit(vectors).components_  # (size, words)

    def __call__(self, texts: Sequence[str]) -> np.ndarray:
        """(n, up to 64) of texts."""
        return self._vectorizer.transform(texts) @ self._components.T

    def state(self) -> tuple[list[str], dict[str, np.ndarray]]:
        """(words, arrays) that `restore` needs."""
        arrays = {"tfidf.idf": self._vectorizer.idf_, "tfidf.components": np.ascontiguousarray(self._components)}
        return self._vectorizer.get_feature_names_out().tolist(), arrays

    @classmethod
    def restore(cls, words: Sequence[str], arrays: Mapping[str, np.ndarray]) -> "Tfidf":
        """What the `state` is of. Raises KeyError or ValueError for what is none."""
        found = cls.__new__(cls)
        found._vectorizer = _vectorizer(words)
        found._vectorizer.idf_ = arrays["tfidf.idf"]
        found._components = arrays["tfidf.components"]
        return found


def _vectorizer(words: Sequence[str] | None = None) -> TfidfVectorizer:
    return TfidfVectorizer(
        ngram_range=(1, 2),
        sublinear_tf=True,
        max_features=None if words else VOCABULARY,
        token_pattern=r"(?u)\b\w+\b",
        dtype=np.float32,
        vocabulary=words,
    )
