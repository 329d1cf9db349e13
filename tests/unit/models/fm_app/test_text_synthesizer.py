from __future__ import annotations

import dataclasses

import numpy as np
import pandas as pd
import pytest

from boldmill.errors import ConfigError
from boldmill.models.fm_app.config import FmAppConfig
from boldmill.models.fm_app.phenotypes import choose, number, numbers
from boldmill.models.fm_app.synthesizer import Synthesizer
from boldmill.models.fm_app.text import HashedEncoder, TextBank, encoder, phenotype_text

WORDS = {
    "recall": ("Recall", "recall of word lists, memory score"),
    "memory": ("Memory", "picture sequence memory score"),
    "grip": ("Grip", "grip strength of the hand"),
}


def test_hashed_vectors_are_unit_and_stable():
    vectors = HashedEncoder().encode(["Fluid intelligence", "Fluid Intelligence", "grip strength"])
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, rtol=1e-6)
    assert (vectors[0] == vectors[1]).all()
    assert HashedEncoder().fingerprint() == HashedEncoder().fingerprint()
    with pytest.raises(ConfigError, match="unknown text encoder"):
        encoder("biomedclip")


def test_bank_add_nearest_and_order(tmp_path):
    bank = TextBank.construct(WORDS, HashedEncoder())
    assert bank.ids == ("grip", "memory", "recall")
    assert TextBank.construct(dict(reversed(list(WORDS.items()))), HashedEncoder()).ids == bank.ids
    np.testing.assert_allclose(np.linalg.norm(bank.matrix(), axis=1), 1, rtol=1e-5)
    query = HashedEncoder().encode(["strength of the grip, left hand"])[0]
    assert bank.nearest(query)[0][0] == "grip"
    assert len(bank.nearest(query, 3)) == 3
    more = bank.add("legs", "Legs", "strength of the legs", HashedEncoder())
    assert more.ids[-1] == "legs"
    np.testing.assert_array_equal(more.reference, bank.reference)  # centred with the seen mean
    np.testing.assert_array_equal(more.matrix(bank.ids), bank.matrix())
    assert more.remove("legs").ids == bank.ids
    with pytest.raises(ConfigError, match="already in the bank"):
        more.add("legs", "", "", HashedEncoder())

    one, two = more.save(tmp_path / "a.npz"), more.save(tmp_path / "b.npz")
    assert one.read_bytes() == two.read_bytes()
    back = TextBank.load(one)
    for field in dataclasses.fields(TextBank):
        np.testing.assert_array_equal(getattr(back, field.name), getattr(more, field.name))


def test_a_single_phenotype_keeps_its_vector():
    bank = TextBank.construct({"a": ("A", "fluid intelligence")}, HashedEncoder())
    np.testing.assert_allclose(np.linalg.norm(bank.matrix()), 1, rtol=1e-5)


def test_text_fields():
    entry = {"LongName": "Grip", "Description": "strength of the hand"}
    assert phenotype_text("grip_l", entry, "name") == ("Grip", "grip l")
    assert phenotype_text("grip_l", entry, "title")[1] == "Grip"
    assert phenotype_text("grip_l", entry, "description")[1] == "strength of the hand"
    assert phenotype_text("grip_l", entry, "title+description")[1] == "Grip. strength of the hand"
    assert phenotype_text("grip_l", {}, "description")[1] == "grip l"


def simulate(kind, linked, seed):
    """Mean signed r of the synthesiser and of the plain mean over unseen phenotypes."""
    rng = np.random.default_rng(seed)
    k, dim, d, n = 20, 32, 12, 300
    text = rng.standard_normal((k + 6, dim))
    text[:, 6:] *= 0.2  # words vary along few topics
    text = text - text[:k].mean(axis=0)
    text /= np.linalg.norm(text, axis=1, keepdims=True)
    into = rng.standard_normal((dim, d))
    weights = text @ into if linked else rng.standard_normal((k + 6, d)) * 2
    features = rng.standard_normal((n, d))
    fitted = Synthesizer.fit(kind, text[:k], weights[:k])
    seen = features @ weights[:k].T
    ours, mean = [], []
    for j in range(k, k + 6):
        truth = features @ weights[j]
        ours.append(np.corrcoef(features @ fitted.weight(text[j]), truth)[0, 1])
        mean.append(np.corrcoef(seen.mean(axis=1), truth)[0, 1])
    return np.mean(ours), np.mean(mean)


@pytest.mark.parametrize("kind", ["ridge", "kernel"])
def test_synthesiser_beats_the_plain_mean_only_where_words_matter(kind):
    linked = np.array([simulate(kind, True, seed) for seed in range(6)])
    free = np.array([simulate(kind, False, seed) for seed in range(6)])
    assert (linked[:, 0] - linked[:, 1]).min() > 0.3
    assert abs((free[:, 0] - free[:, 1]).mean()) < 0.15


def test_mixing_coefficients_sum_to_one_and_follow_order():
    rng = np.random.default_rng(0)
    text, weights = rng.standard_normal((5, 8)), rng.standard_normal((5, 3))
    query = rng.standard_normal(8)
    for kind in ("ridge", "kernel"):
        one = Synthesizer.fit(kind, text, weights)
        assert one.mix(query).sum() == pytest.approx(1)
        order = rng.permutation(5)
        two = Synthesizer.fit(kind, text[order], weights[order])
        np.testing.assert_allclose(two.weight(query), one.weight(query), atol=1e-10)
    alone = Synthesizer.fit("ridge", text[:1], weights[:1])
    np.testing.assert_allclose(alone.weight(query), weights[0])


def test_selection_ignores_directions_no_scan_uses():
    rng = np.random.default_rng(1)
    text = rng.standard_normal((12, 4))
    used = text @ rng.standard_normal((4, 3))
    weights = np.hstack([used, 50 * rng.standard_normal((12, 3))])  # the second half meets features that are 0
    pooled = np.zeros((40, 12, 6))
    pooled[..., :3] = rng.standard_normal((40, 1, 3))
    assert Synthesizer.fit("ridge", text, weights, pooled).setting < Synthesizer.fit("ridge", text, weights).setting


TABLE = pd.DataFrame({"age": [20, 30, 40, None], "sex": ["F", "M", "F", "M"], "code": [1, 2, 1, 2],
                      "lab": [1.0, 99999, 3.0, 5.0], "dull": [1, 1, 1, 1]})  # fmt: skip
# fmt: off
ENTRIES = {"d": {"age": {"Description": "age"}, "sex": {"Description": "sex"}, "lab": {"Description": "a lab value"},
                 "code": {"Description": "group", "Levels": {"1": "a", "2": "b"}}, "dull": {"Description": "x"}}}
# fmt: on


def test_numeric_columns_with_words_are_chosen():
    assert list(choose(TABLE, ENTRIES, FmAppConfig()).seen) == ["age", "lab"]
    chosen = choose(TABLE, ENTRIES, FmAppConfig(unseen=["lab"]))
    assert list(chosen.seen) == ["age"]
    assert chosen.unseen == {"lab": ("lab", "lab. a lab value")}
    assert list(choose(TABLE, ENTRIES, FmAppConfig(phenotypes=["code"])).seen) == ["code"]
    with pytest.raises(ConfigError, match="did you mean 'lab'"):
        choose(TABLE, ENTRIES, FmAppConfig(unseen=["labb"]))
    with pytest.raises(ConfigError, match="nothing to learn"):
        choose(TABLE[["sex"]], ENTRIES, FmAppConfig())


def test_sentinels_and_words_are_missing_values():
    values = numbers(TABLE, ["lab", "absent", "age"], {"lab": [99999]})
    assert np.isnan(values[1, 0])
    assert np.isnan(values[:, 1]).all()
    assert np.isnan(values[3, 2])
    assert np.isnan(number("n/a"))
