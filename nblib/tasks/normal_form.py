"""Normal forms of statements: two that say the same in other words have one key.

    a^2+b^2 >= 2ab for a, b > 0         x/y+y/x >= 2 for x, y > 0         one key
    a^2+b^2 >= 3ab for a, b > 0                                           another key

The same are statements with other letters, in another order, turned round, scaled (both sides times
a positive number), with terms moved, or multiplied by their denominators. The key is the numerator
of left - right, divided by what its numbers and its positive variables have in common, in those
letters that make its text the smallest.

Not seen: that a hypothesis was used to rewrite the claim; a factor other than a variable on both
sides, as in (a+b)x >= (a+b)y; one scale for all variables where the claim or a hypothesis mixes
degrees; what an identity of roots rewrites, and denominators beside roots. An expression with
roots, or one above the limits of `polynomials`, is a sum whose roots and denominators are units.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import combinations
from typing import Any

from nblib.tasks.normal_sums import Sum, gaps
from nblib.tasks.statements import POSITIVE, REAL, Statement

_LARGE = 10_000  # bits of a number
_Written = Callable[[Fraction], str]  # how a coefficient is written


@dataclass(frozen=True)
class _Part:
    """A claim or a hypothesis: the sum has the sign, the other sum is not 0."""

    sign: str
    left: Sum
    other: Sum


def statement_key(statement: Statement) -> str:
    """Return a text that is the same for statements that say the same in other words.

    >>> statement_key(parse_statement("2x/y >= 4-2y/x for x, y > 0"))
    '+1*a^2+1*b^2-2*a*b >= 0 for a >, b >'
    """
    return _least(statement, _number)


def template_key(statement: Statement) -> str:
    """Return the key without its numbers: of each coefficient only the sign is left."""
    return _least(statement, lambda _: "")


def _number(value: Fraction) -> str:
    """Return a number as text; a large one by its digits in base 16: Python writes no others."""
    if max(map(int.bit_length, value.as_integer_ratio())) < _LARGE:
        return str(value)
    return f"{value.numerator:x}/{value.denominator:x}"


def _least(statement: Statement, written: _Written) -> str:
    """Return the smallest text of a statement, its letters being named a, b, c in any order."""
    claim, *given = _parts(statement)
    letters = sorted(_letters([claim, *given]))

    def text(names: Mapping[str, str]) -> str:
        parts = [_part_text(one, names, written) for one in (claim, *given)]
        domain = sorted(f"{names[letter]} {statement.variables[letter]}" for letter in letters)
        behind = f" with {', '.join(sorted(parts[1:]))}" if given else ""
        return f"{parts[0]} for {', '.join(domain)}{behind}"

    own = {letter: letter for letter in letters}
    twins = {letter: letter for letter in letters}  # those that can change places
    for one, other in combinations(letters, 2):
        if twins[other] == other and text(own) == text({**own, one: other, other: one}):
            twins[other] = twins[one]
    return min(_namings(text, dict.fromkeys(letters, 0), twins))


def _namings(
    text: Callable[[Mapping[str, str]], str], ranks: dict[str, int], twins: Mapping[str, str]
) -> Iterator[str]:
    """Yield texts, with each naming that the places of letters in the text do not decide."""
    ranks = _refined(text, ranks)
    shared = [rank for rank in ranks.values() if [*ranks.values()].count(rank) > 1]
    if not shared:
        yield text({letter: chr(ord("a") + rank) for letter, rank in ranks.items()})
        return
    rank = min(shared)
    first = {twins[letter]: letter for letter in ranks if ranks[letter] == rank}
    for chosen in first.values():
        behind = {letter: one + (one == rank) for letter, one in ranks.items()}
        yield from _namings(text, {**behind, chosen: rank}, twins)


def _refined(text: Callable[[Mapping[str, str]], str], ranks: dict[str, int]) -> dict[str, int]:
    """Rank letters by what the text says of them, until that tells no more of them apart.

    Ranks leave room for those that share one: 0, 1, 1, 3.
    """
    while True:
        seen = {}
        for letter, rank in ranks.items():
            names = {other: f"#{one}" for other, one in ranks.items()}
            seen[letter] = rank, text({**names, letter: "#"})
        order = sorted(seen.values())
        found = {letter: order.index(one) for letter, one in seen.items()}
        if found == ranks or len({*found.values()}) == len({*ranks.values()}):
            return found
        ranks = found


def _part_text(part: _Part, names: Mapping[str, str], written: _Written) -> str:
    texts = [_sum_text(part.left, names, written)]
    if part.sign in ("=", "!="):  # -a = 0 says the same
        texts.append(_sum_text(_negative(part.left), names, written))
    bottom = ""
    if part.other:
        both = (part.other, _negative(part.other))
        bottom = f", {min(_sum_text(one, names, written) for one in both)} != 0"
    return f"{min(texts)} {part.sign} 0{bottom}"


def _negative(one: Sum) -> Sum:
    return frozenset((monomial, -coefficient) for monomial, coefficient in one)


def _sum_text(terms: Sum, names: Mapping[str, str], written: _Written) -> str:
    """Return the terms in the order of their texts."""
    texts = []
    for monomial, coefficient in terms:
        units = []
        for unit, exponent in monomial:
            name = names[unit] if isinstance(unit, str) else _unit_text(unit, names, written)
            units.append(f"*{name}^{exponent}" if exponent != 1 else f"*{name}")
        sign, number = "-" if coefficient < 0 else "+", written(abs(coefficient))
        texts.append(f"{sign}{number}{''.join(sorted(units))}")
    return "".join(sorted(texts)) or "0"


def _unit_text(unit: Any, names: Mapping[str, str], written: _Written) -> str:
    if isinstance(unit, Fraction):
        return f"({written(unit)})"
    return f"({_sum_text(unit, names, written)})"


def _letters(parts: Sequence[_Part]) -> set[str]:
    """Return the letters that are left."""
    found, sums = set[str](), [side for one in parts for side in (one.left, one.other)]
    while sums:
        for unit in (unit for monomial, _ in sums.pop() for unit, _ in monomial):
            if isinstance(unit, str):
                found.add(unit)
            elif isinstance(unit, frozenset):
                sums.append(unit)
    return found


def _parts(statement: Statement) -> list[_Part]:
    """Return the claim, and the hypotheses that say more than the signs of variables."""
    signs, relations = statement.variables, (statement.claim, *statement.hypotheses)
    sides = gaps(relations, signs)
    claim, *given = (_Part(one.sign, *both) for one, both in zip(relations, sides, strict=True))
    return [claim, *{one for one in given if not _holds(one, signs)}]


def _holds(part: _Part, signs: Mapping[str, str]) -> bool:
    """Whether the signs of variables say that a hypothesis holds."""
    if part.sign == "=" or not part.left:
        return not part.left and part.sign in ("=", ">=")
    never_negative = all(
        coefficient > 0
        and all(signs.get(unit, REAL) != REAL or not exponent % 2 for unit, exponent in one)
        for one, coefficient in part.left
    )
    above = any(all(signs.get(u) == POSITIVE for u, _ in one) for one, _ in part.left)
    return never_negative and (above or part.sign == ">=") and not part.other
