"""The command line, `python -m nblib`: `run`, `compare`, `score`, `preflight`, and more (`--help`).

Exit codes: 0 done, 1 the run or its input is wrong, 2 the command is; 130 and 143 after a signal,
141 where the reader of the output has gone.
A command is a function and a parser in `_parser`; what is slow to import, it imports when it runs:
so `--help` answers at once.
"""

import argparse
import contextlib
import os
import signal
import sys
from collections.abc import Sequence
from typing import Any

from nblib.tasks.registry import get_task, task_names
from nblib.tools.hub_commands import add_kernels, add_publish


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code; a system's error is one line, no traceback."""
    try:
        try:
            options = _parser().parse_args(arguments)
            return int(options.command(options))
        finally:
            sys.stdout.flush()  # here, not at the interpreter's exit, where nothing can be answered
    except BrokenPipeError:  # as after `| head -1`
        _drop_output()
        return 128 + signal.SIGPIPE
    except OSError as error:  # a full disk behind the output, for one
        _drop_output()
        print(f"nblib: {error}", file=sys.stderr)
        return 1


def _drop_output() -> None:
    """Let what is still to be printed go nowhere: the interpreter flushes once more at its exit."""
    with contextlib.suppress(OSError):  # the output is no file
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m nblib", description="Run nblib's notebooks.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    _add_run(commands.add_parser("run", help="execute a notebook headless"))
    _add_compare(commands.add_parser("compare", help="compare models and files of answers (eval)"))
    _add_score(commands.add_parser("score", help="score a file of completions, as JSON"))
    add_publish(commands.add_parser("publish", help="send an export to Kaggle or Hugging Face"))
    add_kernels(commands.add_parser("kernels", help="the notebooks as Kaggle kernels"))
    _add_preflight(
        commands.add_parser(
            "preflight", help="does a run fit a machine, and how long would it take"
        )
    )
    commands.add_parser("list", help="name the notebooks").set_defaults(command=_list)
    return parser


def _add_run(run: argparse.ArgumentParser) -> None:
    run.add_argument("notebook", metavar="NOTEBOOK", help="a name in notebooks/, or a path")
    _add_parameters(run)
    run.set_defaults(command=_run)


def _add_compare(compare: argparse.ArgumentParser) -> None:
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


def _add_score(score: argparse.ArgumentParser) -> None:
    score.add_argument(
        "file",
        metavar="FILE",
        help='JSON lines {"reference", "completion"}, or samples_*.jsonl of lm-evaluation-harness;'
        " packed as .gz too; - is standard input",
    )
    score.add_argument(
        "--task",
        choices=task_names(),
        default=task_names()[0],
        help="what was asked, and how it was to be answered (%(default)s)",
    )
    score.add_argument(
        "--skip-unreadable-references",
        action="store_true",
        help="leave out and count the lines whose reference the task cannot read",
    )
    score.set_defaults(command=_score)


def _add_preflight(preflight: argparse.ArgumentParser) -> None:
    preflight.add_argument("notebook", metavar="NOTEBOOK", help="one of kind sft or grpo")
    preflight.add_argument(
        "--target",
        default="cpu",
        help="v3-8, v4-8, v5e-1, v5e-4, v5e-8, v5p-8, v6e-1, v6e-4, v6e-8, gpu-<GiB>, cpu (cpu)",
    )
    preflight.add_argument("--fsdp", type=int, default=0, help="mesh: parts of batch and weights")
    preflight.add_argument("--tp", type=int, default=1, help="mesh: parts of each layer (1)")
    preflight.add_argument("--no-search", action="store_true", help="seek no settings that fit")
    preflight.add_argument("--json", action="store_true", help="print JSON, nothing else")
    _add_parameters(preflight)
    preflight.set_defaults(command=_preflight)


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
    """Run the notebook `eval`: the command and the notebook compare in one way."""
    options.notebook = "eval"
    options.parameters += [["STAGES", repr(options.stages)]] if options.stages else []
    options.parameters += [["ALLOW_MISMATCH", "True"]] if options.allow_mismatch else []
    return _run(options)


def _run(options: argparse.Namespace) -> int:
    from nblib.tools.notebooks import NotebookError, run_notebook

    parameters = _parameters(options)
    if parameters is None:
        return 2
    try:
        folder = run_notebook(options.notebook, parameters)
    except NotebookError as error:
        print(f"nblib: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:  # before the notebook began
        return 130
    print(f"done: {folder}")
    return 0


def _parameters(options: argparse.Namespace) -> dict[str, str] | None:
    """Return the parameters given, None (and a message) where one is given twice."""
    parameters: dict[str, str] = {}
    for name, value in options.parameters:
        if name in parameters:
            print(f"nblib: parameter {name} is given twice", file=sys.stderr)
            return None
        parameters[name] = value
    return parameters


def _preflight(options: argparse.Namespace) -> int:
    """Print what a run needs; exit code 0 where it fits or nothing could be compiled, else 1."""
    from nblib.tools.kernel_process import in_the_kernels_environment
    from nblib.tools.preflight.targets import find_target, prepare_environment

    parameters = _parameters(options)
    if parameters is None:
        return 2
    # What is measured must run as a notebook does.
    restarted = in_the_kernels_environment("nblib") if options.target == "cpu" else None
    if restarted is not None:
        return restarted
    try:
        target = find_target(options.target)
        prepare_environment(target)  # before jax is imported
        from nblib.tools.preflight.command import run_preflight

        report = run_preflight(
            options.notebook,
            target,
            parameters,
            fsdp=options.fsdp,
            tp=options.tp,
            search=not options.no_search,
            say=lambda line: print(line, file=sys.stderr, flush=True),
        )
    except (OSError, ValueError) as error:
        print(f"nblib: {error}", file=sys.stderr)
        return 2
    print(report.to_json() if options.json else report)
    return 0 if report.fits else 1


def _list(options: argparse.Namespace) -> int:
    from nblib.tools.notebooks import list_notebooks

    for name, title in list_notebooks().items():
        print(f"{name:20} {title}")
    return 0


def _score(options: argparse.Namespace) -> int:
    import json

    from nblib.evaluation.score_file import score_file, score_lines

    settings: dict[str, Any] = {
        "task": get_task(options.task),
        "skip_unreadable_references": options.skip_unreadable_references,
    }
    try:
        if options.file == "-":
            metrics = score_lines(sys.stdin.buffer, name="<stdin>", **settings)
        else:
            metrics = score_file(options.file, **settings)
    except (OSError, ValueError) as error:
        print(f"nblib: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    print(json.dumps(metrics, indent=2))
    return 0


if __name__ == "__main__":
    sys.exit(main())
