"""What the first cell does where nothing has to be installed; where something has to, see
`test_built_kernel.py`."""

import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

from nblib import __version__
from nblib.hosts import install
from nblib.hosts.install import RestartNeeded, install_packages, pinned_packages

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def at_home(monkeypatch):
    for name in ("KAGGLE_KERNEL_RUN_TYPE", "ISTPUVM"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.delitem(sys.modules, "google.colab", raising=False)


@pytest.fixture
def commands(monkeypatch, tmp_path):
    def write(text):
        path = tmp_path / "commands.txt"
        path.write_text(text)
        monkeypatch.setattr(install, "COMMANDS", path)

    return write


def loaded(monkeypatch, name, version):
    module = ModuleType(name)
    module.__version__ = version
    monkeypatch.setitem(sys.modules, name, module)


def test_nothing_happens_where_all_is_there_and_it_is_quick():
    code = (
        f"from nblib.hosts.install import *\ninstall_packages('{__version__}')\n"
        "import sys, time\nprint(time.process_time(), 'jax' in sys.modules)"
    )
    command = [sys.executable, "-c", code]
    answer = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    seconds, has_jax = answer.stdout.split()  # that line alone: nothing else was said
    assert float(seconds) < 1 and has_jax == "False"


def test_the_list_that_travels_is_the_one_at_the_root():
    assert install.COMMANDS.resolve() == ROOT / "kaggle_install_commands.txt"
    assert "jax[tpu]==0.10.2" in pinned_packages()


@pytest.mark.parametrize("text", ["pip install -q a==1\npip install -q b==1", "echo a==1"])
def test_more_than_one_resolver_call_is_refused(commands, text):
    commands(text)
    with pytest.raises(ValueError, match="expected one `pip install -q` of pinned packages"):
        install_packages(__version__)


@pytest.mark.parametrize("pin", ["jax", "jax>=0.10", "jax[tpu,x]==1"])
def test_what_is_no_pin_is_refused(commands, pin):
    commands(f"pip install -q '{pin}'")
    with pytest.raises(ValueError, match="is no pin, expected name==version"):
        install_packages(__version__)


@pytest.mark.parametrize("name", ["jax", "flax", "numpy"])
def test_loaded_before_at_another_version_asks_for_a_restart(monkeypatch, name):
    loaded(monkeypatch, name, "0.7.2")
    with pytest.raises(RestartNeeded, match=rf"^{name} 0.7.2 was loaded before .*: restart") as one:
        install_packages(__version__)
    assert one.value._render_traceback_() == [str(one.value)]


def test_a_local_checkout_is_told_and_left_alone(commands, capsys, monkeypatch):
    commands("pip install -q jaxtyping==9.9.9 flax==0.12.8")
    monkeypatch.delitem(sys.modules, "jaxtyping", raising=False)
    install_packages(__version__)
    said = capsys.readouterr().out
    assert said == "not as pinned: jaxtyping==9.9.9; `make .venv/.ready` installs them\n"


def test_what_is_in_use_stays_but_for_what_moves_with_jax(commands, capsys, monkeypatch):
    commands("pip install -q scipy==9.9.9 optax==9.9.9")
    loaded(monkeypatch, "scipy", "1.0")
    monkeypatch.delitem(sys.modules, "optax", raising=False)
    install_packages(__version__)
    assert "not as pinned: optax==9.9.9;" in capsys.readouterr().out


def test_a_notebook_of_another_version_is_refused():
    with pytest.raises(ValueError, match=f"of nblib 0.0.1, but {__version__} is installed: run"):
        install_packages("0.0.1")


@pytest.mark.parametrize(
    ("tpu", "gpu", "expected"),
    [("1", True, "jax[tpu]==1.0"), ("", True, "jax[cuda12]==1.0"), ("", False, "jax==1.0")],
)
def test_jax_comes_with_what_this_machine_has(monkeypatch, tmp_path, tpu, gpu, expected):
    monkeypatch.setenv("ISTPUVM", tpu)
    monkeypatch.setenv("PATH", str(tmp_path))
    if gpu:
        (tmp_path / "nvidia-smi").touch(mode=0o755)
    assert install._for_accelerator("jax[tpu]==1.0") == expected
    assert install._for_accelerator("flax==1.0") == "flax==1.0"


def test_an_extra_counts_as_there_only_with_what_it_adds():
    version = install._version("jax")
    assert install._is_installed(f"jax=={version}")
    assert install._is_installed(f"jax[tpu]=={version}") is (install._version("libtpu") is not None)
