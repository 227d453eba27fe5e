"""The commands that make examples of proofs: `generate` asks a strong model, `verify` another one.

What is slow to import is imported when a command runs.
"""

import fcntl
import math
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from nblib.files import read_jsonl
from nblib.tools.proof_commands import EXPECTED, stated

if TYPE_CHECKING:
    from nblib.evaluation.verifier import Verifier
    from nblib.sources.endpoint import Client
    from nblib.tasks.known_proofs import KnownProof
    from nblib.tasks.proof_sieve import Sieve

_path = click.Path(path_type=Path, dir_okay=False)
_count, _count_or_none = click.IntRange(1), click.IntRange(0)
_HELD_OUT = {"test": 1319, "composed": 180}  # built-in statements that evaluation asks, at most
_SEEDS = 1000  # built-in statements, to show in what manner new ones are wanted
_SHOTS = 200  # built-in rows that worked examples are drawn from
Command = TypeVar("Command", bound=Callable[..., Any])


def _finite(context: click.Context, parameter: click.Parameter, value: Any) -> Any:
    """Refuse numbers that are none, which a range lets through."""
    for one in value if isinstance(value, tuple) else (value,):
        if not math.isfinite(one):
            raise click.BadParameter(f"{one} is no number")
    return value


def _asking(command: Command) -> Command:
    """Add what is asked of an endpoint at most, and what may not be learnt."""
    for option in (
        click.option("--held-out", type=_path, multiple=True, metavar="FILE",
                     help="JSON lines with statements that evaluation asks; repeat for more."),
        click.option("--requests", type=click.IntRange(1), help="At most, attempts again counted."),
        click.option("--tokens", type=click.IntRange(1), help="At most, in and out."),
        click.option("--concurrency", type=click.IntRange(1, 512), default=4, show_default=True,
                     help="Requests at a time."),
        click.option("--timeout", type=click.FloatRange(1, 86400), default=600.0,
                     show_default=True, callback=_finite, help="Seconds for one answer."),
    ):  # fmt: skip
        command = option(command)
    return command


@click.command()
@click.argument("out", type=_path)
@click.option("--seeds", type=_path, help='JSON lines with "statement" or "lean"; else built-in.')
@click.option(
    "--form",
    type=click.Choice(["language", "text"]),
    default="language",
    show_default=True,
    help="Proofs in the language that is checked exactly, or free texts, to be judged.",
)
@click.option("--invent", is_flag=True, help="New statements in the manner of the seeds.")
@click.option(
    "--target", type=_count, default=10_000, show_default=True, help="Rows that are enough."
)
@click.option("--samples", type=_count, default=4, show_default=True, help="Replies of each seed.")
@click.option(
    "--temperature",
    "temperatures",
    type=click.FloatRange(0, 10),
    multiple=True,
    default=(0.7, 1.0),
    show_default=True,
    callback=_finite,
    help="Taken in turn by the samples; repeat for more.",
)
@click.option(
    "--shots", type=_count_or_none, default=6, show_default=True, help="Worked examples shown."
)
@click.option("--max-tokens", type=_count, default=2048, show_default=True, help="Of a reply.")
@_asking
def generate(out: Path, seeds: Path | None, shots: int, **how: Any) -> int:
    """Ask a strong model for proofs, and write every reply to OUT with what became of it.

    The model is that of NBLIB_GENERATOR_URL, _MODEL and _KEY. Seeds that are false or cannot be
    read are left out. Proofs in the language are checked exactly; one of a statement that is proved
    already, or that evaluation asks, is kept as lost. What was answered is kept in OUT.asked.jsonl:
    the same command goes on after a stop, and sends nothing twice. The exit code is 1 where no row
    is of use.
    """
    from nblib.evaluation.proof_generation import Plan, generate
    from nblib.tasks.generated_proofs import LANGUAGE, read_seeds

    say = partial(print, file=sys.stderr, flush=True)
    _check_out(out, seeds, *how["held_out"])
    client = _client("GENERATOR", out, **_taken(how))
    sieve = _sieve(how.pop("held_out"), free_text=how["form"] != LANGUAGE)
    found, refused = read_seeds(_seeds(seeds))
    for name, reason in refused.items():
        say(f"seed {name} is left out: {reason}")
    plan = Plan(seeds=found, shots=_worked(how["form"]), shown=shots, **how)
    made = generate(client, plan, sieve, out, say=say)
    if made.stopped:
        say(f"stopped: {made.stopped}")
    _say_losses(made.rows)
    print(f"{made.sent:,} requests were sent; {made.useful(plan):,} rows of use: {out}")
    return 0 if made.useful(plan) else 1


@click.command()
@click.argument("file", type=_path)
@click.option("--out", type=_path, required=True, help="The rows with their verdicts.")
@click.option(
    "--shots", type=_count_or_none, default=8, show_default=True, help="Judged examples shown."
)
@click.option(
    "--right", type=_count, default=40, show_default=True, help="Right ones to calibrate on."
)
@click.option(
    "--wrong", type=_count, default=80, show_default=True, help="Wrong ones to calibrate on."
)
@click.option(
    "--max-tokens",
    type=_count,
    default=1024,
    show_default=True,
    help="Of an answer; more for models that think.",
)
@click.option("--known", type=_path, help='More of them: statement, proof, "right" a line.')
@_asking
def verify(file: Path, out: Path, known: Path | None, **how: Any) -> int:
    """Give each proof of FILE a verdict: exactly where it is in the language, else by a model.

    The model is that of NBLIB_VERIFIER_URL, _MODEL and _KEY; without them free texts stay as they
    are. It must be another model than the one that wrote the proofs. It is calibrated first, on
    proofs of known truth and on attacks, and asked nothing where too many wrong ones may pass. What
    was answered is kept in OUT.asked.jsonl. The exit code is 1 where no row can be learnt.
    """
    from nblib.evaluation.proof_verification import read_known, read_proofs, verify
    from nblib.report.verifying import verifier_tables
    from nblib.tasks.proof_verdicts import JUDGED, VERIFIED

    _check_out(out, file, known, *how["held_out"])
    counts = {name: how.pop(name) for name in ("shots", "right", "wrong")}
    rows, given = read_proofs(file), read_known(known) if known else ()
    verifier, cases = _verifier(out, rows, given, _taken(how), how.pop("max_tokens"), counts)
    sieve = _sieve(how.pop("held_out"), free_text=True)
    found = verify(rows, sieve, out, verifier=verifier, known=cases)
    if found.calibration:
        tables = verifier_tables(found.calibration, found.model)
        print(*(table.section() for table in tables), sep="\n\n")
    if found.stopped:
        print(f"stopped: {found.stopped}", file=sys.stderr)
    _say_losses(found.rows)
    exact, judged = found.counts[VERIFIED], found.counts[JUDGED]
    print(
        f"{found.sent:,} requests in all; {exact:,} verified exactly, {judged:,} judged right by a "
        f"model: {out}"
    )
    return 0 if exact or judged else 1


def _check_out(out: Path, *inputs: Path | None) -> None:
    """Refuse to write over what is read."""
    for one in filter(None, inputs):
        if out.resolve() == one.resolve():
            raise click.UsageError(f"{out} is read and would be written over: name another file")


def _taken(how: dict[str, Any]) -> dict[str, Any]:
    """Take what a client needs out of a command's options."""
    return {name: how.pop(name) for name in ("requests", "tokens", "concurrency", "timeout")}


def _seeds(file: Path | None) -> list[Any]:
    """Return the records of seeds: of a file, or built-in statements that are trained on."""
    if file is None:
        from nblib.sources.inequalities import inequalities

        rows = inequalities(_SEEDS, seed=0, split="train")
        return [{"name": row.id, "statement": row.fields["statement"]} for row in rows]
    records = read_jsonl(file)
    wrong = [n for n, record in enumerate(records, start=1) if not isinstance(record, dict)]
    if wrong:
        raise ValueError(f"{file}:{wrong[0]}: {EXPECTED}")
    return records


def _worked(form: str) -> tuple[tuple[str, str], ...]:
    """Return worked examples, a few of each technique."""
    from nblib.sources.inequalities import inequalities
    from nblib.tasks.generated_proofs import LANGUAGE
    from nblib.tasks.proof_prose import STYLES, in_prose

    rows = [row.fields for row in inequalities(_SHOTS, seed=1, split="train")]
    return tuple(
        (row["statement"], row["proof"])
        if form == LANGUAGE
        else (row["statement"], in_prose(row["statement"], row["proof"], n % STYLES))
        for n, row in enumerate(rows)
    )


def _sieve(files: Iterable[Path], *, free_text: bool) -> "Sieve":
    """Return what sorts proofs; held out are the built-in statements of evaluation, and files'."""
    from nblib.sources.inequalities import inequalities
    from nblib.tasks.contamination import HeldOut
    from nblib.tasks.proof_sieve import Sieve

    texts = {
        row.id: row.fields["statement"]
        for split, count in _HELD_OUT.items()
        for row in inequalities(count, seed=0, split=split)
    }
    for file in files:
        for number, record in enumerate(_seeds(file), start=1):
            texts[f"{file.name} line {number}"] = stated(record)[0]
    return Sieve(held_out=HeldOut(texts), free_text=free_text)


def _verifier(
    out: Path,
    rows: Sequence[Any],
    given: Sequence["KnownProof"],
    asking: Mapping[str, Any],
    max_tokens: int,
    counts: Mapping[str, int],
) -> tuple["Verifier | None", tuple["KnownProof", ...]]:
    """Return the verifier, and what it is calibrated on; None where no endpoint is set."""
    from nblib.evaluation.proof_verification import generators, make_verifier, read_proofs
    from nblib.evaluation.verifier import check_independent
    from nblib.sources.endpoint import NoEndpoint
    from nblib.tasks.proof_verdicts import JUDGED, MODELS

    try:
        client = _client("VERIFIER", out, **asking)
    except NoEndpoint as error:
        judged = (
            [one for one in read_proofs(out) if one.get("verdict") == JUDGED]
            if out.exists()
            else ()
        )
        if judged:
            raise click.ClickException(
                f"{out} holds {len(judged):,} judged rows: {error}"
            ) from error
        print(f"free texts are not judged: {error}", file=sys.stderr)
        return None, ()
    check_independent(client.endpoint, generators(rows))
    unknown = sum(not row.get(MODELS) for row in rows)
    if unknown:
        print(
            f'{unknown:,} rows do not say which model wrote them ("{MODELS}": ["its name"]): take '
            "care that it is not the verifier",
            file=sys.stderr,
        )
    return make_verifier(client, given=given, rows=rows, max_tokens=max_tokens, **counts)


def _say_losses(rows: Iterable[Mapping[str, Any]]) -> None:
    """Print what became of the rows, by verdict and reason."""
    from nblib.sources.rows import Row
    from nblib.tasks.proof_verdicts import losses

    found = losses(Row(id=str(n), fields=row) for n, row in enumerate(rows))
    for (verdict, reason), count in found.items():
        print(f"{count:>7,}  {verdict}{f': {reason}' if reason else ''}")


def _client(
    name: str, out: Path, *, requests: int | None, tokens: int | None, **how: Any
) -> "Client":
    """Return the client of an endpoint that keeps what was answered beside the rows.

    What an earlier start has spent counts towards the budget.
    """
    from nblib.sources.endpoint import Client, endpoint_from_environment

    endpoint = endpoint_from_environment(
        name, concurrency=how["concurrency"], timeout_s=how["timeout"]
    )
    path = out.with_name(f"{out.name}.asked.jsonl")
    _hold(path)
    client = Client(endpoint, path=path)
    client.limit(requests=requests, tokens=tokens)
    return client


def _hold(path: Path) -> None:
    """Keep other processes from asking the same, until this one ends, however it ends."""
    path.parent.mkdir(parents=True, exist_ok=True)
    file = path.open("a")
    click.get_current_context().call_on_close(file.close)
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise click.ClickException(f"{path}: another process is asking; wait for its end") from None
