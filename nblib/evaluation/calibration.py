"""How far a judge is to be believed: its agreement with pairs whose verdict is known.

The pairs are made of gold itself. Right ones are a value in another format; wrong ones another
row's value of the slot, or the value with a digit changed, a word dropped or a word added.

    right  "navy blue" – "NAVY BLUE"       wrong  "navy blue" – "blue"
"""

import random
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, zip_longest
from typing import TYPE_CHECKING, Any

from nblib.evaluation.intervals import cohen_kappa, kappa_interval
from nblib.tasks.comparators import normalized
from nblib.tasks.judging import Pair, gold_leaves
from nblib.tasks.task import Example

if TYPE_CHECKING:
    from nblib.evaluation.closed_questions import Verdict
    from nblib.evaluation.judge import Judge

LEAST_KAPPA = 0.6  # "substantial": J. R. Landis, G. G. Koch, Biometrics 33 (1977), p. 165
_PAIRS, _FEWEST = 60, 20  # that are made, and of which a judge must decide
_MOST_VALUES = 300
_ARTICLES = {*("a", "an", "the", "der", "die", "das", "le", "la", "les", "el", "los", "il", "lo")}


@dataclass(frozen=True, kw_only=True)
class KnownPair:
    """A pair, whether its values are equivalent, and how it was made."""

    pair: Pair
    right: bool
    made: str


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """The verdicts of a judge on known pairs.

    Attributes:
        table: Rows: right and wrong pairs; columns: called equivalent, and not.
        made: "right: upper case" -> how many pairs, and how many of them were judged so.
        outcomes: Verdict, "failed" or "unsent" -> pairs.
        stable: Verdicts that stay when the values are exchanged, of `swapped` that there are.
    """

    table: tuple[tuple[int, int], tuple[int, int]]
    made: Mapping[str, tuple[int, int]]
    outcomes: Mapping[str, int]
    stable: int
    swapped: int

    @property
    def pairs(self) -> int:
        """How many pairs were made."""
        return sum(self.outcomes.values())

    @property
    def decided(self) -> int:
        """Pairs that were called equivalent, or not: of them kappa is."""
        return sum(map(sum, self.table))

    @property
    def kappa(self) -> float | None:
        """The agreement beyond chance with what is known; None where there is none to be."""
        return cohen_kappa(self.table)

    @property
    def problem(self) -> str:
        """Why the judge is not calibrated; "" where it is."""
        if not self.pairs:
            return 'no slot of the examples is compared by "judge"'
        if self.kappa is not None and self.kappa < LEAST_KAPPA:
            return f"its kappa is {self.kappa:.2f}, at least {LEAST_KAPPA} is wanted"
        if self.decided < max(_FEWEST, self.pairs / 2):
            return f"it decided {self.decided} of {self.pairs} pairs, too few"
        if self.kappa is None:
            return "its kappa is undefined: it says the same of all pairs"
        return ""

    @property
    def is_calibrated(self) -> bool:
        """Whether the judge is to be believed."""
        return not self.problem

    @property
    def record(self) -> dict[str, Any]:
        """What `judge.json` holds of it."""
        (right, missed), (taken, wrong) = self.table
        interval = None if self.kappa is None else kappa_interval(self.table)
        return {
            **{"calibrated": self.is_calibrated, "problem": self.problem, "pairs": self.pairs},
            **{"kappa": self.kappa, "kappa_ci95": interval},
            "right": {"equivalent": right, "not_equivalent": missed},
            "wrong": {"equivalent": taken, "not_equivalent": wrong},
            **{"outcomes": self.outcomes, "made": self.made},
            "swap": {"stable": self.stable, "of": self.swapped},
        }


def calibrate(
    judge: "Judge", examples: Sequence[Example], *, seed: int, count: int = _PAIRS
) -> Calibration:
    """Ask a judge of known pairs, then of the same with their values exchanged."""
    known = calibration_pairs(examples, count=count, seed=seed)
    first = judge.ask(one.pair for one in known)
    second = judge.ask(one.pair.swapped for one in known)
    return summarise(known, first, second)


def summarise(
    known: Sequence[KnownPair],
    first: "Mapping[Pair, Verdict]",
    second: "Mapping[Pair, Verdict]",
) -> Calibration:
    """Return what the verdicts on known pairs, and on these exchanged, say of their judge."""
    words = {one.pair: first[one.pair].word for one in known}
    cells = Counter((one.right, words[one.pair]) for one in known)
    table = tuple(
        (cells[right, "equivalent"], cells[right, "not_equivalent"]) for right in (True, False)
    )
    of = Counter(f"{_ROWS[one.right]}: {one.made}" for one in known)
    hits = Counter(
        f"{_ROWS[one.right]}: {one.made}"
        for one in known
        if words[one.pair] == ("equivalent" if one.right else "not_equivalent")
    )
    both = [(first[one.pair].word, second[one.pair.swapped].word) for one in known]
    said = [pair for pair in both if not {"failed", "unsent"} & set(pair)]
    return Calibration(
        table=(table[0], table[1]),
        made={name: (hits[name], of[name]) for name in sorted(of)},
        outcomes=Counter(words.values()),
        stable=sum(one == other for one, other in said),
        swapped=len(said),
    )


_ROWS = {True: "right", False: "wrong"}


def calibration_pairs(
    examples: Sequence[Example], *, count: int, seed: int
) -> tuple[KnownPair, ...]:
    """Return pairs of known verdict, half of them right; fewer where gold has too few values."""
    leaves = chain.from_iterable(gold_leaves(one.reference, one.slot_specs) for one in examples)
    values = sorted(set(leaves), key=lambda one: (one.slot, one.gold, one.meaning))
    rng = random.Random(f"calibration/{seed}")
    rng.shuffle(values)
    by_slot: dict[str, list[str]] = {}
    for one in values:
        by_slot.setdefault(one.slot, []).append(one.gold)
    right, wrong = (
        _in_turn(one for leaf in values[:_MOST_VALUES] for one in make(leaf, by_slot, rng))
        for make in (_right_pairs, _wrong_pairs)
    )
    half = min(count // 2, len(right), len(wrong))
    return (*right[:half], *wrong[:half])


def _in_turn(pairs: Iterator[KnownPair]) -> list[KnownPair]:
    """Return different pairs, one of each kind after the other."""
    kinds: dict[str, list[KnownPair]] = {}
    for one in pairs:
        kinds.setdefault(one.made, []).append(one)
    taken: dict[Pair, KnownPair] = {}
    for one in filter(None, chain.from_iterable(zip_longest(*kinds.values()))):
        taken.setdefault(one.pair, one)
    return [*taken.values()]


_FORMATS: Mapping[str, Callable[[str], str]] = {
    "upper case": str.upper,
    "lower case": str.lower,
    "white space": lambda text: f" {text.replace(' ', '  ')} ",
    "dashes": lambda text: text.replace("-", "\u2013"),
    "quotes": lambda text: (
        f"\u201c{text}\u201d" if "'" not in text else text.replace("'", "\u2019")
    ),
    "full stop": lambda text: text if text.endswith(".") else f"{text}.",
    "article": lambda text: text if text.split()[0].lower() in _ARTICLES else f"the {text}",
}


def _right_pairs(
    leaf: Pair, by_slot: Mapping[str, Sequence[str]], rng: random.Random
) -> Iterator[KnownPair]:
    for made, write in _FORMATS.items():
        if write(leaf.gold) != leaf.gold:
            yield _known(leaf, write(leaf.gold), made, right=True)


def _wrong_pairs(
    leaf: Pair, by_slot: Mapping[str, Sequence[str]], rng: random.Random
) -> Iterator[KnownPair]:
    text, words = leaf.gold, leaf.gold.split()
    others = [one for one in by_slot[leaf.slot] if normalized(one) != normalized(text)]
    made = {"digit": _digit_changed(text, rng)}
    names = [n for n, word in enumerate(words) if word.lower() not in _ARTICLES]
    if len(names) > 1:
        dropped = rng.choice(names)
        made["word dropped"] = " ".join(words[:dropped] + words[dropped + 1 :])
    if others:
        other = rng.choice(others)
        made["another value"] = other
        place = rng.randrange(len(words) + 1)
        added = [
            one for one in other.split() if one.lower() not in {*_ARTICLES, *map(str.lower, words)}
        ]
        made["word added"] = " ".join([*words[:place], *added[:1], *words[place:]])
    for how, wrong in made.items():
        if normalized(wrong) != normalized(text):
            yield _known(leaf, wrong, how, right=False)


def _digit_changed(text: str, rng: random.Random) -> str:
    digits = [*re.finditer(r"[0-9]", text)]
    if not digits:
        return text
    found = rng.choice(digits)
    other = rng.choice([one for one in "123456789" if one != found[0]])
    return text[: found.start()] + other + text[found.end() :]


def _known(leaf: Pair, answer: str, made: str, *, right: bool) -> KnownPair:
    pair = Pair(slot=leaf.slot, meaning=leaf.meaning, gold=leaf.gold, answer=answer)
    return KnownPair(pair=pair, right=right, made=made)
