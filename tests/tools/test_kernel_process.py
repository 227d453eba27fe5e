import signal
import sys

import pytest

from nblib.tools.kernel_process import KernelProcess, forwarded_signals, kernel_variables


def test_variables_that_the_user_has_set_stay():
    assert "GLIBC_TUNABLES" not in kernel_variables({"GLIBC_TUNABLES": ""})
    assert "TQDM_MININTERVAL" not in kernel_variables({"TQDM_MININTERVAL": "1"})
    assert kernel_variables({})["TF_CPP_MIN_LOG_LEVEL"] == "3"


def test_the_kernel_is_this_interpreter_whatever_is_installed(tmp_path, monkeypatch):
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path))
    kernel = KernelProcess.in_folder(tmp_path, {"A": "b"})
    assert kernel.kernel_spec.argv[0] == sys.executable
    assert kernel.kernel_spec.env == {"A": "b"}
    assert kernel.connection_file.startswith(str(tmp_path))


def test_a_signal_before_there_is_a_kernel_interrupts_and_handlers_are_put_back(tmp_path):
    before = signal.getsignal(signal.SIGTERM)
    with forwarded_signals(KernelProcess.in_folder(tmp_path, {})) as received:
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGTERM)
        assert received == [signal.SIGTERM]
    assert signal.getsignal(signal.SIGTERM) is before
