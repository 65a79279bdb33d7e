"""Which instructions count bits on a target: one row per ISA file."""

from __future__ import annotations

from dataclasses import dataclass

from bitc.target import Target


@dataclass(frozen=True)
class BitIsa:
    """Primitives over packed words: ``bitc_dot`` and ``bitc_dot_masked``, for `lanes` outputs at once."""

    template: str
    word: int
    """Bits of the words that the primitives take."""
    lanes: int
    """Outputs per step; their weights are interleaved word by word."""
    needs: frozenset[str] = frozenset()
    """Features of the target."""
    word_bits: int = 32
    """Least `Target.word_bits`."""
    cost: float = 10.0
    """Instructions per 32 binary MACs."""

    adders: bool = False
    """Whether words are added by carry-save adders, eight and three at once."""

    def steps(self, k: int, word: int) -> dict[str, int]:
        """The steps of one block of outputs over k words of `word` bits."""
        if not self.adders:
            return {f"steps{word}": k, f"flushes{word}": -(-k // 31)}
        eights = k // 8  # compilers unroll a few
        return {
            "outputs": 1,
            "eights": eights,
            "looped eights": eights if eights > 4 else 0,
            "weighted": int(eights > 0),
            "several": int(eights > 1),  # one round of eight is no loop
            "threes": k % 8 // 3,
            "ones": k % 8 % 3,
        }


ISAS = (
    BitIsa("isa/lanes.j2", 64, 8, frozenset(), 64, 2.0),
    BitIsa("isa/neon.j2", 64, 8, frozenset({"neon"}), 64, 1.9),
    BitIsa("isa/neon.j2", 32, 8, frozenset({"neon"}), 32, 1.95),
    BitIsa("isa/simd128.j2", 64, 8, frozenset({"simd128"}), 64, 1.9),
    BitIsa("isa/simd128.j2", 32, 8, frozenset({"simd128"}), 32, 1.95),
    BitIsa("isa/mve_bits.j2", 32, 4, frozenset({"mve"}), 32, 3.0, True),
    BitIsa("isa/usada8.j2", 32, 1, frozenset({"dsp"}), 32, 11.2, True),
    BitIsa("isa/swar32.j2", 32, 1, frozenset({"unaligned"}), 32, 11.3, True),  # Armv7-M: shifted operands
    BitIsa("isa/swar32.j2", 32, 1, frozenset(), 32, 18.0, True),
)


def bit_isa(target: Target) -> BitIsa:
    """The cheapest ISA row that the target can run."""
    able = [i for i in ISAS if i.needs <= target.features and i.word_bits <= target.word_bits]
    return min(able, key=lambda i: i.cost)
