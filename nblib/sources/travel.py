"""Built-in travel requests, each with a complete envelope: nothing to download.

A row has a `prompt`, a `response` (an object of seven fields, see `tasks.envelope`) and a
`payload_type`. Train and test never share a city and a type; the test rows are the same for every
seed, so that runs are measured on one suite. The facts are made up.
"""

import random
import re
import tomllib
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from importlib import resources
from typing import Any

from nblib.sources.rows import Row

_TEST_EVERY = 5  # of the cities of a type, one in so many is for the test split
_MOST_DAYS = 3
_MOST_BLOCKS = 4  # of all days together: a longer envelope teaches no more form
_FACT = re.compile(r"{(\w+)}")
_Words = Mapping[str, Any]


def travel_requests(count: int, *, seed: int, split: str) -> tuple[Row, ...]:
    """Return `count` requests with their envelopes, the four types in turn.

    Raises ValueError for an unknown split.
    """
    if split not in ("train", "test"):
        raise ValueError(f"split is {split!r}, expected 'train' or 'test'")
    salt = seed if split == "train" else "fixed"
    made = (_request(split, index, salt) for index in range(count))
    return tuple(
        Row(id=f"travel/{split}/{index}", fields=fields, group=fields["payload_type"])
        for index, fields in enumerate(made)
    )


def _request(split: str, index: int, salt: object) -> dict[str, Any]:
    words, rng = _words(), random.Random(f"travel/{split}/{salt}/{index}")
    number = index % len(_PAYLOADS)
    payload_type = tuple(_PAYLOADS)[number]
    own: _Words = words[payload_type]
    cities = [
        city
        for place, city in enumerate(words["cities"])
        if ((place + number) % _TEST_EVERY == 0) == (split == "test")
    ]
    facts = {
        "city": rng.choice(cities),
        "month": rng.choice(words["months"]),
        "party": rng.choice(words["parties"]),
        "days": rng.randint(2, _MOST_DAYS),
        "budget": 50 * rng.randint(4, 40),
        "interests": " and ".join(rng.sample([*words["interests"]], 2)),
        "errand": rng.choice(own.get("errands", [""])),
    }
    prompt = rng.choice(own["prompts"])
    facts = {name: value for name, value in facts.items() if f"{{{name}}}" in prompt}

    def some(name: str) -> list[str]:
        return rng.sample(_sayable(words[name], facts), rng.randint(1, 2))

    response = {
        "summary": rng.choice(_sayable(own["summaries"], facts)),
        "assumptions": some("assumptions"),
        "uncertainty_notes": rng.choice(_sayable(words["uncertainty_notes"], facts)),
        "next_steps": some("next_steps"),
        "verification_steps": some("verification_steps"),
        "payload_type": payload_type,
        "payload": _PAYLOADS[payload_type](own, facts, rng),
    }
    return {"prompt": prompt.format_map(facts), "response": response, "payload_type": payload_type}


def _sayable(texts: Sequence[str], facts: _Words) -> list[str]:
    """Return the texts that need no fact that the prompt does not give, filled in."""
    return [text.format_map(facts) for text in texts if {*_FACT.findall(text)} <= facts.keys()]


def _itinerary(own: _Words, facts: _Words, rng: random.Random) -> dict[str, Any]:
    interests, blocks = facts["interests"].split(" and "), _MOST_BLOCKS // facts["days"]
    days = []
    for day in range(1, facts["days"] + 1):
        interest = interests[(day - 1) % len(interests)]
        activities = rng.sample(_words()["interests"][interest], blocks)
        times = sorted(rng.sample(own["times"], blocks), key=own["times"].index)
        items = [
            {"time_block": time, "activity": activity}
            for time, activity in zip(times, activities, strict=True)
        ]
        days.append({"day": day, "summary": f"A day of {interest}.", "items": items})
    return {"title": rng.choice(_sayable(own["titles"], facts)), "trip_days": days}


def _checklist(own: _Words, facts: _Words, rng: random.Random) -> dict[str, Any]:
    items = [
        {"item": item, "reason": reason.format_map(facts), "required": required == "yes"}
        for item, reason, required in rng.sample(own["items"], rng.randint(3, 4))
    ]
    return {"title": rng.choice(_sayable(own["titles"], facts)), "items": items}


def _decision_tree(own: _Words, facts: _Words, rng: random.Random) -> dict[str, Any]:
    branches = [
        {"condition": condition.format_map(facts), "choice": choice}
        for condition, choice in rng.sample(own["branches"], rng.randint(2, 3))
    ]
    return {
        "question": rng.choice(_sayable(own["questions"], facts)),
        "branches": branches,
        "otherwise": rng.choice(own["otherwise"]),
    }


def _procedure(own: _Words, facts: _Words, rng: random.Random) -> dict[str, Any]:
    chosen = sorted(rng.sample(own["steps"], rng.randint(3, 4)), key=own["steps"].index)
    steps = [
        {"step": number, "action": action, "check": check}
        for number, (action, check) in enumerate(chosen, start=1)
    ]
    return {"title": rng.choice(_sayable(own["titles"], facts)), "steps": steps}


_PAYLOADS: Mapping[str, Callable[[_Words, _Words, random.Random], dict[str, Any]]] = {
    "itinerary": _itinerary,
    "checklist": _checklist,
    "decision_tree": _decision_tree,
    "procedure": _procedure,
}


@cache
def _words() -> _Words:
    text = resources.files(__package__).joinpath("travel.toml").read_text(encoding="utf-8")
    return tomllib.loads(text)
