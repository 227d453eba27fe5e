"""The words of the built-in problems: people and scenes.

Only text and tables; `wordproblems` draws from them. In every template `{name}` is the person the
story is about at that moment, `{other}` the next one, `{n}` a number and `{sum}` the worked sum
("12 + 5 = <<12+5=17>>17").
"""

from dataclasses import dataclass

from nblib.sources.moves import COMPARE, OWN, SHARES, Move

PEOPLE = tuple(
    (name, "She", "her")
    for name in ("Ana", "Mia", "Lena", "Rosa", "Kim", "Nora", "Ivy", "Zoe", "Emma", "Lucy", "Mary")
) + tuple(
    (name, "He", "his")
    for name in ("Tom", "Sam", "Omar", "Leo", "Ben", "Raj", "Max", "Jack", "Noah", "John", "Eric")
)


@dataclass(frozen=True, kw_only=True)
class Scene:
    """A setting: openings, things, moves and the questions that end it."""

    name: str
    openings: tuple[str, ...]
    things: tuple[str, ...]
    places: tuple[str, ...]
    moves: tuple[Move, ...]
    asks: tuple[str, ...]
    money: bool = False


_THINGS = (
    "apples", "books", "marbles", "stickers", "cards", "pencils", "coins", "shells", "stamps",
    "cookies", "oranges", "toys", "flowers", "eggs", "balloons", "beads", "photos", "stones",
)  # fmt: skip


SCENES: tuple[Scene, ...] = (
    Scene(
        name="own",
        openings=(
            "{name} has {n} {things}.",
            "There are {n} {things} in {name}'s {place}.",
            "{name} keeps {n} {things} in {their} {place}.",
        ),
        things=_THINGS,
        places=("box", "bag", "room", "garden", "basket"),
        moves=OWN,
        asks=(
            "How many {things} does {name} have now?",
            "How many {things} does {name} have in the end?",
        ),
    ),
    Scene(
        name="compare",
        openings=("{name} has {n} {things}.", "{name} owns {n} {things}."),
        things=_THINGS,
        places=("shop", "class", "garden", "house"),
        moves=COMPARE,
        asks=("How many {things} does {name} have?",),
    ),
    Scene(
        name="money",
        money=True,
        openings=(
            "{name} has ${n}.",
            "{name} earns ${n} at the {place}.",
            "{name} saved ${n} from working at the {place}.",
        ),
        things=("tickets", "shirts", "pens", "cakes", "lamps", "games"),
        places=("market", "farm", "shop", "school", "bakery"),
        moves=(
            Move(
                kind="add",
                say=(
                    "{other} gives {name} ${n}.",
                    "{They} then earns ${n} more.",
                    "{name} finds ${n}.",
                ),
                steps=("{name} then has ${sum}.", "That makes ${sum}."),
            ),
            Move(
                kind="sub",
                say=(
                    "{name} spends ${n} on {things}.",
                    "{They} pays ${n} for lunch.",
                    "{name} buys {things} for ${n}.",
                ),
                steps=("{name} has ${sum} left.", "After paying, ${sum} is left."),
            ),
            Move(
                kind="mul",
                only=(2, 3, 4, 5),
                say=(
                    "After a good month {name} has {n} times as much money.",
                    "{They} saves until there is {n} times as much.",
                ),
                steps=("In total that is ${sum}.", "{name} then has ${sum}."),
            ),
            Move(
                kind="div",
                only=(2, 3, 4, 5, 6),
                say=(
                    "The money is split equally among {n} people, {name} being one of them.",
                    "{name} puts the money into {n} equal parts and keeps one.",
                ),
                steps=("Each part is ${sum}.", "{name} keeps ${sum}."),
            ),
            *(
                Move(
                    kind="div",
                    only=(parts,),
                    say=(f"{{name}} keeps {share} of the money and spends the rest.",),
                    steps=("That is ${sum}.", f"{share.capitalize()} of it is ${{sum}}."),
                )
                for share, parts in SHARES
            ),
        ),
        asks=(
            "How much money does {name} have now, in dollars?",
            "How many dollars does {name} have in the end?",
        ),
    ),
    Scene(
        name="trade",
        openings=(
            "A {place} has {n} {things}.",
            "{name}'s {place} makes {n} {things}.",
            "{name} packs {n} {things} at the {place}.",
        ),
        things=("loaves", "pies", "chairs", "bottles", "bags", "cups", "jars", "kites"),
        places=("bakery", "shop", "factory", "farm", "market"),
        moves=(
            Move(
                kind="mul",
                only=(2, 3, 4, 5, 6, 7),
                say=(
                    "After a busy week there are {n} times as many {things}.",
                    "The number of {things} then grows to {n} times as many.",
                ),
                steps=("All together that is {sum} {things}.", "That gives {sum} {things}."),
            ),
            Move(
                kind="sub",
                say=("{n} of the {things} break.", "{n} of the {things} are sent back."),
                steps=("Then {sum} {things} are left.", "That leaves {sum} {things}."),
            ),
            Move(
                kind="add",
                say=(
                    "Another {n} {things} come from {other}.",
                    "{other} brings {n} more {things}.",
                ),
                steps=("With these there are {sum} {things}.", "That makes {sum} {things}."),
            ),
            Move(
                kind="div",
                only=(2, 3, 4, 5, 6, 8),
                say=(
                    "The {things} are split into {n} equal loads, and all loads but one are sold.",
                    "All {things} go into {n} equal crates. Every crate but one is sent away.",
                ),
                steps=("One part is {sum} {things}.", "That leaves {sum} {things}."),
            ),
        ),
        asks=("How many {things} are there in the end?", "What is the final number of {things}?"),
    ),
    Scene(
        name="travel",
        openings=(
            "{name} plans a trip of {n} {things} to the {place}.",
            "It is {n} {things} from {name}'s home to the {place}, and {name} plans a trip there.",
        ),
        things=("miles", "kilometers", "blocks"),
        places=("lake", "city", "school", "beach", "park"),
        moves=(
            Move(
                kind="add",
                say=(
                    "A detour adds {n} {things} to the trip.",
                    "{name} makes the trip {n} {things} longer.",
                ),
                steps=("That is {sum} {things}.", "The way is then {sum} {things}."),
            ),
            Move(
                kind="sub",
                say=(
                    "A shortcut takes {n} {things} off the trip.",
                    "{name} makes the trip {n} {things} shorter.",
                ),
                steps=("That leaves {sum} {things}.", "The way is then {sum} {things}."),
            ),
            Move(
                kind="mul",
                only=(2, 3, 4, 5),
                say=(
                    "A new plan makes the trip {n} times as long.",
                    "{name} then plans a trip that is {n} times as long instead.",
                ),
                steps=("In total that is {sum} {things}.", "That is {sum} {things}."),
            ),
            Move(
                kind="div",
                only=(2, 3, 4, 5),
                say=(
                    "{name} cuts the trip into {n} equal parts and keeps only one of them.",
                    "Of {n} equal parts of the trip, {name} keeps only the first.",
                ),
                steps=("One part is {sum} {things}.", "That is {sum} {things}."),
            ),
        ),
        asks=(
            "How many {things} is the trip in the end?",
            "How long is the trip in the end, in {things}?",
        ),
    ),
)

DISTRACTORS = (
    "{bystander} is {n} years old.",
    "{bystander} has {n} dogs and cats at home.",
    "It is {n} minutes past noon.",
    "The bus to town costs {n} cents.",
    "There are {n} trees along the street.",
    "{bystander} once read {n} pages in a day.",
)
