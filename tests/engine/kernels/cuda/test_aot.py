"""Every kernel compiles for every architecture, spills nothing, and keeps its hot loop short."""

from collections.abc import Iterator

import pytest

from tests.engine.kernels.cuda.aot import Spec, hot_loop, specs
from tests.engine.kernels.cuda.compiler import Compiler
from tests.support.environment import FULL

pytestmark = pytest.mark.cuda_aot

SHARED_BYTES = {80: 163 * 1024, 89: 99 * 1024, 90: 227 * 1024}
"""What a program may have (CUDA C++ Programming Guide, compute capabilities)."""
SPECS = specs()


@pytest.fixture(scope="module")
def compiler() -> Iterator[Compiler]:
    with Compiler() as compiler:
        yield compiler


def wanted_archs(spec: Spec) -> tuple[int, ...]:
    """All with NKATTEST_FULL=1; else integers in the cache are compiled for the usual sizes of heads only."""
    integers, dim = spec.constexprs.get("format", 0) != 0, spec.constexprs.get("key_dim", 128)
    return () if integers and dim not in (64, 128) and not FULL else spec.archs


@pytest.mark.parametrize(
    ("name", "arch"), [(spec.name, arch) for spec in SPECS.values() for arch in wanted_archs(spec)]
)
def test_kernel_compiles(compiler: Compiler, name: str, arch: int) -> None:
    report = compiler.report(name, arch)
    assert "error" not in report, report["error"]
    assert report["spilled_bytes"] == 0
    assert report["shared_bytes"] <= SHARED_BYTES[arch]
    hot = SPECS[name].hot
    if hot is not None:
        assert report["per_weight"] <= hot.ceiling
        assert report["barriers"] == 0


CODE = """
.L_x_1:
        /*0010*/                   MOV R1, c[0x0][0x28] ;
.L_x_0:
        /*0020*/                   LDG.E.128 R4, [R2.64] ;
        /*0030*/              @!P0 IDP.4A.U8.S8 R8, R4, R5, R8 ;
        /*0040*/                   IDP.4A.U8.S8 R8, R6, R7, R8 ;
        /*0050*/               @P1 BRA `(.L_x_0) ;
        /*0060*/                   IDP.4A.U8.S8 R8, R6, R7, R8 ;
        /*0070*/               @P2 BRA `(.L_x_1) ;
        /*0080*/                   EXIT ;
.L_x_2:
        /*0090*/                   BRA `(.L_x_2);
        /*00a0*/                   NOP ;
"""


def test_the_innermost_loop_is_found() -> None:
    assert hot_loop(CODE.splitlines(), "IDP") == ["LDG.E.128", "IDP.4A.U8.S8", "IDP.4A.U8.S8", "BRA"]


def test_a_loop_without_the_instruction_is_an_error() -> None:
    with pytest.raises(ValueError, match="HMMA"):
        hot_loop(CODE.splitlines(), "HMMA")
