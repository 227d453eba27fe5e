"""The command line: `python -m nblib run NOTEBOOK -p NAME VALUE`, `compare`, `list`.

Exit codes: 0 done, 1 the run or its input is wrong, 2 the command is; 130 and 143 after a signal.
A command is a function and a parser in `_parser`; what it needs is imported when it runs, so that
`--help` answers at once.
"""

import argparse
import sys
from collections.abc import Sequence


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code."""
    parser = _parser()
    options = parser.parse_args(arguments)
    return int(options.command(options))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m nblib", description="Run nblib's notebooks.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    run = commands.add_parser("run", help="execute a notebook headless")
    run.add_argument("notebook", metavar="NOTEBOOK", help="a name in notebooks/, or a path")
    _add_parameters(run)
    run.set_defaults(command=_run)

    compare = commands.add_parser("compare", help="compare models and files of answers (eval)")
    compare.add_argument(
        "stages",
        nargs="*",
        metavar="STAGE",
        help="name=model, name=model@style (question, format, few-shot) or "
        "name=predictions.jsonl:stage, the base first; none: the newest v1 and v2",
    )
    compare.add_argument(
        "--allow-mismatch",
        action="store_true",
        help="compare files made with other items, prompts or limits, and say so in the report",
    )
    _add_parameters(compare)
    compare.set_defaults(command=_compare)

    bench = commands.add_parser("bench", help="measure speed against the stock way, as ratios")
    bench.add_argument("benches", nargs="*", metavar="NAME", help="which ones; none: all")
    bench.set_defaults(command=_bench)

    listing = commands.add_parser("list", help="name the notebooks")
    listing.set_defaults(command=_list)
    return parser


def _add_parameters(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "-p",
        nargs=2,
        action="append",
        default=[],
        dest="parameters",
        metavar=("NAME", "VALUE"),
        help="set a parameter of the notebook; repeat for more",
    )


def _compare(options: argparse.Namespace) -> int:
    """Run the notebook `eval`: there is one way to compare, whoever asks for it."""
    options.notebook = "eval"
    options.parameters += [["STAGES", repr(options.stages)]] if options.stages else []
    options.parameters += [["ALLOW_MISMATCH", "True"]] if options.allow_mismatch else []
    return _run(options)


def _run(options: argparse.Namespace) -> int:
    from nblib.delivery.notebooks import NotebookError, run_notebook

    parameters: dict[str, str] = {}
    for name, value in options.parameters:
        if name in parameters:
            print(f"nblib: parameter {name} is given twice", file=sys.stderr)
            return 2
        parameters[name] = value
    try:
        folder = run_notebook(options.notebook, parameters)
    except NotebookError as error:
        print(f"nblib: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:  # before the notebook began
        return 130
    print(f"done: {folder}")
    return 0


def _bench(options: argparse.Namespace) -> int:
    from nblib.delivery.bench import run_benches

    try:
        run = run_benches(options.benches)
    except ValueError as error:
        print(f"nblib: {error}", file=sys.stderr)
        return 2
    print(f"done: {run.path}")
    return 0


def _list(options: argparse.Namespace) -> int:
    from nblib.delivery.notebooks import list_notebooks

    for name, title in list_notebooks().items():
        print(f"{name:20} {title}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
