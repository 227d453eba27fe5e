"""Built-in inequalities with complete proofs: nothing to download.

A row has a `statement` ("a^2+b^2 >= 2ab for a, b > 0"), a `proof` (one step a line, in the language
of `tasks.proofs`), a `technique` and its number of `steps`. Statements are made forward: a known
inequality is written with drawn monomials and numbers, several are put together, so each is true.
Nothing of the checker is used here: either finds the other's faults.

A template is a statement without its numbers: the monomials in it, with any letters. `train` and
`test` never share one. A composition says which techniques a proof puts together, and by which
step: those of the split `composed` are in no other.
"""

import hashlib
import random
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from itertools import permutations

from nblib.sources.inequality_families import FAMILIES
from nblib.sources.inequality_parts import Draw, Known, Side, times
from nblib.sources.rows import Row

SPLITS = ("train", "test", "composed")
_TEST_EVERY = 5  # of the templates, one in so many is for the test split
_SALT = 7  # by it every technique has templates on both sides
_MOST_CHARACTERS = 100  # of a statement; a longer one is drawn again
_MONOMIAL = re.compile(r"(?:[a-z](?:\^\d+)?)+")
_POWER = re.compile(r"([a-z])(\^\d+)?")

# What is put together, by which step. The second table's are in the split `composed` alone.
_LEARNT = (
    *("Sum: AM-GM + AM-GM", "Sum: AM-GM + Titu", "Sum: weighted AM-GM + fractions"),
    *("Sum: Cauchy + AM-GM", "Sum: fractions + Titu", "Sum: Titu + weighted AM-GM"),
    *("Times: AM-GM", "Times: fractions", "Times: Cauchy", "Product: AM-GM + AM-GM"),
    "Product: weighted AM-GM + AM-GM",
)
_HELD_OUT = (
    *("Sum: weighted AM-GM + AM-GM", "Sum: Cauchy + Titu", "Sum: fractions + AM-GM"),
    *("Times: weighted AM-GM", "Times: Titu", "Product: weighted AM-GM + weighted AM-GM"),
)


def inequalities(count: int, *, seed: int, split: str) -> tuple[Row, ...]:
    """Return `count` different statements with their proofs.

    Raises ValueError for an unknown split.
    """
    if split not in SPLITS:
        raise ValueError(f"split is {split!r}, expected one of {', '.join(SPLITS)}")
    salt = seed if split == "train" else "fixed"
    rows: dict[str, Row] = {}
    for statement, known, technique in _drawn(random.Random(f"{split}/{salt}"), split):
        if len(rows) == count:
            break
        if statement in rows:
            continue
        proof = "\n".join(f"{rule}: {left} >= {right}" for rule, left, right in known.steps)
        fields = {"statement": statement, "proof": proof, "technique": technique}
        name = f"inequalities/{split}/{len(rows)}"
        rows[statement] = Row(
            id=name, fields={**fields, "steps": len(known.steps)}, group=technique
        )
    return tuple(rows.values())


def _drawn(rng: random.Random, split: str) -> Iterator[tuple[str, Known, str]]:
    """Yield statements of a split without end, the techniques in turn."""
    made = _HELD_OUT if split == "composed" else (*FAMILIES, *_LEARNT)
    while True:
        for technique in made:
            while True:
                draw, known = _made(technique, rng)
                statement = _statement(draw, known)
                named = all(letter in statement.split(" for ")[0] for letter in draw.letters)
                if not named or len(statement) > _MOST_CHARACTERS or _repeats(known):
                    continue
                if split == "composed" or _is_held_out(statement) == (split == "test"):
                    break
            yield statement, known, technique


def _made(technique: str, rng: random.Random) -> tuple[Draw, Known]:
    operation, _, parts = technique.partition(": ")
    if not parts:
        form, sizes = rng.choice(FAMILIES[technique])
        draw = Draw(rng, sizes)
        return draw, form(draw)
    draw = Draw(rng)
    known = [rng.choice(FAMILIES[one])[0](draw) for one in parts.split(" + ")]
    return draw, _PUT_TOGETHER[operation](draw, *known)


def _added(draw: Draw, one: Known, other: Known) -> Known:
    """Put two inequalities together by a sum."""
    sides = [
        Side(f"{first.text}+{second.text}")
        for first, second in ((one.left, other.left), (one.right, other.right))
    ]
    return _together("Sum", (one, other), sides[0], sides[1], between="+")


def _multiplied(draw: Draw, one: Known, other: Known) -> Known:
    """Put two inequalities, each with a single term on its right, together by a product."""
    if one.product is None or other.product is None:
        raise ValueError("a product needs a single term on each right side")
    left = Side(f"{one.left.factor}{other.left.factor}", bare=True)
    (p, u), (q, v) = one.product, other.product
    return _together("Product", (one, other), left, draw.side((p * q, times(u, v))), between="")


def _together(
    rule: str, known: tuple[Known, Known], left: Side, right: Side, *, between: str
) -> Known:
    steps = tuple(step for one in known for step in one.steps)  # each has one
    last = (f"{rule} (1){between}(2)", left.text, right.text)
    return Known(left=left, right=right, steps=(*steps, last))


def _scaled(draw: Draw, one: Known) -> Known:
    """Multiply an inequality by a sum of variables."""
    p, q = draw.number(3), draw.number(3)
    terms = [(p, draw.variable(0)), (q, draw.variable(1))]
    factor = draw.sum(terms)
    left, right = (Side(f"{side.factor}({factor})", True) for side in (one.left, one.right))
    last = (f"Times {factor} (1)", left.text, right.text)
    return replace(one, left=left, right=right, steps=(*one.steps, last), product=None, domain=">")


_PUT_TOGETHER: Mapping[str, Callable[..., Known]] = {
    "Sum": _added,
    "Times": _scaled,
    "Product": _multiplied,
}


def _statement(draw: Draw, known: Known) -> str:
    letters = ", ".join(draw.letters)
    domain = f"real {letters}" if known.domain == "real" else f"{letters} > 0"
    given = f" with {known.hypothesis}" if known.hypothesis else ""
    return f"{known.left.text} >= {known.right.text} for {domain}{given}"


def _repeats(known: Known) -> bool:
    """Whether a side says the same term twice, which a person would have added up."""
    return any(
        len(terms) > len({*terms})
        for side in (known.left, known.right)
        for terms in [[term.lstrip("0123456789") for term in side.text.split("+")]]
    )


def _template(statement: str) -> str:
    """Return the monomials of each side and of a hypothesis, with any letters, in any order."""
    claim, _, domain = statement.partition(" for ")
    sides = [
        [dict(_POWER.findall(monomial)) for monomial in _MONOMIAL.findall(side)]
        for side in (*claim.split(" >= "), domain.partition(" with ")[2])
    ]
    letters = sorted({letter for side in sides for one in side for letter in one})

    def written(order: tuple[str, ...]) -> list[list[str]]:
        return [sorted(",".join(one.get(letter, "-") for letter in order) for one in side)
                for side in sides]  # fmt: skip

    return str(min(map(written, permutations(letters))))


def _is_held_out(statement: str) -> bool:
    """Whether a statement's template is one of the test split's."""
    digest = hashlib.sha256(f"{_SALT}{_template(statement)}".encode()).hexdigest()
    return int(digest, 16) % _TEST_EVERY == 0
