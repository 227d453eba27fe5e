"""Built-in word problems in GSM8K's shape, so that everything runs with nothing downloaded.

A problem is a short story: an opening that sets one quantity, one move a step (gain, loss,
multiple, share, fraction, comparison, total), and a question. Its level is its number of steps,
1 to 5; from level 3 on a story may carry a sentence whose number is not needed. Scene, wording,
people and numbers are drawn from the seed: one seed, one data set. The words are in
`wordproblems.toml`.

Train and test share no question and no (template, numbers) pair: a hash of that pair decides
which split a problem may appear in. Stories are far simpler than GSM8K's (Cobbe et al. 2021,
https://arxiv.org/abs/2110.14168), whose answer format they use.
"""

import hashlib
import operator
import random
import tomllib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import resources
from typing import Literal

from pydantic import TypeAdapter

from nblib.sources.rows import Row

LEVELS = (1, 2, 3, 4, 5)
TEST_SHARE = 8  # one hash in eight belongs to the test split
_EASY_LEVELS = (1, 2)  # two-digit sums; from level 3 on the sums reach three digits
_TRIES = 60
_OPERATIONS: Mapping[str, tuple[str, Callable[[int, int], int]]] = {
    "add": ("+", operator.add),
    "sub": ("-", operator.sub),
    "mul": ("*", operator.mul),
    "div": ("/", operator.floordiv),
}


@dataclass(frozen=True, kw_only=True)
class Move:
    """One step of a story: its wording, and how it is worked out."""

    kind: Literal["add", "sub", "mul", "div"]
    only: tuple[int, ...] = ()  # the only numbers that the wording fits
    switches: bool = False  # the story goes on about the other person
    needs_other: bool = False  # works on both persons' quantities instead of a number
    closes: bool = False  # only as the last step
    say: tuple[str, ...] = ()  # sentences of the question
    steps: tuple[str, ...]  # lines of the solution
    asks: tuple[str, ...] = ()  # questions after it as the last step, in place of the scene's


@dataclass(frozen=True, kw_only=True)
class Scene:
    """A setting: openings, what they may name, the moves, and the questions that end it."""

    name: str
    money: bool = False
    openings: tuple[str, ...]
    things: tuple[str, ...]
    places: tuple[str, ...]
    asks: tuple[str, ...]
    moves: tuple[Move, ...]


_WORDS = tomllib.loads(
    resources.files(__package__).joinpath("wordproblems.toml").read_text(encoding="utf-8")
)
# Name, pronoun, possessive.
PEOPLE = (
    *((name, "She", "her") for name in _WORDS["she"]),
    *((name, "He", "his") for name in _WORDS["he"]),
)
DISTRACTORS: tuple[str, ...] = tuple(_WORDS["distractors"])
SCENES = TypeAdapter(tuple[Scene, ...]).validate_python(_WORDS["scenes"])


@dataclass
class _Story:
    """A problem while it is written: its sentences, its solution, and where it stands."""

    scene: Scene
    words: dict[str, str]  # what the templates name
    people: list[tuple[str, str, str]]  # as in PEOPLE; the first one is spoken of
    value: int
    long_hand: bool  # every sum is worked out by place value
    before: int = 0  # the other person's quantity, for totals
    sentences: list[str] = field(default_factory=list)
    steps: list[str] = field(default_factory=list)
    template: list[str] = field(default_factory=list)
    numbers: list[int] = field(default_factory=list)

    def speak_of_first(self) -> None:
        """Set the names and pronouns that the next sentences use."""
        (name, pronoun, possessive), (other, *_) = self.people[:2]
        self.words |= {
            "name": name,
            "They": pronoun,
            "they": pronoun.lower(),
            "their": possessive,
            "other": other,
            "bystander": self.people[-1][0],
        }

    def say(self, sentence: str, n: int) -> None:
        """Add a sentence to the question."""
        self.sentences.append(sentence.format(n=n, **self.words))


def word_problems(
    count: int,
    *,
    seed: int,
    split: str,
    levels: Sequence[int] = LEVELS,
    long_hand: float = 0.0,
) -> tuple[Row, ...]:
    """Return `count` different problems, the levels in turn, the same ones for the same seed.

    People write a solution in more than one way: `long_hand` is the share of solutions in which
    every sum is worked out by place value, "47 + 38 = 47 + 30 + 8 = 77 + 8 = 85".

    Raises ValueError for an unknown split or level, a share outside 0..1, or when the levels asked
    for do not hold `count` different problems.
    """
    if split not in ("train", "test"):
        raise ValueError(f"split {split!r} is unknown: expected 'train' or 'test'")
    if not levels or any(level not in LEVELS for level in levels):
        raise ValueError(f"levels {tuple(levels)} must be some of {LEVELS}")
    if not 0 <= long_hand <= 1:
        raise ValueError(f"long_hand {long_hand} must be a share, from 0 to 1")
    rng = random.Random(f"wordproblems/{split}/{seed}")
    ways = random.Random(f"wordproblems/{split}/{seed}/ways")  # the problems stay the same
    rows: dict[str, Row] = {}
    misses = 0
    while len(rows) < count:
        level = levels[len(rows) % len(levels)]
        row = _problem(rng, level, split, index=len(rows), long_hand=ways.random() < long_hand)
        if row is None or row.fields["question"] in rows:
            misses += 1
            if misses > 200 + 20 * count:
                raise ValueError(f"levels {tuple(levels)} hold fewer than {count} problems")
            continue
        rows[row.fields["question"]] = row
    return tuple(rows.values())


def _problem(
    rng: random.Random, level: int, split: str, *, index: int, long_hand: bool
) -> Row | None:
    """Return one problem of this level, or None when the draw belongs to the other split."""
    story = _open(rng, easy=level in _EASY_LEVELS, long_hand=long_hand)
    while len(story.steps) < level:
        if not _move(rng, story, easy=level in _EASY_LEVELS, last=len(story.steps) == level - 1):
            return None
    if _split_of(story) != split:
        return None
    if level >= 3 and rng.random() < 0.4:
        extra = rng.choice(DISTRACTORS).format(n=rng.randint(2, 40), **story.words)
        story.sentences.insert(rng.randint(1, len(story.sentences)), extra)
    asks = story.scene.moves[int(story.template[-1])].asks or story.scene.asks
    story.sentences.append(rng.choice(asks).format(**story.words))
    answer = "\n".join([*story.steps, f"#### {story.value}"])
    return Row(
        id=f"builtin/{split}/{index}",
        fields={"question": " ".join(story.sentences), "answer": answer},
        group=str(level),
    )


def _split_of(story: _Story) -> str:
    """Return the split that owns this story's (template, numbers) pair."""
    key = f"{'|'.join(story.template)}/{story.numbers}"
    return "test" if hashlib.sha256(key.encode()).digest()[0] % TEST_SHARE == 0 else "train"


def _open(rng: random.Random, *, easy: bool, long_hand: bool) -> _Story:
    scene = rng.choice(SCENES)
    words = {
        "things": rng.choice(scene.things),
        "place": rng.choice(scene.places),
        "cash": "$" if scene.money else "",
    }
    # One person more than any story can hand over to, so that no person is given two amounts.
    people = rng.sample(PEOPLE, max(LEVELS) + 3)
    opening = rng.randrange(len(scene.openings))
    value = rng.randint(4, 48) if easy else rng.randint(10, 120)
    story = _Story(scene=scene, words=words, people=people, value=value, long_hand=long_hand)
    story.speak_of_first()
    story.say(scene.openings[opening], value)
    story.template.append(f"{scene.name}.{opening}")
    story.numbers.append(value)
    return story


def _move(rng: random.Random, story: _Story, *, easy: bool, last: bool) -> bool:
    """Add one step to the story; return False when no move of the scene fits."""
    for _ in range(_TRIES):
        index = rng.randrange(len(story.scene.moves))
        move = story.scene.moves[index]
        if story.template[-1] == str(index):
            continue
        if (move.closes and not last) or (move.needs_other and not story.before):
            continue
        n = _number(rng, move, story, easy=easy)
        if n is None:
            continue
        _apply(rng, story, move, n)
        story.template.append(str(index))
        return True
    return False


def _number(rng: random.Random, move: Move, story: _Story, *, easy: bool) -> int | None:
    """Return a number that keeps the result whole, above one and within limits, or None.

    A move on both persons' quantities has only one: the other's.
    """
    value, limit = story.value, 200 if easy else 999
    _, operation = _OPERATIONS[move.kind]
    drawn = (story.before,) if move.needs_other else move.only or range(2, 41 if easy else 151)
    choices = [
        n
        for n in drawn
        if 1 < operation(value, n) <= limit and (move.kind != "div" or value % n == 0)
    ]
    return rng.choice(choices) if choices else None


def _apply(rng: random.Random, story: _Story, move: Move, n: int) -> None:
    """Write the move's sentence and its sum; the story goes on about the person it is now about."""
    a = story.value
    sign, operation = _OPERATIONS[move.kind]
    result = operation(a, n)
    ways = _by_place_value(move.kind, a, n) if story.long_hand else []
    written = " = ".join([f"{a} {sign} {n}", *ways, story.words["cash"]])
    if move.say:
        story.say(rng.choice(move.say), n)
    step = rng.choice(move.steps)
    sum_ = f"{written}<<{a}{sign}{n}={result}>>{result}"
    story.steps.append(step.format(sum=sum_, n=n, **story.words))
    if not move.needs_other:
        story.numbers.append(n)
    story.value = result
    story.before = a if move.switches else 0
    if move.switches:
        story.words["former"] = story.words["name"]
        story.people.pop(0)
        story.speak_of_first()


def _by_place_value(kind: str, a: int, b: int) -> list[str]:
    """Return the sums between "a + b" and its result; none where it is done in one go.

    >>> _by_place_value("add", 47, 138)
    ['47 + 100 + 30 + 8', '147 + 30 + 8', '177 + 8']
    >>> _by_place_value("mul", 37, 4)
    ['30 * 4 + 7 * 4', '120 + 28']
    """
    places = _places(a if kind == "mul" else b)
    if kind == "div" or len(places) < 2:
        return []
    if kind == "mul":
        products = [f"{place} * {b}" for place in places], [str(place * b) for place in places]
        return [" + ".join(parts) for parts in products]
    sign, operation = _OPERATIONS[kind]
    done = [operation(a, sum(places[:count])) for count in range(len(places))]
    return [
        f" {sign} ".join(map(str, (value, *places[count:]))) for count, value in enumerate(done)
    ]


def _places(number: int) -> list[int]:
    """Return the parts of a number by place value, without zeros: 508 -> [500, 8]."""
    digits = str(number)
    parts = (int(digit) * 10 ** (len(digits) - 1 - at) for at, digit in enumerate(digits))
    return [part for part in parts if part]
