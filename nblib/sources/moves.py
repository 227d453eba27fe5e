"""What may happen in a story: a move is one step, with its wording and how it is worked out.

Here is the form of a move, and the moves of things that a person owns or compares; the other scenes
have theirs in `stories`.
"""

from dataclasses import dataclass

SHARES = (("half", 2), ("a third", 3), ("a quarter", 4), ("a fifth", 5))


@dataclass(frozen=True, kw_only=True)
class Move:
    """One step: what the story says, how it is worked out, and whom the story is about after."""

    kind: str  # add, sub, mul, div
    steps: tuple[str, ...]
    say: tuple[str, ...] = ()
    asks: tuple[str, ...] = ()  # the questions that fit when this is the last step
    only: tuple[int, ...] = ()  # the only numbers that the wording fits
    switches: bool = False  # the story goes on about the other person
    needs_other: bool = False  # works on both persons' quantities instead of a number
    closes: bool = False  # only as the last step


def _left_after(share: str, parts: int) -> Move:
    """Keep one part: the story goes on with what was taken."""
    return Move(
        kind="div",
        only=(parts,),
        say=(
            f"{{name}} keeps only {share} of the {{things}}.",
            f"{{name}} keeps {share} of the {{things}} and gives the rest away.",
        ),
        steps=(
            f"{share.capitalize()} of them is {{sum}} {{things}}.",
            "That is {sum} {things}.",
        ),
    )


COMPARE = (
    Move(
        kind="add",
        switches=True,
        say=(
            "{other} has {n} more {things} than {name}.",
            "{other} has as many {things} as {name} and {n} more.",
        ),
        steps=("{other} has {sum} {things}.", "So {other} has {sum}."),
        asks=("How many {things} does {name} have?", "What is the number of {name}'s {things}?"),
    ),
    Move(
        kind="sub",
        switches=True,
        say=(
            "{other} has {n} fewer {things} than {name}.",
            "{name} has {n} more {things} than {other}.",
        ),
        steps=("{other} has {sum} {things}.", "So {other} has {sum}."),
        asks=("How many {things} does {name} have?", "What is the number of {name}'s {things}?"),
    ),
    Move(
        kind="mul",
        only=(2, 3, 4, 5),
        switches=True,
        say=("{other} has {n} times as many {things} as {name}.",),
        steps=("{other} has {sum} {things}.", "So {other} has {sum}."),
        asks=("How many {things} does {name} have?",),
    ),
    Move(
        kind="mul",
        only=(2,),
        switches=True,
        say=(
            "{other} has twice as many {things} as {name}.",
            "{other} has double the number of {things} that {name} has.",
        ),
        steps=("{other} has {sum} {things}.", "Twice that is {sum} {things}."),
        asks=("How many {things} does {name} have?",),
    ),
    *(
        Move(
            kind="div",
            only=(parts,),
            switches=True,
            say=(f"{{other}} has {share} as many {{things}} as {{name}}.",)
            if parts == 2
            else (f"{{other}} has {share} of the number of {{things}} that {{name}} has.",),
            steps=("{other} has {sum} {things}.", "So {other} has {sum}."),
            asks=("How many {things} does {name} have?",),
        )
        for share, parts in SHARES
    ),
    Move(
        kind="add",
        needs_other=True,
        closes=True,
        steps=("Together they have {sum} {things}.", "In total that is {sum}."),
        asks=(
            "How many {things} do {former} and {name} have together?",
            "How many {things} do {former} and {name} have in total?",
        ),
    ),
)

OWN = (
    Move(
        kind="add",
        say=(
            "{name} finds {n} more {things}.",
            "{They} gets {n} {things} from {other}.",
            "Then {name} buys {n} more {things}.",
        ),
        steps=("{name} then has {sum} {things}.", "Now there are {sum} {things}."),
    ),
    Move(
        kind="sub",
        say=(
            "{name} gives {n} {things} to {other}.",
            "{They} loses {n} of the {things}.",
            "Then {name} sells {n} of the {things}.",
        ),
        steps=("{name} has {sum} {things} left.", "Then {sum} {things} are left."),
    ),
    Move(
        kind="mul",
        only=(2, 3),
        say=(
            "After a good week {name} has {n} times as many {things}.",
            "The number of {name}'s {things} then grows to {n} times as many.",
        ),
        steps=("{name} then has {sum} {things}.", "Now there are {sum} {things}."),
    ),
    Move(
        kind="div",
        only=(2, 3, 4, 5, 6),
        say=(
            "{name} shares the {things} equally among {n} boxes and keeps one box.",
            "{They} puts the {things} into {n} equal piles and keeps only one pile.",
        ),
        steps=("One part has {sum} {things}.", "Each part is {sum} {things}."),
    ),
    *(_left_after(share, parts) for share, parts in SHARES),
)
