"""The commands that deal with hubs: `kernels` (Kaggle runs them) and `publish` (exports are sent).

As in `nblib.__main__`, a command imports what is slow to import when it runs.
"""

import argparse
import sys
from functools import partial
from pathlib import Path

from nblib.models.published import LICENCES

TARGETS = ("kaggle-dataset", "kaggle-model", "huggingface")


def add_kernels(kernels: argparse.ArgumentParser) -> None:
    """Declare `kernels` and what can be done with them."""
    actions = kernels.add_subparsers(required=True, metavar="ACTION")
    build = actions.add_parser("build", help="write build/kernels/NOTEBOOK/, nblib's wheel inside")
    build.add_argument("--owner", default="", help="whose kernels (kernel-metadata.json's owner)")
    push = actions.add_parser("push", help="send what was built to Kaggle, which runs it")
    push.add_argument(
        "--dry-run", action="store_true", help="show what would be sent, send nothing"
    )
    state = actions.add_parser("status", help="how the pushed kernels do")
    pull = actions.add_parser("pull-output", help="bring their runs into runs/")
    for action, command in (
        (build, _build_kernels),
        (push, _push_kernels),
        (state, _status_of_kernels),
        (pull, _pull_output),
    ):
        action.add_argument("notebooks", nargs="*", metavar="NOTEBOOK", help="none: all")
        action.set_defaults(command=_kernels, action=command)
    stamp = actions.add_parser("stamp", help="write nblib.REPOSITORY and the version into files")
    stamp.add_argument("files", nargs="+", type=Path, metavar="FILE")
    stamp.set_defaults(command=_kernels, action=_stamp)


def add_publish(publish: argparse.ArgumentParser) -> None:
    """Declare `publish`."""
    publish.add_argument("--to", required=True, choices=TARGETS, help="which hub, and as what")
    publish.add_argument(
        "name", metavar="OWNER/NAME", help="what it is called there; a Kaggle model: [/VARIATION]"
    )
    publish.add_argument(
        "folder",
        nargs="?",
        default="",
        metavar="FOLDER",
        help="an export, or the notebook that made it (the newest of a tuned model)",
    )
    publish.add_argument(
        "--licence", default="", choices=LICENCES, help="where the first base's is not known here"
    )
    publish.add_argument("--yes", action="store_true", help="send it; without: show what would be")
    publish.set_defaults(command=_publish)


def _kernels(options: argparse.Namespace) -> int:
    """Do what was asked with kernels; Kaggle's refusals and wrong files are one line each."""
    from nblib.tools.push import PushError

    try:
        options.action(options)
    except (PushError, ValueError, OSError) as error:
        print(f"nblib: {error}", file=sys.stderr)
        return 1
    return 0


def _build_kernels(options: argparse.Namespace) -> None:
    from nblib.tools.kernels import build_kernels

    for folder in build_kernels(options.notebooks, owner=options.owner):
        print(folder)


def _push_kernels(options: argparse.Namespace) -> None:
    from nblib.tools.kernels import built_kernels
    from nblib.tools.push import described, push_all

    folders = built_kernels(options.notebooks)
    if options.dry_run:
        print(described(folders))
    else:
        push_all(folders, say=partial(print, flush=True))


def _status_of_kernels(options: argparse.Namespace) -> None:
    from nblib.tools.kernels import built_kernels
    from nblib.tools.push import status

    for folder in built_kernels(options.notebooks):
        print(f"{folder.name:20} {status(folder)}", flush=True)


def _pull_output(options: argparse.Namespace) -> None:
    from nblib.tools.kernels import built_kernels
    from nblib.tools.push import pull_output

    for folder in built_kernels(options.notebooks):
        came = pull_output(folder)
        print(f"{folder.name}: {len(came)} new runs", *came, sep="\n  ", flush=True)


def _stamp(options: argparse.Namespace) -> None:
    from nblib.tools.kernels import stamp_files

    for path in stamp_files(options.files):
        print(f"stamped {path}")


def _publish(options: argparse.Namespace) -> int:
    from nblib.tools.publishing import newest_export, plan_package
    from nblib.tools.sending import NotPublished, send

    try:
        folder = newest_export(options.folder)
        package = plan_package(options.to, options.name, folder, licence=options.licence)
        print(package, flush=True)
        if options.yes:
            print(f"published: {send(package)}")
        else:
            print("dry run, nothing was sent: --yes sends it")
    except (OSError, ValueError, NotPublished) as error:
        print(f"nblib: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("nblib: stopped; the export is as it was", file=sys.stderr)
        return 130
    return 0
