"""Built-in word problems in GSM8K's shape, so that everything runs with nothing downloaded.

A problem is a short story: an opening that sets one quantity, then one move a step (gain, loss,
multiple, share, fraction, comparison, total), then a question. Its level is its number of steps,
1 to 5; from level 3 on a story may carry a sentence whose number is not needed. Wording, people,
things and numbers are drawn from the seed, so a seed is a data set.

Train and test never share a question, nor a (template, numbers) pair: a hash of that pair decides
which split a problem may appear in. Stories are far simpler than GSM8K's (Cobbe et al. 2021,
https://arxiv.org/abs/2110.14168), whose answer format they use.
"""

import hashlib
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from nblib.sources.moves import Move
from nblib.sources.rows import Row
from nblib.sources.stories import DISTRACTORS, PEOPLE, SCENES, Scene

LEVELS = (1, 2, 3, 4, 5)
TEST_SHARE = 8  # one hash in eight belongs to the test split
_EASY_LEVELS = (1, 2)  # two-digit sums; from level 3 on the sums reach three digits
_TRIES = 60


@dataclass
class _Story:
    """A problem while it is written: what was said, what was worked out, what it stands on."""

    scene: Scene
    words: dict[str, str]
    people: list[tuple[str, str, str]]  # name, pronoun, possessive; the first one is spoken of
    value: int = 0
    before: int = 0  # the other person's quantity, for totals and differences
    long_hand: bool = False  # every sum is worked out by place value
    sentences: list[str] = field(default_factory=list)
    steps: list[str] = field(default_factory=list)
    template: list[str] = field(default_factory=list)
    numbers: list[int] = field(default_factory=list)


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
        row = _tell(rng, level, split, index=len(rows), long_hand=ways.random() < long_hand)
        if row is None or row.fields["question"] in rows:
            misses += 1
            if misses > 200 + 20 * count:
                raise ValueError(f"levels {tuple(levels)} hold fewer than {count} problems")
            continue
        rows[row.fields["question"]] = row
    return tuple(rows.values())


def _tell(rng: random.Random, level: int, split: str, *, index: int, long_hand: bool) -> Row | None:
    """Return one problem of this level, or None when the draw belongs to the other split."""
    story = _open(rng, level)
    story.long_hand = long_hand
    while len(story.steps) < level:
        if not _move(rng, story, level, last=len(story.steps) == level - 1):
            return None
    if _split_of(story) != split:
        return None
    question = " ".join([*_with_distractor(rng, story, level), _ask(rng, story)])
    answer = "\n".join([*story.steps, f"#### {story.value}"])
    return Row(
        id=f"builtin/{split}/{index}",
        fields={"question": question, "answer": answer},
        group=str(level),
    )


def _split_of(story: _Story) -> str:
    """Return the split that owns this story's (template, numbers) pair."""
    key = f"{'|'.join(story.template)}/{story.numbers}"
    return "test" if hashlib.sha256(key.encode()).digest()[0] % TEST_SHARE == 0 else "train"


def _open(rng: random.Random, level: int) -> _Story:
    scene = rng.choice(SCENES)
    words = {
        "things": rng.choice(scene.things),
        "place": rng.choice(scene.places),
        "cash": "$" if scene.money else "",
    }
    # One person more than any story can hand over to, so that no person is given two amounts.
    story = _Story(scene=scene, words=words, people=rng.sample(PEOPLE, max(LEVELS) + 3))
    _speak_of_first(story)
    opening = rng.randrange(len(scene.openings))
    story.value = rng.randint(4, 48) if level in _EASY_LEVELS else rng.randint(10, 120)
    _say(story, scene.openings[opening], n=story.value)
    story.template.append(f"{scene.name}.{opening}")
    story.numbers.append(story.value)
    return story


def _speak_of_first(story: _Story) -> None:
    """Set the names and pronouns that the next sentences use."""
    (name, pronoun, possessive), (other, *_) = story.people[:2]
    story.words |= {
        "name": name,
        "They": pronoun,
        "they": pronoun.lower(),
        "their": possessive,
        "other": other,
        "bystander": story.people[-1][0],
    }


def _move(rng: random.Random, story: _Story, level: int, *, last: bool) -> bool:
    """Add one step to the story; return False when no move of the scene fits."""
    for _ in range(_TRIES):
        index = rng.randrange(len(story.scene.moves))
        move = story.scene.moves[index]
        if story.template[-1] == str(index):
            continue
        if (move.closes and not last) or (move.needs_other and not story.before):
            continue
        n = _number(rng, move, story, easy=level in _EASY_LEVELS)
        if n is None:
            continue
        _apply(rng, story, move, n)
        story.template.append(f"{index}")
        return True
    return False


def _apply(rng: random.Random, story: _Story, move: Move, n: int) -> None:
    """Tell the move, work it out, and hand the story on to the person it is now about."""
    a = story.value
    result = OPERATIONS[move.kind](a, n)
    sign = SIGNS[move.kind]
    way = "".join(f"{part} = " for part in _by_place_value(move.kind, a, n))
    sum_ = f"{a} {sign} {n} = {way if story.long_hand else ''}"
    sum_ += f"{story.words['cash']}<<{a}{sign}{n}={result}>>{result}"
    if move.say:
        _say(story, rng.choice(move.say), n=n)
    story.steps.append(rng.choice(move.steps).format(sum=sum_, n=n, **story.words))
    if not move.needs_other:
        story.numbers.append(n)
    story.value = result
    story.before = a if move.switches else 0
    if move.switches:
        story.words["former"] = story.words["name"]
        story.people.pop(0)
        _speak_of_first(story)


def _by_place_value(kind: str, a: int, b: int) -> list[str]:
    """Return the sums between "a + b" and its result; none where it is done in one go.

    >>> _by_place_value("add", 47, 138)
    ['47 + 100 + 30 + 8', '147 + 30 + 8', '177 + 8']
    >>> _by_place_value("mul", 37, 4)
    ['30 * 4 + 7 * 4', '120 + 28']
    """
    if kind == "mul":
        places = _places(a)
        if len(places) < 2:
            return []
        return [
            " + ".join(f"{place} * {b}" for place in places),
            " + ".join(str(place * b) for place in places),
        ]
    places = _places(b)
    if kind == "div" or len(places) < 2:
        return []
    done = [OPERATIONS[kind](a, sum(places[:count])) for count in range(len(places))]
    return [
        f" {SIGNS[kind]} ".join(map(str, (value, *places[count:])))
        for count, value in enumerate(done)
    ]


def _places(number: int) -> list[int]:
    """Return the parts of a number by place value, without zeros: 508 -> [500, 8]."""
    digits = str(number)
    parts = (int(digit) * 10 ** (len(digits) - 1 - at) for at, digit in enumerate(digits))
    return [part for part in parts if part]


def _number(rng: random.Random, move: Move, story: _Story, *, easy: bool) -> int | None:
    """Return a number that keeps the result whole, above one and within limits, or None.

    A move on both persons' quantities has only one: the other's.
    """
    value, limit = story.value, 200 if easy else 999
    drawn = move.only or range(2, 41 if easy else 151)
    choices = [
        n
        for n in ((story.before,) if move.needs_other else drawn)
        if 1 < OPERATIONS[move.kind](value, n) <= limit and (move.kind != "div" or value % n == 0)
    ]
    return rng.choice(choices) if choices else None


def _with_distractor(rng: random.Random, story: _Story, level: int) -> list[str]:
    """Return the sentences, from level 3 on sometimes with one whose number is not needed."""
    sentences = list(story.sentences)
    if level >= 3 and rng.random() < 0.4:
        extra = rng.choice(DISTRACTORS).format(n=rng.randint(2, 40), **story.words)
        sentences.insert(rng.randint(1, len(sentences)), extra)
    return sentences


def _ask(rng: random.Random, story: _Story) -> str:
    closing = story.template[-1]
    move = story.scene.moves[int(closing)]
    asks = move.asks or story.scene.asks
    return rng.choice(asks).format(**story.words)


def _say(story: _Story, sentence: str, *, n: int) -> None:
    story.sentences.append(sentence.format(n=n, **story.words))


OPERATIONS: Mapping[str, Callable[[int, int], int]] = {
    "add": lambda a, b: a + b,
    "sub": lambda a, b: a - b,
    "mul": lambda a, b: a * b,
    "div": lambda a, b: a // b,
}
SIGNS = {"add": "+", "sub": "-", "mul": "*", "div": "/"}
