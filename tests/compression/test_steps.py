"""Each step on one layer: the weights have the promised form, and the data is used to keep its output."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from bitc.compression import parse
from bitc.compression.binarize import two_levels
from bitc.compression.feedback import compensated, hessian
from bitc.compression.layerwise import LayerStep, corrected, refitted, replaced
from bitc.compression.prune import Prune
from bitc.compression.share import codebook
from bitc.errors import UsageError

RNG = np.random.default_rng(0)
W = RNG.normal(size=(12, 40)).astype(np.float32)
MIX = RNG.normal(size=(40, 40)) * np.linspace(0.1, 2, 40)
X = (RNG.normal(size=(500, 40)) @ MIX).astype(np.float32)
"""Inputs that depend on each other: what one weight loses another can make up for."""


def after(text: str) -> Any:
    step = parse(text)
    assert isinstance(step, LayerStep)
    return replaced(step, W, [X])


def error(w: Any) -> float:
    return float(np.square(X @ (W - w).T).mean())


def test_binary_weights_are_two_valued_per_channel() -> None:
    w = after("binarize")
    assert all(len(np.unique(np.abs(row))) == 1 for row in w)


@pytest.mark.parametrize("bases", [2, 3])
def test_more_bases_give_more_levels_and_less_error(bases: int) -> None:
    w = after(f"binarize:bases={bases}")
    assert all(len(np.unique(row)) <= 2**bases for row in w)
    assert error(w) < error(after(f"binarize:bases={bases - 1}"))


def test_salient_weights_stay_on_an_int8_grid() -> None:
    w = after("binarize:salient=0.1")
    levels = [np.unique(np.round(np.abs(row), 6), return_counts=True) for row in w]
    others = sum(int(counts.sum() - counts.max()) for _, counts in levels)
    assert others <= round(0.1 * w.size)
    assert error(w) < error(after("binarize"))


def test_salient_by_magnitude_are_the_largest() -> None:
    w = np.abs(after("binarize:salient=0.1,by=magnitude"))
    most = np.array(
        [np.unique(row, return_counts=True)[0][np.unique(row, return_counts=True)[1].argmax()] for row in w]
    )
    kept = w != most[:, None]
    assert np.abs(W[kept]).min() >= np.sort(np.abs(W), axis=None)[-round(0.1 * W.size)]


@pytest.mark.parametrize("text", ["ternarize", "ternarize:scale=absmedian", "ternarize:per=tensor"])
def test_ternary_weights(text: str) -> None:
    w = after(text)
    for row in [w] if "tensor" in text else w:
        assert len(np.unique(np.abs(row[row != 0]))) == 1
    assert 0 < (w == 0).mean() < 0.7


@pytest.mark.parametrize("by", ["saliency", "magnitude"])
def test_sparsity_is_as_asked(by: str) -> None:
    assert (after(f"prune:sparsity=0.75,by={by}") == 0).sum() == round(0.75 * W.size)


@pytest.mark.parametrize(("n", "m"), [(2, 4), (1, 4), (4, 8), (2, 8)])
def test_n_of_m(n: int, m: int) -> None:
    assert ((after(f"prune:pattern={n}:{m}").reshape(12, -1, m) != 0).sum(axis=2) == n).all()


@pytest.mark.parametrize(("pattern", "rows"), [("2:4x4", 4), ("1:4x8", 8), ("4:8x5", 5)])
def test_n_of_m_of_several_outputs(pattern: str, rows: int) -> None:
    n, m = Prune(pattern=pattern).pair
    w = after(f"prune:pattern={pattern}")
    for first in range(0, 12, rows):
        alike = w[first : first + rows] != 0
        assert (alike == alike[0]).all() and (alike[0].reshape(-1, m).sum(axis=1) == n).all()


def test_neighbours_are_channels_of_a_tap() -> None:
    step = Prune(pattern="2:4")
    w = replaced(step, W[:, :36], [X[:, :36]], taps=9)  # four channels of nine taps
    assert ((w.reshape(12, 4, 9) != 0).sum(axis=1) == 2).all()


def test_a_rest_shorter_than_m() -> None:
    mask = Prune(pattern="2:4").mask(np.abs(RNG.normal(size=(3, 7))))
    assert (mask[:, :4].sum(axis=1) == 2).all() and (mask[:, 4:].sum(axis=1) == 2).all()


def test_blocks_go_together() -> None:
    blocks = (after("prune:sparsity=0.5,pattern=4x2") != 0).reshape(3, 4, 20, 2).any(axis=(1, 3))
    full = (after("prune:sparsity=0.5,pattern=4x2") != 0).reshape(3, 4, 20, 2).all(axis=(1, 3))
    assert blocks.sum() == full.sum() == 30


def test_gradual_levels_end_where_they_should() -> None:
    stages = Prune(0.9, levels=4).stages()
    shares = [s.sparsity for s in stages]
    assert shares == sorted(shares) and shares[-1] == pytest.approx(0.9) and len(stages) == 4


@pytest.mark.parametrize("entries", [4, 16])
def test_shared_weights(entries: int) -> None:
    assert len(np.unique(after(f"share:entries={entries}"))) <= entries
    rows = after(f"share:entries={entries},channels=3")
    assert all(len(np.unique(rows[i : i + 3])) <= entries for i in range(0, 12, 3))


def test_a_codebook_finds_clusters_and_keeps_zero() -> None:
    values = np.repeat([-2.0, 0.0, 0.5, 3.0], [10, 100, 20, 10])
    np.testing.assert_allclose(codebook(values, np.ones(values.size), 4), [-2, 0, 0.5, 3])


@pytest.mark.parametrize("text", ["binarize", "ternarize", "prune:sparsity=0.6", "share:entries=4"])
def test_feedback_helps(text: str) -> None:
    """Against the same replacement without it: inputs taken as independent."""
    step = parse(text)
    assert isinstance(step, LayerStep)
    wide = W.astype(np.float64)
    plain = compensated(wide, np.eye(40), step.start(wide, hessian(X)))
    assert error(after(text)) < 0.9 * error(plain)


def test_correction_finds_scale_and_bias() -> None:
    target = (X @ W.T * 1.5 + 3).astype(np.float64)
    w, bias = corrected(W, [X], target)
    np.testing.assert_allclose(w, 1.5 * W, rtol=1e-3)
    np.testing.assert_allclose(bias, 3, atol=1e-2)


def test_refitting_moves_towards_the_target_and_keeps_zeros() -> None:
    start = np.where(RNG.random(W.shape) < 0.3, 0, W).astype(np.float32)
    w, bias = refitted(start, [X], (X @ W.T).astype(np.float64))
    assert (w[start == 0] == 0).all()
    assert np.square(X @ (W - w).T - bias).mean() < 0.7 * error(start)


def test_two_levels() -> None:
    t, low, high = two_levels(np.array([-3.0, -1, 1, 3, 2, -2], np.float32))
    assert (t, low, high) == (0, -2, 2)
    t, low, high = two_levels(np.array([0, 0, 0, 4, 5, 6], np.float32))
    assert low == 0 and high == pytest.approx(5) and 0 < t < 4


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("shrink", "there is no step"),
        ("prune:amount=1", "no option of prune"),
        ("prune:sparsity=lots", "not a number"),
        ("prune:sparsity=1.5", "sparsity must be"),
        ("prune:pattern=4:2", "N below M"),
        ("prune:pattern=often", "pattern must be"),
        ("prune:pattern=4", "pattern must be"),
        ("prune:pattern=2:4x", "pattern must be"),
        ("prune:pattern=4:2x4", "N below M"),
        ("binarize:bases=9", "bases must be"),
        ("binarize:by=luck", "by must be"),
        ("quantize:method=mean", "method must be"),
        ("quantize:zero=0", "zero must be"),
        ("share:entries=5", "entries must be"),
        ("ternarize:scale=max", "scale must be"),
        ("channels:share=1", "share must be"),
    ],
)
def test_bad_options(text: str, why: str) -> None:
    with pytest.raises(UsageError, match=why) as e:
        parse(text)
    assert text in str(e.value) and e.value.hint
