"""Tables of proofs: what rows there are, proofs line by line with their marks, and what breaks."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from nblib.report.tables import Table, in_words
from nblib.tasks.proof_verdicts import AT_MOST, REASONS, is_believed, losses
from nblib.tasks.proofs import PROOFS, proof_lines
from nblib.tasks.task import Example, Task

if TYPE_CHECKING:
    from nblib.evaluation.answers import Stage
    from nblib.report.samples import Sample
    from nblib.sources.rows import Dataset

_MOST_SHOWN = 200  # characters of a completion that is no proof


def proof_rows_table(task: Task, data: "Dataset") -> Table:
    """Return a row a technique: how many rows each split has of it, and how long its proofs are.

    Rows that the task leaves out, as they did not pass, are not counted.
    """
    splits = {"train": task.normalise(data.train), "test": task.normalise(data.test)}
    counts = {
        name: Counter(row.fields["technique"] for row in rows) for name, rows in splits.items()
    }
    lengths: dict[str, set[int]] = {}
    for row in (*splits["train"], *splits["test"]):
        length = len(row.fields["proof"].strip().splitlines())
        lengths.setdefault(row.fields["technique"], set()).add(length)
    rows = []
    for name, lines in lengths.items():
        few, most = min(lines), max(lines)
        found = f"{few} to {most}" if len(lines) > 2 else " or ".join(map(str, sorted(lines)))
        rows.append((name, found, *(f"{count[name]:,}" for count in counts.values())))
    return Table(
        title="Rows by technique",
        columns=("technique", "lines", *counts),
        rows=tuple(rows),
        note=data.origin,
    )


def proof_losses_table(data: "Dataset") -> Table:
    """Return a row a verdict and reason: how many generated proofs passed, or were lost where.

    None for rows without a verdict: their task checks each of them.
    """
    both = (*data.train, *data.test)
    found = losses(both)
    at_most = max((row.fields[AT_MOST] for row in both if is_believed(row.fields)), default=None)
    notes = {"judged": f"its verifier's false accepts: at most {at_most:.1%}"} if at_most else {}
    rows = tuple(
        (
            *(verdict, reason, f"{count:,}", f"{count / len(both):.3f}"),
            REASONS.get(reason, notes.get(verdict, "")),
        )
        for (verdict, reason), count in found.items()
    )
    return Table(
        title="What became of the generated proofs",
        columns=("verdict", "reason", f"rows of {len(both):,}", "share", "what to do or to know"),
        rows=rows,
        note="verified: every line by exact arithmetic; judged: accepted by another model, whose "
        "false accepts were measured, at the upper end of their 95 % interval; the two are never "
        "added up"
        if rows
        else "",
    )


def proof_table(task: Task, examples: Sequence[Example]) -> Table:
    """Return a row an example: the statement, and each line of its proof with its mark.

    ```
    | technique | statement | proof |
    | --- | --- | --- |
    | AM-GM | `a^2+b^2 >= 2ab for a, b > 0` | `✓ AM-GM a^2, b^2: a^2+b^2 >= 2ab` |
    ```
    """
    rows = ((one.group, one.reference, _shown(task, one.completion, one)) for one in examples)
    columns = ("technique", "statement", "proof")
    return Table(title="Proofs", columns=columns, rows=tuple(rows), verbatim=columns[1:])


def proof_samples_table(task: Task, samples: Iterable["Sample"]) -> Table:
    """Return a row a sample: the statement, and its proofs before and after, line by line."""
    samples = [*samples]
    stages = [*samples[0].records] if samples else []
    rows = []
    for one in samples:
        proofs = (_judged(task, record) for record in one.records.values())
        rows.append((f"{one.id}\n{one.kind}", one.group, one.reference, *proofs))
    columns = ("statement", *map(in_words, stages))
    return Table(
        title="Proofs before and after",
        columns=("item", "technique", *columns),
        rows=tuple(rows),
        note="✓ a line that its rule allows, ✗ one that it does not, and why" if rows else "",
        verbatim=columns,
    )


def marked_proof(completion: str, example: Example) -> str:
    """Return each line with its mark, as the task's checker judges it, and why one is bad.

    ```
    ✓ AM-GM a^2, b^2: a^2+b^2 >= 2ab
    ✗ Sum 2(1): a^2+b^2 >= ab   [left - right is not the sum]
    ```

    The completion as it is where no line of a proof is found.
    """
    found = [(mark[:1], text, mark[1:].strip()) for mark, text in proof_lines(completion, example)]
    if not any(text for _, text, _ in found):
        return completion
    return "\n".join(
        " ".join(filter(None, (mark, text or why, f"  [{why}]" if text and why else "")))
        for mark, text, why in found
    )


def proof_failures_table(
    task: Task, stages: Sequence["Stage"], failures: Mapping[str, Mapping[str, int]]
) -> Table:
    """Return a row a reason for which proofs were refused: the first bad line's; commonest first.

    `failures` are stage -> reason -> proofs, of `evaluation.failure_counts`. The one that is shown
    is of the last stage that has any.
    """
    from nblib.evaluation.comparison import failure_kind  # brings jax

    rows = []
    for kind in next(iter(failures.values()), {}):
        counts = (str(count[kind]) for count in failures.values())
        records = [one for stage in reversed(stages) for one in stage.records]
        broken = next(one for one in records if kind == (failure_kind(one, task) or one["failure"]))
        rows.append((kind, *counts, _first_bad(broken), task.advice.get(kind, "")))
    return Table(
        title="Why proofs are refused",
        columns=("first bad line", *map(in_words, failures), "one of them", "what to do"),
        rows=tuple(rows),
        verbatim=("one of them",),
    )


def _judged(task: Task, record: Mapping[str, Any]) -> str:
    """Return the verdict on a proof, then its lines."""
    right = "verified" if task.name == PROOFS.name else "has the form"
    verdict = f"✓ {right}" if task.is_right(record) else f"✗ {record['failure']}"
    return f"{verdict}\n{_shown(task, record['completion'], _asked(record))}"


def _shown(task: Task, completion: str, example: Example) -> str:
    """Return a proof with its marks, or as it is where no line of it can be checked."""
    return marked_proof(completion, example) if task.name == PROOFS.name else completion


def _first_bad(record: Mapping[str, Any]) -> str:
    """Return the first bad line of a proof and what is wrong with it, else how it begins."""
    details = record["details"]
    if details.get("text"):
        return f"{details['text']}\n{details['reason']}"
    return str(record["completion"][:_MOST_SHOWN])


def _asked(record: Mapping[str, Any]) -> Example:
    made = {"prompt": record["question"], "completion": "", "group": record["group"]}
    return Example(id=record["id"], reference=record["reference"], **made)
