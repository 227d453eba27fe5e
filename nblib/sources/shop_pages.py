"""Built-in shop pages of six locales, with what is to be read from them: nothing to download.

Two kinds, in turn: `productpage_extractor`, a product whose slots are to be filled, and
`navpage_classifier`, a page that leads to others, YES, or not, NO. Half of the slots are not on the
page; old prices and shipping costs stand beside the right price. Names are made up: no name of the
test pages is on a training page, and the test pages are the same for every seed. Pages are HTML, as
pages of a crawler are.
"""

import random
import tomllib
from collections.abc import Iterator, Mapping
from functools import cache
from html import escape
from importlib import resources
from typing import Any

PRODUCT, NAVIGATION = "productpage_extractor", "navpage_classifier"
_SIZES = ("S", "M", "L", "XL")
SLOT_SPECS: Mapping[str, Mapping[str, Any]] = {
    "name": {"type": "string", "nullable": False, "verbatim": True, "max_length": 80},
    "brand": {"type": "string", "verbatim": True, "max_length": 40},
    "price": {"type": "number", "compare": "number"},
    "currency": {"enum": ["USD", "GBP", "EUR", "CHF", "BRL"]},
    "colour": {"type": "string", "verbatim": True, "max_length": 20},
    "sizes": {"type": "array", "items": {"type": "string", "enum": list(_SIZES)}, "max_items": 4},
    "in_stock": {"type": "boolean"},
}
_ASKED = {
    PRODUCT: f"Read the product as JSON: {', '.join(SLOT_SPECS)}. null is what is not said.",
    NAVIGATION: "Does this page lead to other pages of a shop? YES or NO.",
}
_TEST_EVERY = 5  # of all names, one in so many is for the test split
_Words = Mapping[str, Any]


def shop_pages(count: int, *, seed: int, split: str) -> tuple[dict[str, Any], ...]:
    """Return `count` records as the table of examples has them, both kinds in turn.

    Raises ValueError for an unknown split.
    """
    if split not in ("train", "test"):
        raise ValueError(f"split is {split!r}, expected 'train' or 'test'")
    salt = seed if split == "train" else "fixed"
    return tuple(_record(split, index, salt) for index in range(count))


def filler_lines(seed: str) -> Iterator[str]:
    """Yield lines of a shop's page that say nothing of any product, without an end."""
    rng, words = random.Random(f"shop/filler/{seed}"), _words()
    lines = [*words["sentences"], *words["news"], *words["other"]]
    while True:
        yield rng.choice(lines)


def _record(split: str, index: int, salt: object) -> dict[str, Any]:
    rng = random.Random(f"shop/{split}/{salt}/{index}")
    task = (PRODUCT, NAVIGATION)[index % 2]
    shop = _name(rng, split)
    make = _product_page if task == PRODUCT else _any_page
    lines, response = make(rng, split)
    if task == NAVIGATION:
        lines = [f"<header>{shop}</header>", *lines]
    body = "\n".join(lines)
    head = f"<head><title>{shop}</title><style>p {{ margin: 0 }}</style></head>"
    page = f"<html>{head}<body>{body}</body></html>"
    return {
        "id": f"shop/{split}/{index}",
        "task": task,
        "prompt_text": f"{_ASKED[task]}\n\n{page}",
        "response_strong": response,
        "metadata": {"domain": f"{shop.lower()}.example", "split": split},
        "slot_specs": SLOT_SPECS if task == PRODUCT else {},
    }


def _product_page(rng: random.Random, split: str) -> tuple[list[str], Any]:
    words = _words()
    locale = words["locales"][rng.choice(sorted(words["locales"]))]
    name = f"{_name(rng, split)} {rng.choice(words['articles'])}"
    name += f" {rng.randint(2, 99)}" if rng.random() < 0.5 else ""
    whole = rng.choice((rng.randint(3, 99), rng.randint(100, 4999)))
    price = round(whole + rng.choice((0, 0.5, 0.9, 0.99, 0.95)), 2)
    filled: dict[str, Any] = {"name": name, **dict.fromkeys([*SLOT_SPECS][1:])}
    lines = []
    if rng.random() < 0.5:
        filled["brand"] = _name(rng, split)
        lines.append(locale["brand"].format(b=filled["brand"]))
    if rng.random() < 0.8:
        filled |= {"price": price, "currency": locale["currency"]}
        now = rng.choice(locale["now"]).format(p=_price(price, locale))
        if rng.random() < 0.5:
            higher = price * rng.choice((1.25, 1.5, 2))
            before = rng.choice(locale["before"]).format(p=_price(higher, locale))
            now = rng.choice((f"{now} {before}", f"{before} {now}"))
        lines.append(now)
    else:
        lines.append(locale["request"])
    if rng.random() < 0.5:
        filled["colour"] = rng.choice(locale["colours"])
        lines.append(locale["colour"].format(c=filled["colour"]))
    if rng.random() < 0.4:
        filled["sizes"] = [one for one in _SIZES if rng.random() < 0.6] or ["M"]
        lines.append(locale["sizes"].format(s=rng.choice((", ", " / ")).join(filled["sizes"])))
    if rng.random() < 0.6:
        filled["in_stock"] = rng.random() < 0.6
        lines.append(locale["there" if filled["in_stock"] else "gone"])
    if rng.random() < 0.4:
        lines.append(locale["shipping"].format(p=_price(rng.choice((3.9, 4.95, 6)), locale)))
    if rng.random() < 0.5:
        lines.append(rng.choice(words["sentences"]))
    rng.shuffle(lines)
    return [f"<h1>{escape(name)}</h1>", *(f"<p>{escape(line)}</p>" for line in lines)], filled


def _any_page(rng: random.Random, split: str) -> tuple[list[str], Any]:
    words = _words()
    if rng.random() < 0.5:
        links = rng.sample(words["sections"], rng.randint(3, 6))
        if rng.random() < 0.5:
            links = [f"{link} ({rng.randint(2, 400)})" for link in links]
        head = [f"<h1>{rng.choice(words['sections'])}</h1>"] * (rng.random() < 0.5)
        text = [f"<p>{rng.choice(words['sentences'])}</p>"] * (rng.random() < 0.3)
        listed = "".join(f"<li><a href='/'>{link}</a></li>" for link in links)
        return [*head, f"<ul>{listed}</ul>", *text], "YES"
    match rng.randint(0, 2):
        case 0:
            lines, _ = _product_page(rng, split)
        case 1:
            sentences = rng.sample(words["sentences"], rng.randint(2, 3))
            news = f"<h1>{rng.choice(words['news'])}</h1>"
            lines = [news, *(f"<p>{one}</p>" for one in sentences)]
        case _:
            lines = [f"<p>{rng.choice(words[kind])}</p>" for kind in ("other", "sentences")]
    crumbs = " &gt; ".join(["Home", *rng.sample(words["sections"], rng.randint(1, 2))])
    return [f"<nav>{crumbs}</nav>"] * (rng.random() < 0.4) + lines, "NO"


def _name(rng: random.Random, split: str) -> str:
    """Return a made-up name; those of the two splits differ."""
    syllables = _words()["syllables"]
    while True:
        chosen = [rng.randrange(len(syllables)) for _ in range(rng.randint(2, 3))]
        if (sum(chosen) % _TEST_EVERY == 0) == (split == "test"):
            return "".join(syllables[one] for one in chosen).capitalize()


def _price(value: float, locale: _Words) -> str:
    """Return a price as the locale writes it: 1299.5 -> 1.299,50 €."""
    cents = round(100 * value)
    whole = f"{cents // 100:,}".replace(",", locale["thousands"])
    is_round = cents % 100 == 0 and cents % 500 != 0
    shown = whole if is_round else f"{whole}{locale['decimals']}{cents % 100:02}"
    return str(locale["price"].format(n=shown))


@cache
def _words() -> _Words:
    text = resources.files(__package__).joinpath("shop_pages.toml").read_text(encoding="utf-8")
    return tomllib.loads(text)
