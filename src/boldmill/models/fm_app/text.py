"""Phenotypes as words: the offline text encoder and the bank of phenotype texts.

Axes: K phenotypes, E width of text vectors.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from boldmill.atomic import atomic
from boldmill.errors import ConfigError

Floats = NDArray[np.float32]


class TextEncoder(Protocol):
    """Texts to unit vectors, with a fingerprint that is printed beside every metric."""

    def encode(self, texts: Sequence[str]) -> Floats:
        """Return float32 unit vectors (K, E)."""
        ...

    def fingerprint(self) -> str:
        """Return name and digest: two encoders with the same fingerprint give the same vectors."""
        ...


class HashedEncoder:
    """Hashed character 3- to 5-grams within words, E = 512, L2 norm 1: nothing is fitted, nothing is downloaded."""

    dimension = 512

    def encode(self, texts: Sequence[str]) -> Floats:
        """Return unit vectors (K, 512); lower case, accents stripped."""
        from sklearn.feature_extraction.text import HashingVectorizer

        vectorizer = HashingVectorizer(
            analyzer="char_wb", ngram_range=(3, 5), n_features=self.dimension, norm="l2", strip_accents="unicode"
        )
        return np.asarray(vectorizer.transform(list(texts)).toarray(), dtype=np.float32)

    def fingerprint(self) -> str:
        """Return ``hashed-512-<digest of the vector of a fixed sentence>``."""
        probe = self.encode(["Fluid intelligence, age-adjusted scale score (higher is better)"])
        return f"hashed-{self.dimension}-{hashlib.sha256(probe.tobytes()).hexdigest()[:8]}"


def encoder(name: str) -> TextEncoder:
    """Return a text encoder by its name in the configuration."""
    if name != "hashed":
        raise ConfigError("unknown text encoder", name, "only `hashed` works without weights", "use `hashed`")
    return HashedEncoder()


def phenotype_text(column: str, description: Mapping[str, Any], field: str) -> tuple[str, str]:
    """Return title and encoded text of a phenotype from its entry in ``participants.json``.

    Parameters
    ----------
    column : str
        Name of the column.
    description : mapping
        BIDS entry: ``LongName``, ``Description``, ...
    field : {"name", "title", "description", "title+description"}
        Which words are encoded; where the entry lacks them, the column name stands in.
    """
    spoken = column.replace("_", " ")
    title = str(description.get("LongName") or spoken)
    words = str(description.get("Description") or "")
    text = {"name": spoken, "title": title, "description": words or title}.get(field, f"{title}. {words}".strip())
    return title, text


@dataclass(frozen=True, slots=True, kw_only=True)
class TextBank:
    """Texts and vectors of phenotypes (the paper's phenotype text memory bank).

    Vectors handed out are centred with the mean of the ``reference`` phenotypes (the seen ones) and scaled to norm 1:
    raw sentence vectors share a large common part.
    """

    ids: tuple[str, ...]
    titles: tuple[str, ...]
    texts: tuple[str, ...]
    vectors: Floats
    reference: Floats
    fingerprint: str

    @classmethod
    def construct(cls, phenotypes: Mapping[str, tuple[str, str]], text_encoder: TextEncoder) -> TextBank:
        """Encode phenotypes given as ``{id: (title, text)}``, in the order of their ids; all are the reference."""
        ids = tuple(sorted(phenotypes))
        vectors = text_encoder.encode([phenotypes[name][1] for name in ids])
        # A single text has nothing to be compared with: centring would erase it.
        reference = vectors.mean(axis=0) if len(ids) > 1 else np.zeros_like(vectors[0])
        return cls(
            ids=ids,
            titles=tuple(phenotypes[name][0] for name in ids),
            texts=tuple(phenotypes[name][1] for name in ids),
            vectors=vectors,
            reference=reference.astype(np.float32),
            fingerprint=text_encoder.fingerprint(),
        )

    def add(self, name: str, title: str, text: str, text_encoder: TextEncoder) -> TextBank:
        """Return a bank with one more phenotype; the reference stays that of the seen ones."""
        if text_encoder.fingerprint() != self.fingerprint:
            raise ConfigError("wrong text encoder", name, f"the bank was made with {self.fingerprint}", "use that one")
        if name in self.ids:
            raise ConfigError("phenotype already in the bank", name, "its name is taken", "remove it first")
        return TextBank(
            ids=(*self.ids, name),
            titles=(*self.titles, title),
            texts=(*self.texts, text),
            vectors=np.concatenate([self.vectors, text_encoder.encode([text])]),
            reference=self.reference,
            fingerprint=self.fingerprint,
        )

    def remove(self, name: str) -> TextBank:
        """Return a bank without one phenotype; the reference does not change."""
        keep = [i for i, known in enumerate(self.ids) if known != name]
        return TextBank(
            ids=tuple(self.ids[i] for i in keep),
            titles=tuple(self.titles[i] for i in keep),
            texts=tuple(self.texts[i] for i in keep),
            vectors=self.vectors[keep],
            reference=self.reference,
            fingerprint=self.fingerprint,
        )

    def centre(self, vectors: Floats) -> Floats:
        """Return raw vectors (..., E) centred with the reference and scaled to norm 1."""
        centred = vectors - self.reference
        norm = np.linalg.norm(centred, axis=-1, keepdims=True)
        return np.asarray(centred / np.where(norm > 1e-8, norm, 1.0), dtype=np.float32)

    def matrix(self, ids: Sequence[str] | None = None) -> Floats:
        """Return centred vectors (K, E) of all phenotypes, or of those named."""
        rows = range(len(self.ids)) if ids is None else [self.ids.index(name) for name in ids]
        return self.centre(self.vectors[list(rows)])

    def nearest(self, vector: Floats, k: int = 1) -> list[tuple[str, float]]:
        """Return the ``k`` phenotypes nearest to a raw vector (E,): name and cosine of centred vectors."""
        cosine = self.matrix() @ self.centre(vector)
        order = sorted(range(len(self.ids)), key=lambda i: (-float(cosine[i]), self.ids[i]))
        return [(self.ids[i], float(cosine[i])) for i in order[:k]]

    def save(self, path: str | Path) -> Path:
        """Write the bank as npz (no pickle, the same bytes for the same bank)."""
        buffer = io.BytesIO()
        np.savez(
            buffer,
            ids=np.array(self.ids, dtype=np.str_),
            titles=np.array(self.titles, dtype=np.str_),
            texts=np.array(self.texts, dtype=np.str_),
            vectors=self.vectors,
            reference=self.reference,
            fingerprint=np.array(self.fingerprint),
        )
        with atomic(path) as temporary:
            temporary.write_bytes(buffer.getvalue())
        return Path(path)

    @classmethod
    def load(cls, path: str | Path) -> TextBank:
        """Read a bank of :meth:`save`."""
        with np.load(path, allow_pickle=False) as data:
            return cls(
                ids=tuple(map(str, data["ids"])),
                titles=tuple(map(str, data["titles"])),
                texts=tuple(map(str, data["texts"])),
                vectors=data["vectors"],
                reference=data["reference"],
                fingerprint=str(data["fingerprint"]),
            )
