"""Built-in inequalities with complete proofs: nothing to download.

A row has a `statement` ("a^2+b^2 >= 2ab for a, b > 0"), a `proof` (one step a line, in the language
of `tasks.proofs`), a `technique` and its number of `steps`. Statements are made forward: a known
inequality is written with drawn monomials and numbers, several are put together, so each is true.
Nothing of the checker is used here: either finds the other's faults.

No two rows say the same, of one split or of two: a row's key is left - right over what both sides
have in common, divided by what its numbers share, in any letters. A template is the same without
numbers: `train`, `test` and `composed` share none.

A composition says which techniques a proof puts together, and by which step. The six of `composed`
are pairs that no training row has, in any step:

    Sum: Cauchy + Titu, square + Titu, square + Cauchy    each pair new
    Times: Titu                                           `Times` is learnt with other techniques
    Product: square + fractions, + weighted AM-GM         `Product` is learnt with AM-GM alone
"""

import hashlib
import random
from collections.abc import Callable, Iterator, Mapping
from itertools import islice

from nblib.sources.inequality_families import FAMILIES
from nblib.sources.inequality_parts import (
    Draw,
    Known,
    Side,
    drawn_numbers,
    have_same_terms,
    normal,
    times,
    unlike_numbers,
)
from nblib.sources.rows import Row

SPLITS = ("train", "test", "composed")
_SALT = 5  # by it every technique has many templates on each side
_MOST_CHARACTERS = 100  # of a statement; a longer one is drawn again
_MOST_OF_PROOF = 280  # characters of a proof's parts
_MOST_DRAWS = 300  # of a technique without a new statement; it is left out from then on

# What is put together, by which step; pairs of the second table are in the split `composed` alone.
_LEARNT = (
    *("Sum: AM-GM + AM-GM", "Sum: AM-GM + Titu", "Sum: weighted AM-GM + fractions"),
    *("Sum: Cauchy + AM-GM", "Sum: fractions + Titu", "Sum: Titu + weighted AM-GM"),
    *("Times: AM-GM", "Times: fractions", "Times: Cauchy", "Product: AM-GM + AM-GM"),
    "Product: weighted AM-GM + AM-GM",
)
_HELD_OUT = (
    *("Sum: Cauchy + Titu", "Sum: square + Titu", "Sum: square + Cauchy", "Times: Titu"),
    *("Product: square + fractions", "Product: square + weighted AM-GM"),
)


def inequalities(count: int, *, seed: int, split: str) -> tuple[Row, ...]:
    """Return `count` statements with their proofs, no two of which say the same.

    Raises ValueError for an unknown split, and where there are not so many.
    """
    if split not in SPLITS:
        raise ValueError(f"split is {split!r}, expected one of {', '.join(SPLITS)}")
    salt = seed if split == "train" else "fixed"
    drawn = _drawn(random.Random(f"{split}/{salt}"), split)
    rows = tuple(
        _row(f"inequalities/{split}/{n}", *one) for n, one in enumerate(islice(drawn, count))
    )
    if len(rows) < count:
        raise ValueError(f"{count} inequalities of {split}: expected at most {len(rows)}")
    return rows


def _row(name: str, statement: str, known: Known, technique: str) -> Row:
    proof = "\n".join(f"{rule}: {left} >= {right}" for rule, left, right in known.steps)
    fields = {"statement": statement, "proof": proof, "technique": technique}
    return Row(id=name, fields={**fields, "steps": len(known.steps)}, group=technique)


def _drawn(rng: random.Random, split: str) -> Iterator[tuple[str, Known, str]]:
    """Yield statements of a split, the techniques in turn, as long as one has others to draw."""
    left = [*(_HELD_OUT if split == "composed" else (*FAMILIES, *_LEARNT))]
    seen, tried = set[str](), set[str]()
    while left:
        for technique in tuple(left):
            for _ in range(_MOST_DRAWS):
                found = _statement(technique, rng, split, tried)
                if found and (key := normal(found[1], numbers=True)) not in seen:
                    seen.add(key)
                    yield *found, technique
                    break
            else:
                left.remove(technique)


def _statement(
    technique: str, rng: random.Random, split: str, tried: set[str]
) -> tuple[str, Known] | None:
    """Draw a statement; None for one that is not of the split, or badly written."""
    shape = rng.random()
    draw, known = _made(technique, random.Random(shape), drawn_numbers(rng))
    statement = _written(draw, known)
    named = all(letter in statement.partition(" for ")[0] for letter in draw.letters)
    if not named or statement in tried or _is_long(statement, known) or _repeats(known):
        return None
    tried.add(statement)
    _, other = _made(technique, random.Random(shape), unlike_numbers())
    if not have_same_terms(known, other):  # some cancel by their numbers
        return None
    return (statement, known) if _split_of(normal(known, numbers=False)) == split else None


def _written(draw: Draw, known: Known) -> str:
    letters = ", ".join(draw.letters)
    domain = f"real {letters}" if known.domain == "real" else f"{letters} > 0"
    given = f" with {known.given[0].text} = {known.given[1].text}" if known.given else ""
    return f"{known.left.text} >= {known.right.text} for {domain}{given}"


def _made(technique: str, rng: random.Random, number: Callable[[int], int]) -> tuple[Draw, Known]:
    operation, _, parts = technique.partition(": ")
    if not parts:
        form, sizes = rng.choice(FAMILIES[technique])
        draw = Draw(rng, number, sizes)
        return draw, form(draw)
    draw = Draw(rng, number)
    known = [_part(draw, one, operation) for one in parts.split(" + ")]
    return draw, _PUT_TOGETHER[operation](draw, *known)


def _part(draw: Draw, technique: str, operation: str) -> Known:
    """Draw what is put together; a product needs a single term on each right side."""
    while True:
        known = draw.rng.choice(FAMILIES[technique])[0](draw)
        if known.product or operation != "Product":
            return known


def _added(draw: Draw, one: Known, other: Known) -> Known:
    """Put two inequalities together by a sum."""
    return _together("Sum (1)+(2)", (one, other), one.left + other.left, one.right + other.right)


def _multiplied(draw: Draw, one: Known, other: Known) -> Known:
    """Put two inequalities, each with a single term on its right, together by a product."""
    (p, u), (q, v) = one.product or (0, ()), other.product or (0, ())
    right = draw.side((p * q, times(u, v)))
    return _together("Product (1)(2)", (one, other), one.left * other.left, right)


def _together(head: str, known: tuple[Known, Known], left: Side, right: Side) -> Known:
    steps = tuple(step for one in known for step in one.steps)  # each has one
    return Known(left=left, right=right, steps=(*steps, (head, left.text, right.text)))


def _scaled(draw: Draw, one: Known) -> Known:
    """Multiply an inequality by a sum of variables."""
    p, q = draw.number(3), draw.number(3)
    while p == q and len(one.right.bottom) > 1:  # (a+b)/(a+b)
        p, q = draw.number(3), draw.number(3)
    factor = draw.side((p, draw.variable(0)), (q, draw.variable(1)))
    left, right = one.left * factor, one.right * factor
    last = (f"Times {factor.text} (1)", left.text, right.text)
    return Known(left=left, right=right, steps=(*one.steps, last))


_PUT_TOGETHER: Mapping[str, Callable[..., Known]] = {
    "Sum": _added,
    "Times": _scaled,
    "Product": _multiplied,
}


def _is_long(statement: str, known: Known) -> bool:
    proof = sum(len(part) for step in known.steps for part in step)
    return len(statement) > _MOST_CHARACTERS or proof > _MOST_OF_PROOF


def _repeats(known: Known) -> bool:
    """Whether a side says the same term twice, which a person would have added up."""
    return any(
        len(terms) > len({*terms})
        for side in (known.left, known.right)
        for terms in [[term.lstrip("0123456789") for term in side.text.split("+")]]
    )


def _split_of(template: str) -> str:
    """Return the split that has a template."""
    digest = int(hashlib.sha256(f"{_SALT}{template}".encode()).hexdigest(), 16) % 16
    return "test" if digest < 3 else "composed" if digest == 3 else "train"
