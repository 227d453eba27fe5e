"""The commands of an extraction that is trained: `extract` reads pages, `project-tokens` counts.

What is slow to import is imported when a command runs.
"""

import signal
import sys
from functools import partial
from pathlib import Path
from typing import Any

import click


@click.command()
@click.argument("package")
@click.argument("pages", type=click.Path(path_type=Path))
@click.option(
    "--out",
    required=True,
    type=click.Path(path_type=Path),
    help="The table of answers: a .duckdb or .jsonl file.",
)
@click.option(
    "--against",
    type=click.Path(path_type=Path),
    help="An earlier table: values that differ are written to OUT.review.csv, to be looked at.",
)
def extract(package: str, pages: Path, out: Path, against: Path | None) -> int:
    """Read the pages of a table by an extraction's export.

    PACKAGE is an export, or the notebook that made it. PAGES is a .duckdb file with a table `pages`
    (or `examples`), or a .jsonl file: id, task, and html or prompt_text; slot_specs and
    system_prompt where a page has its own. The answers of what is done are in OUT.part.jsonl until
    all are: the same command goes on after a stop. The exit code is 1 where no page could be asked.
    """
    from nblib.evaluation.answer_table import read_answers
    from nblib.evaluation.extract import extract as extract_pages
    from nblib.evaluation.review import review_changes
    from nblib.hosts.host import where_am_i
    from nblib.tools.publishing import newest_export

    try:
        earlier = read_answers(against) if against else None
        print("compiled programs:", where_am_i().compiled, file=sys.stderr, flush=True)
        found = extract_pages(newest_export(package), pages, out, say=partial(print, flush=True))
    except KeyboardInterrupt:
        print("nblib: stopped; the same command goes on", file=sys.stderr)
        return 128 + signal.SIGINT
    print(f"{found}\n{out}")
    if earlier is not None:
        print(review_changes(earlier, out))
    return 0 if found.answered else 1


_price = partial(click.option, type=click.FloatRange(min=0))


@click.command()
@click.argument("source", metavar="PACKAGE|RUN|OUT")
@click.argument("pages_per_day", type=click.IntRange(min=1))
@click.option(
    "--budget",
    type=click.IntRange(min=1),
    default=10_000_000,
    show_default=True,
    help="Tokens a day that there are.",
)
@click.option("--backlog", type=click.IntRange(min=0), default=0, help="Pages to be done once.")
@_price("--price-in", help="Of a million tokens in, by the tuned model.")
@_price("--price-out", help="Of a million tokens out.")
@_price("--strong-price-in", help="The same of the strong model.")
@_price("--strong-price-out")
def project_tokens(
    source: str, pages_per_day: int, budget: int, backlog: int, **given: Any
) -> None:
    """Say how many tokens pages take a day, and what they cost.

    Measured are the held-out pages of an extraction's run, or the table OUT that `extract` wrote.
    Prices are given in pairs, in any currency.
    """
    from nblib.tools.token_projection import Projection, measured_tokens, price_pairs

    prices = price_pairs(given)
    where, measured = measured_tokens(source)
    projection = Projection(
        where=where,
        measured=measured,
        pages_per_day=pages_per_day,
        budget=budget,
        backlog=backlog,
        prices=prices,
    )
    print(projection)
