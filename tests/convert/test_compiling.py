"""Only options that the installed jaxlib knows are given to XLA."""

import jax
import pytest

from convert.parity import compiling

OPTIONS = {"xla_backend_optimization_level": 0, "xla_cpu_use_fusion_emitters": False}


@pytest.mark.parametrize(
    ("installed", "known"),
    [("0.10.2", 2), ("0.11.0", 2), ("0.11.1", 1), ("0.12.0.1", 1), ("1.0.0rc1", 1)],
)
def test_options_go_with_the_release_that_drops_them(installed, known, monkeypatch):
    monkeypatch.setattr(compiling, "version", lambda package: installed)
    assert list(compiling.known_options(OPTIONS)) == list(OPTIONS)[:known]
    assert len(compiling.xla_flags(OPTIONS).split()) == known


def test_flags_are_written_as_xla_reads_them():
    assert compiling.xla_flags({"xla_a": 1, "xla_b": False}) == "--xla_a=1 --xla_b=false"


def test_the_installed_jaxlib_takes_the_options():
    assert jax.jit(lambda x: x + 1, compiler_options=compiling.FAST)(1) == 2
