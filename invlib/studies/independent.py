"""Independent: a second embedder, so that texts made to please the attacked encoder are found out.

TF-IDF of words, reduced by a truncated SVD (latent semantic analysis, Deerwester et al. 1990), fitted on the very
sentences that are scored. It sees shared and co-occurring words and nothing else: a paraphrase in other words scores
low. It needs no download and shares nothing with a neural encoder.
"""

from collections.abc import Sequence

import numpy as np
from sklearn.decomposition import TruncatedSVD
from sklearn.feature_extraction.text import TfidfVectorizer

from invlib.errors import InputError
from invlib.metrics import words

DIMENSIONS = 128


class LatentSemantic:
    """Fit one on sentences, then `cosines(references, texts)`."""

    def __init__(self, sentences: Sequence[str], *, dimensions: int = DIMENSIONS):
        """Raises `InputError` for fewer than three sentences, or for sentences without any word."""
        if len(sentences) < 3:
            raise InputError(f"the independent embedder is fitted on at least 3 sentences, got {len(sentences)}")
        self._tfidf = TfidfVectorizer(analyzer=words, sublinear_tf=True)
        try:
            table = self._tfidf.fit_transform(sentences)
        except ValueError:  # an empty vocabulary
            raise InputError("the sentences hold no word to fit the independent embedder on") from None
        keep = max(1, min(dimensions, min(table.shape) - 1))
        self._svd = TruncatedSVD(keep, random_state=0).fit(table)

    def encode(self, texts: Sequence[str]) -> np.ndarray:
        """Texts → [n, dimensions]; all zeros for a text without a word that was fitted."""
        return self._svd.transform(self._tfidf.transform(texts))

    def cosines(self, references: Sequence[str], texts: Sequence[str]) -> np.ndarray:
        """Cosine of each text to its reference, [n]; 0 where one of them has no word that was fitted."""
        a, b = self.encode(references), self.encode(texts)
        norms = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
        return np.divide((a * b).sum(axis=1), norms, out=np.zeros(len(a)), where=norms > 0)
