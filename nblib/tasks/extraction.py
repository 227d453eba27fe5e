r"""Extraction as a task: a page is read, and its slots are filled as one JSON object.

    prompt      Extract name and price.\n\nMug Rosa, now 12,50 EUR
    completion  {"name": "Mug Rosa", "price": 12.5, "colour": null}
    reference   {"name": "Mug Rosa", "price": 12.5, "colour": null}
    slot_specs  {"name": {"type": "string", "verbatim": true}, "price": {"type": "number"}, ...}
    group       productpage_extractor

What is asked for stands in the prompt, so that a new kind of page needs no code. A kind may also be
answered by one word, as a classifier does: its reference is a text, `"YES"`, and its one slot is
called "answer". A completion that is not strictly what it should be has no slot filled.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from nblib.sources.rows import Row
from nblib.tasks.comparators import normalized
from nblib.tasks.extraction_rows import ANSWER, normalise_extractions, read_record
from nblib.tasks.json_text import read_json_text, write_json_text
from nblib.tasks.leaves import Leaves, compare_slot, is_empty, left_out
from nblib.tasks.slots import LARGEST, Slots, SlotSpec, read_slots
from nblib.tasks.task import Example, Metric, Score, Target, Task, example_of

EXTRA = "(extra)"  # answers in slots that the prompt does not ask for: a model can name thousands
_YES_NO = SlotSpec(type="string", nullable=False, enum=["YES", "NO"])
_TEXT = SlotSpec(type="string", nullable=False)
_OPEN = SlotSpec()

# Code of a failure -> what to do about it; in the order in which they are looked for.
FAILURES: Mapping[str, str] = {
    "truncated": "raise MAX_NEW_TOKENS, or bound the slots' lengths; look for repetition",
    "no JSON": "train on more examples; look at the sample for where its JSON breaks",
    "several values": "every example must end after one object, by the end of the turn",
    "prose around": "remove fences and prose around the object from the examples",
    "not strict JSON": "check the examples' own JSON: a key twice, NaN, half a character",
    "not an object": "the answer must be an object of slots: check the examples",
    "other word": "the answer must be one of the words of the enum, alone",
    "missing slot": "every example must have all its slots, null where the page says nothing",
    "extra slot": "every example must have its own slots alone",
    "wrong type": "look at the slot's values among the examples: are all of its type?",
    "invented": "add examples whose page does not say it: the slot is null there",
    "omitted": "look at the pages: is the value there, and is it cut off?",
    "wrong value": "look at the samples: is it a distractor, or does the comparator ask too much?",
}


def score(completion: str, example: Example) -> Score:
    """Score a completion by its slots; the reference is an object, or a word.

    Example:
        >>> score('{"name": null}', Example(id="1", prompt="", completion="",
        ...       reference={"name": "Mug"})).failure
        'omitted'

    Raises ValueError for a reference of another kind, and for slot_specs that cannot be read.
    """
    slots, gold = _slots(example), _gold(example)
    answer, problem, details = _read(completion, slots, isinstance(example.reference, str))
    source = normalized(example.prompt) if example.prompt else ""
    found: dict[str, Leaves] = {}
    for name, spec in slots.items():
        right = gold.get(name)
        if not spec.counted:
            continue
        if answer is not None:
            found[name] = compare_slot(right, answer.get(name), spec, source=source)
        elif not is_empty(right):  # of what is null nothing can be said without an answer
            found[name] = left_out(right, spec)
    if extra := {name: one for name, one in (answer or {}).items() if name not in slots}:
        found[EXTRA] = compare_slot(None, extra, _OPEN)
    absent = [name for name in found if is_empty(gold.get(name))]
    values, weights = _figures(found, absent, is_read=answer is not None)
    errors = sum(found.values(), Leaves()).errors
    return Score(
        values={
            "schema_valid": problem is None,
            "parse_strict": answer is not None,
            "perfect_record": answer is not None and not errors,
            **values,
        },
        weights=weights,
        slots={name: _counts(leaves) for name, leaves in found.items()},
        answer=answer[ANSWER] if answer and isinstance(example.reference, str) else answer,
        failure=problem or _wrong(found),
        details=details,
    )


def answer_schema(example: Example) -> Mapping[str, Any] | tuple[str, ...]:
    """Return the JSON Schema of an example's completion, or the words that it is one of.

    Raises ValueError where a slot has no type: a grammar would allow anything.
    """
    slots = _slots(example)
    if isinstance(example.reference, str):
        words = slots[ANSWER].enum
        if not words:
            raise ValueError(f"{example.id}: its answer is any text: name its words as an enum")
        return tuple(map(str, words))
    untyped = [name for name, slot in slots.items() if slot.type is None and slot.enum is None]
    if untyped:
        raise ValueError(f"{example.id}: slot {untyped[0]} has no type, expected one for a grammar")
    return slots.schema


def _gold(example: Example) -> Mapping[str, Any]:
    reference = example.reference
    if isinstance(reference, str):
        return {ANSWER: reference}
    if isinstance(reference, Mapping):
        return reference
    raise ValueError(f"the reference is {str(reference)[:40]!r}, expected an object or a text")


def _slots(example: Example) -> Slots:
    """Return what is known of each slot; where no type is said, that of the right value is."""
    slots, gold = read_slots(example.slot_specs), _gold(example)
    if isinstance(example.reference, str):
        given = _YES_NO if example.reference in ("YES", "NO") else _TEXT
        return Slots({ANSWER: slots.get(ANSWER, given)})
    guessed = {
        name: _typed(slots.get(name, _OPEN), value)
        for name, value in gold.items()
        if name not in slots or slots[name].type is None
    }
    return Slots({**slots, **guessed}) if guessed else slots


def _typed(spec: SlotSpec, value: Any) -> SlotSpec:
    """Return a specification without a type with that of its right values, if they have one.

    A number that may be compared as text stays open, and so do objects.
    """
    if spec.enum is not None or spec.compare == "number":
        return spec
    right = [one for one in (value, *spec.accept) if one is not None]
    kinds = {_kind(one) for one in right}
    if len(kinds) != 1 or None in kinds:
        return spec
    size = max(map(len, filter(lambda one: isinstance(one, str | list), right)), default=0)
    bounds = {name: max(size, getattr(spec, name)) for name in ("max_length", "max_items")}
    return spec.model_copy(update={"type": kinds.pop(), **bounds})


def _kind(value: Any) -> str | None:
    if isinstance(value, list):
        return "array" if {None, "array"}.isdisjoint(map(_kind, value)) else None
    if isinstance(value, int | float) and abs(value) > LARGEST:
        return None
    kinds = {bool: "boolean", int: "number", float: "number", str: "string"}
    return kinds.get(type(value))


def _read(
    completion: str, slots: Slots, is_word: bool
) -> tuple[Mapping[str, Any] | None, str | None, dict[str, str]]:
    """Return the slots of an answer, the first rule of the form that it breaks, and where."""
    if is_word:
        word, enum = completion.strip(), slots[ANSWER].enum
        word = word.encode(errors="replace").decode()  # half a character is none for a record
        fits = word in enum if enum else bool(word)
        return ({ANSWER: word}, None, {}) if fits else (None, "other word", _told("", word[:40]))
    text = read_json_text(completion)
    if text.failure:
        return None, text.failure, _told("", text.problem or "")
    if not isinstance(text.value, dict):
        return None, "not an object", _told("", str(text.value)[:40])
    broken = slots.validator.problem(text.value)
    if broken is None:
        return text.value, None, {}
    codes = {"required": "missing slot", "additionalProperties": "extra slot"}
    code = "wrong type" if broken.path else codes[broken.rule]
    return text.value, code, _told(broken.path, broken.message)


def _told(path: str, message: str) -> dict[str, str]:
    return {"path": path, "message": message}


def _figures(
    found: Mapping[str, Leaves], absent: Sequence[str], *, is_read: bool
) -> tuple[dict[str, float], dict[str, float]]:
    """Return the means' values and their weights; what has no part to count has the weight 0."""
    total = sum(found.values(), Leaves())
    shares = {
        "slot_f1": (2 * total.correct, total.answered + total.expected),
        "slot_precision": (total.correct, total.answered),
        "slot_recall": (total.correct, total.expected),
        "invented": (sum(found[name].invented > 0 for name in absent), len(absent)),
        "list_recall": (total.items_found, total.items),
        "grounded": (total.grounded, total.verbatim),
    }
    nothing = {name: float(is_read and name != "invented") for name in shares}
    values = {name: part / of if of else nothing[name] for name, (part, of) in shares.items()}
    return values, {name: of for name, (_, of) in shares.items()}


def _wrong(found: Mapping[str, Leaves]) -> str | None:
    """Return what is wrong with the slots, the worst first."""
    total = sum(found.values(), Leaves())
    kinds = {"invented": total.invented, "omitted": total.omitted, "wrong value": total.wrong}
    return next((kind for kind, count in kinds.items() if count), None)


def _counts(leaves: Leaves) -> dict[str, int]:
    names = ("correct", "wrong", "omitted", "invented", "true_null")
    return {name: count for name in names if (count := getattr(leaves, name))}


def _example(row: Row) -> Example:
    record = read_record(row)
    reference = record.response
    if isinstance(reference, str):
        completion = reference
    else:
        completion = write_json_text({name: reference[name] for name in record.slots})
    example = example_of(
        replace(row, fields={**row.fields, "html": None}),  # which is not asked
        prompt=record.prompt,
        completion=completion,
        reference=reference,
        group=row.group,
    )
    return replace(example, slot_specs=record.slot_specs, system_prompt=record.system_prompt)


EXTRACTION = Task(
    name="extraction",
    system_prompt="",
    metrics=(
        Metric(name="schema_valid", meaning="exactly the slots that are asked for, of their types"),
        Metric(name="parse_strict", meaning="the whole completion is one object, or one word"),
        Metric(name="slot_f1", meaning="harmonic mean of both, over all leaves", kind="mean"),
        Metric(name="slot_precision", meaning="right ones of the leaves given", kind="mean"),
        Metric(name="slot_recall", meaning="right ones of the leaves wanted", kind="mean"),
        Metric(name="perfect_record", meaning="every leaf is right"),
        Metric(
            name="invented",
            meaning="slots filled, of those that are rightly null",
            kind="mean",
            better="lower",
        ),
        Metric(name="list_recall", meaning="items of lists that are found", kind="mean"),
        Metric(name="grounded", meaning="verbatim texts that stand in the page", kind="mean"),
    ),
    headline="slot_f1",
    form="schema_valid",
    grouped_by="task",
    examples=lambda rows: tuple(map(_example, rows)),
    score=score,
    normalise=lambda rows: normalise_extractions(rows).rows,
    reward_weights={"slot_f1": 1.0, "perfect_record": 0.5, "schema_valid": 0.2},
    schema=answer_schema,
    targets=(
        Target(metric="schema_valid", limit=0.97, advice="train longer, or decode with a grammar"),
        Target(metric="slot_f1", limit=0.90, advice="look at the slots' table: which are low?"),
        Target(metric="invented", limit=0.05, advice="add pages that do not say the slot"),
    ),
    advice=FAILURES,
    limits=("What is read is not checked against anything but the page.",),
)
