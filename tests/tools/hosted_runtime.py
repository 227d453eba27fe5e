"""A hosted runtime, made here without a network: a Python of its own, a wheel house, no checkout.

It has what this environment has but for what a host lacks or has in an old version. What it lacks
is in the wheel house, packed from the files that are installed here.
"""

import base64
import hashlib
import os
import subprocess
import sys
import zipfile
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

LACKING = ("jax", "flax", "google-tunix", "qwix", "jaxtyping")
OLD = {"jax": "0.7.2", "flax": "0.11.0"}  # as Colab has them
SITE = Path(metadata.distribution("jax").locate_file(""))


@dataclass(frozen=True, kw_only=True)
class Runtime:
    """A host's Python, the empty folder that it works in, and its environment."""

    python: Path
    folder: Path
    environment: dict[str, str]

    def run(self, *command, **variables):
        return subprocess.run(
            [self.python, *command],
            cwd=self.folder,
            env={**self.environment, **variables},
            capture_output=True,
            text=True,
        )


def make_runtime(folder, house, lacking=LACKING):
    python = _python(folder / "python", lacking)
    work = folder / "work"
    work.mkdir()
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(folder),
        "PIP_NO_INDEX": "1",
        "PIP_FIND_LINKS": str(house),
        "PIP_CONFIG_FILE": os.devnull,
        "PIP_DISABLE_PIP_VERSION_CHECK": "1",
        "HF_HUB_OFFLINE": "1",
    }
    return Runtime(python=python, folder=work, environment=environment)


def make_wheel_house(folder, names=LACKING):
    folder.mkdir()
    for name in names:
        _pack(metadata.distribution(name), folder)
    return folder


def _python(folder, names):
    """Everything that is installed here, by links, but what the host lacks, nblib and its path."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
    (own,) = folder.glob("lib/python*/site-packages")
    lacking = {part for name in names for part in _top_level(metadata.distribution(name))}
    linked = folder / "linked"
    linked.mkdir()
    for entry in SITE.iterdir():
        if entry.name not in lacking and "nblib" not in entry.name:
            (linked / entry.name).symlink_to(entry)
    (own / "linked.pth").write_text(str(linked))
    for name in OLD.keys() & {*names}:
        _put_old(own, name, OLD[name])
    return folder / "bin" / "python"


def _top_level(distribution):
    paths = [Path(file) for file in distribution.files]
    return {path.parts[0] for path in paths if path.parts[0] not in ("..", "google")}


def _put_old(site, name, version):
    files = {
        f"{name}/__init__.py": f'__version__ = "{version}"\n',
        f"{name}-{version}.dist-info/METADATA": f"Name: {name}\nVersion: {version}\n",
        f"{name}-{version}.dist-info/INSTALLER": "pip\n",
    }
    record = f"{name}-{version}.dist-info/RECORD"
    files[record] = "".join(f"{path},,\n" for path in (*files, record))
    for path, text in files.items():
        (site / path).parent.mkdir(exist_ok=True)
        (site / path).write_text(text)


def _pack(distribution, folder):
    """Write the wheel that an installed package came from."""
    tags = [line[5:] for line in distribution.read_text("WHEEL").splitlines() if line[:4] == "Tag:"]
    name = distribution.name.replace("-", "_")
    (info,) = {file.parts[0] for file in distribution.files if file.parts[1:] == ("METADATA",)}
    skipped = [f"{info}/{one}" for one in ("RECORD", "INSTALLER", "REQUESTED", "direct_url.json")]
    lines = []
    with zipfile.ZipFile(folder / f"{name}-{distribution.version}-{tags[0]}.whl", "w") as wheel:
        for file in distribution.files:
            if file.parts[0] == ".." or file.suffix == ".pyc" or str(file) in skipped:
                continue
            content = file.read_binary()
            wheel.writestr(str(file), content)
            digest = base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=")
            lines.append(f"{file},sha256={digest.decode()},{len(content)}\n")
        wheel.writestr(f"{info}/RECORD", "".join(lines) + f"{info}/RECORD,,\n")
