"""The command line, `python -m nblib`: `run`, `compare`, `score`, `extract`, and more (`--help`).

Exit codes: 0 done, 1 the run or its input is wrong, 2 the command is; 130 and 143 after a signal,
141 where the reader of the output has gone.
A command imports what is slow to import when it runs, so that `--help` answers at once.
"""

import contextlib
import json
import os
import signal
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import click

from nblib.models.folders import GGUF_KINDS
from nblib.models.licences import LICENCES
from nblib.sources.rows import SourceError
from nblib.tasks.registry import get_task, task_names
from nblib.tools.cluster_commands import serve, sweep
from nblib.tools.extraction_commands import extract, project_tokens
from nblib.tools.preflight.targets import TPUS
from nblib.tools.proof_commands import truth
from nblib.tools.proof_data_commands import generate, verify
from nblib.tools.run_commands import log, runs

Pairs = tuple[tuple[str, str], ...]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code; what is wrong is one line, no traceback."""
    try:
        try:
            return _command(sys.argv[1:] if arguments is None else list(arguments))
        finally:
            sys.stdout.flush()  # here, not at the interpreter's exit, where nothing can be answered
    except OSError as error:  # of the output; the interpreter flushes it once more at its exit
        with contextlib.suppress(OSError):  # the output is no file
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if isinstance(error, BrokenPipeError):  # as after `| head -1`
            return 128 + signal.SIGPIPE
        print(f"nblib: {error}", file=sys.stderr)
        return 1


def _command(arguments: list[str]) -> int:
    try:
        with app.make_context("python -m nblib", arguments) as context:
            return int(app.invoke(context) or 0)
    except click.exceptions.Exit as done:  # after `--help`, or a signal
        return done.exit_code
    except click.UsageError as error:
        error.show()
        return error.exit_code
    except KeyboardInterrupt:
        print("nblib: stopped", file=sys.stderr)
        return 128 + signal.SIGINT
    except BrokenPipeError:
        raise
    except (click.ClickException, OSError, ValueError, SourceError) as error:
        print(f"nblib: {error}", file=sys.stderr)
        return 1


def _unique(pairs: Pairs) -> dict[str, str]:
    values: dict[str, str] = {}
    for name, value in pairs:
        if name in values:
            raise click.UsageError(f"parameter {name} is given twice")
        values[name] = value
    return values


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def app() -> None:
    """Run nblib's notebooks, and what belongs to them."""


for command in (extract, project_tokens, generate, truth, verify, runs, log, serve, sweep):
    app.add_command(command)

_parameters = click.option(
    "-p",
    "parameters",
    nargs=2,
    multiple=True,
    metavar="NAME VALUE",
    help="Set a parameter of the notebook; repeat for more.",
)


@app.command()
@click.argument("notebook")
@_parameters
def run(notebook: str, parameters: Pairs) -> None:
    """Execute NOTEBOOK, a name in notebooks/ or a path, headless."""
    _run(notebook, parameters)


def _run(notebook: str, parameters: Pairs) -> None:
    from nblib.tools.execution import run_notebook

    path = run_notebook(notebook, _unique(parameters))
    if path is not None:  # of several processes the first one speaks
        print(f"done: {path}")


@app.command()
@click.argument("stages", nargs=-1, metavar="[STAGE]...")
@click.option(
    "--allow-mismatch",
    is_flag=True,
    help="Compare files made with other items, prompts or limits, and say so in the report.",
)
@_parameters
def compare(stages: tuple[str, ...], allow_mismatch: bool, parameters: Pairs) -> None:
    """Compare models and files of answers: the notebook `eval`.

    STAGE is name=model, name=model@style (question, format, few-shot) or
    name=predictions.jsonl:stage, the base first. Without one, the newest v1 and v2 are compared.
    """
    if stages:
        parameters += (("STAGES", repr(list(stages))),)
    if allow_mismatch:
        parameters += (("ALLOW_MISMATCH", "True"),)
    _run("eval", parameters)


@app.command()
@click.argument("file")
@click.option(
    "--task",
    type=click.Choice(task_names()),
    default=task_names()[0],
    show_default=True,
    help="What was asked, and how it was to be answered.",
)
@click.option(
    "--skip-unreadable-references",
    is_flag=True,
    help="Leave out and count the lines whose reference the task cannot read.",
)
def score(file: str, task: str, skip_unreadable_references: bool) -> None:
    """Score a file of completions, and print the metrics as JSON.

    FILE holds JSON lines {"reference", "completion"}, or is a samples_*.jsonl of
    lm-evaluation-harness; packed as .gz too; - is standard input.
    """
    from nblib.evaluation.score_file import score_file, score_lines

    lines = partial(score_lines, sys.stdin.buffer, name="<stdin>")
    read = lines if file == "-" else partial(score_file, file)
    skip = skip_unreadable_references
    print(json.dumps(read(task=get_task(task), skip_unreadable_references=skip), indent=2))


@app.command()
@click.option(
    "--to",
    "target",
    type=click.Choice(["kaggle-dataset", "kaggle-model", "huggingface"]),
    required=True,
    help="Which hub, and as what.",
)
@click.argument("name", metavar="OWNER/NAME")
@click.argument("folder", default="")
@click.option(
    "--licence", type=click.Choice(list(LICENCES)), help="Where the first base's is not known here."
)
@click.option("--gguf", type=click.Choice(GGUF_KINDS), help="The model along, for llama.cpp.")
@click.option("--yes", is_flag=True, help="Send it; without, show what would be sent.")
def publish(
    target: str, name: str, folder: str, licence: str | None, gguf: str | None, yes: bool
) -> int:
    """Send an export to Kaggle or Hugging Face, private at first.

    OWNER/NAME is what it is called there, for a Kaggle model also OWNER/NAME/VARIATION. FOLDER is
    an export, or the notebook that made it; without one, the newest export of a tuned model.
    """
    from nblib.tools.publishing import newest_export, plan_package
    from nblib.tools.sending import send

    try:
        given = {"licence": licence or "", "gguf": gguf or ""}
        package = plan_package(target, name, newest_export(folder), **given)
        print(package, flush=True)
        print(f"published: {send(package)}" if yes else "dry run, nothing was sent: --yes sends it")
    except KeyboardInterrupt:
        print("nblib: stopped; the export is as it was", file=sys.stderr)
        return 128 + signal.SIGINT
    return 0


@app.group()
def kernels() -> None:
    """The notebooks as Kaggle kernels. Without a NOTEBOOK, all of them."""


_notebooks = click.argument("notebooks", nargs=-1, metavar="[NOTEBOOK]...")


@kernels.command()
@_notebooks
@click.option("--owner", default="", help="Whose kernels (kernel-metadata.json's owner).")
def build(notebooks: tuple[str, ...], owner: str) -> None:
    """Write build/kernels/NOTEBOOK/, nblib's wheel inside."""
    from nblib.tools.kernels import build_kernels

    print(*build_kernels(notebooks, owner=owner), sep="\n")


@kernels.command()
@_notebooks
@click.option("--dry-run", is_flag=True, help="Show what would be sent, send nothing.")
def push(notebooks: tuple[str, ...], dry_run: bool) -> None:
    """Send what was built to Kaggle, which runs it."""
    from nblib.tools.kernels import built_kernels
    from nblib.tools.push import described, push_all

    if dry_run:
        print(described(built_kernels(notebooks)))
    else:
        push_all(built_kernels(notebooks), say=partial(print, flush=True))


@kernels.command()
@_notebooks
def status(notebooks: tuple[str, ...]) -> None:
    """Say how the pushed kernels do."""
    from nblib.tools.kernels import built_kernels
    from nblib.tools.push import status

    for folder in built_kernels(notebooks):
        print(f"{folder.name:20} {status(folder)}", flush=True)


@kernels.command()
@_notebooks
def pull_output(notebooks: tuple[str, ...]) -> None:
    """Bring the runs of the pushed kernels into runs/."""
    from nblib.tools.kernels import built_kernels
    from nblib.tools.push import pull_output

    for folder in built_kernels(notebooks):
        came = pull_output(folder)
        print(f"{folder.name}: {len(came)} new runs", *came, sep="\n  ", flush=True)


@kernels.command()
@click.argument("files", nargs=-1, required=True, type=click.Path(path_type=Path))
def stamp(files: tuple[Path, ...]) -> None:
    """Write nblib.REPOSITORY and the version into FILES."""
    from nblib.tools.kernels import stamp_files

    for path in stamp_files(files):
        print(f"stamped {path}")


@app.command()
@click.argument("notebook")
@click.option(
    "--target",
    default="cpu",
    show_default=True,
    help=f"{', '.join(TPUS)}, gpu-15, gpu-15x2 or cpu.",
)
@click.option("--fsdp", type=int, default=0, help="Mesh: parts of batch and weights.")
@click.option("--tp", type=int, default=1, show_default=True, help="Mesh: parts of each layer.")
@click.option("--no-search", "search", flag_value=False, default=True, help="Seek no settings.")
@click.option("--fastest", is_flag=True, help="Compile larger batches too, name the fastest.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON, nothing else.")
@_parameters
def preflight(notebook: str, parameters: Pairs, target: str, as_json: bool, **options: Any) -> int:
    """Say whether a run fits a machine, and how long it would take.

    NOTEBOOK is one of kind sft or grpo. The exit code is 0 where the run fits or nothing could be
    compiled, else 1.
    """
    from nblib.tools.execution import in_the_kernels_environment
    from nblib.tools.preflight.targets import find_target, prepare_environment

    values = _unique(parameters)
    if target == "cpu":  # what is measured must run as a notebook does
        restarted = in_the_kernels_environment("nblib")
        if restarted is not None:
            return restarted
    try:
        machine = find_target(target)
        prepare_environment(machine)  # before jax is imported
        from nblib.tools.preflight.command import run_preflight

        say = partial(print, file=sys.stderr, flush=True)
        report = run_preflight(notebook, machine, values, **options, say=say)
    except (OSError, ValueError) as error:
        print(f"nblib: {error}", file=sys.stderr)
        return 2
    print(report.to_json() if as_json else report)
    return 0 if report.fits else 1


@app.command("list")
def list_() -> None:
    """Name the notebooks."""
    from nblib.tools.notebooks import list_notebooks

    for name, title in list_notebooks().items():
        print(f"{name:20} {title}")


if __name__ == "__main__":
    sys.exit(main())
