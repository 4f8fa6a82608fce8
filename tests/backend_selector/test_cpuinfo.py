import pytest

from backend_selector.cpuinfo import read_cpuinfo

X86 = (
    "processor\t: {}\nmodel name\t: A CPU\nphysical id\t: {}\ncore id\t\t: {}\n"
    "flags\t\t: fpu fma avx2 avx512f\n\n"
)
TWO_SOCKETS = "".join(
    X86.format(number, socket, core)
    for number, (socket, core) in enumerate([(0, 0), (0, 1), (1, 0), (1, 1), (0, 0), (0, 1), (1, 0), (1, 1)])
)
ARM = (
    "".join(f"processor\t: {number}\nFeatures\t: fp asimd\n\n" for number in range(4)) + "Model\t: A board\n"
)


@pytest.mark.parametrize(
    ("text", "allowed", "cores", "features", "model"),
    [
        (TWO_SOCKETS, range(8), 4, ("avx2", "fma", "avx512f"), "A CPU"),
        (TWO_SOCKETS, {0, 4}, 1, ("avx2", "fma", "avx512f"), "A CPU"),
        (TWO_SOCKETS, {0, 1, 2}, 3, ("avx2", "fma", "avx512f"), "A CPU"),
        (ARM, range(4), 4, ("neon",), "unknown"),
        ("", range(3), 3, (), "unknown"),
        ("processor : x\n\nnonsense", {0}, 1, (), "unknown"),
        ("", (), 1, (), "unknown"),
    ],
)
def test_processors(text: str, allowed: set[int], cores: int, features: tuple[str, ...], model: str) -> None:
    cpu = read_cpuinfo(text, allowed)
    assert (cpu.physical_cores, cpu.features, cpu.model) == (cores, features, model)
