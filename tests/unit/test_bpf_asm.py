"""Instructions against their encoding in the kernel's documentation, and the gate's names for its devices."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dom0.dataplane import names
from dom0.dataplane.bpf_asm import DW, R0, R1, R2, R3, R6, R7, B, H, Program, W
from dom0.dataplane.gate_program import SHARED_BYTES, Word, exit_code, gate_code, wire_code


def code(*calls: tuple[object, ...]) -> str:
    program = Program()
    for name, *arguments in calls:
        getattr(program, str(name))(*arguments)
    return program.assemble().hex(" ", 8)


@pytest.mark.parametrize(
    ("call", "encoded"),
    [
        (("mov", R0, 2), "b700000002000000"),
        (("mov", R0, -1), "b7000000ffffffff"),
        (("mov", R3, 0x766D6E74), "b7030000746e6d76"),
        (("mov_reg", R6, R1), "bf16000000000000"),
        (("alu", "add", R2, 14), "070200000e000000"),
        (("alu_reg", "sub", R3, R2), "1f23000000000000"),
        (("alu_reg", "mul", R3, R2), "2f23000000000000"),
        (("load", B, R2, R7, 3), "7172030000000000"),
        (("load", H, R2, R7, 12), "69720c0000000000"),
        (("load", W, R2, R6, 8), "6162080000000000"),
        (("load", DW, R2, R7, 136), "7972880000000000"),
        (("store", W, R6, 8, R3), "6336080000000000"),
        (("atomic_add", R7, 24, R3), "db37180000000000"),
        (("call", 23), "8500000017000000"),
        (("exit",), "9500000000000000"),
        (("map_value", R7, 5), "1827000005000000 0000000000000000"),
    ],
)
def test_known_instructions(call: tuple[object, ...], encoded: str) -> None:
    assert code(call) == encoded


def test_jumps_count_from_the_next_instruction() -> None:
    assert code(("label", "a"), ("jump", "a")) == "0500ffff00000000"
    assert code(("jump_if", "eq", R2, 7, "a"), ("exit",), ("label", "a"), ("exit",)) == (
        "1502010007000000 9500000000000000 9500000000000000"
    )
    assert code(("jump_if_reg", "gt", R2, R3, "a"), ("label", "a"), ("exit",)) == (
        "2d32000000000000 9500000000000000"
    )


def test_a_label_is_there_once() -> None:
    program = Program()
    program.label("a")
    with pytest.raises(ValueError, match="twice"):
        program.label("a")


def test_an_unknown_label_is_refused() -> None:
    program = Program()
    program.jump("nowhere")
    with pytest.raises(KeyError):
        program.assemble()


def test_shared_words_are_aligned_apart_and_inside() -> None:
    assert len(set(Word)) == len(Word.__members__)
    assert all(one % 8 == 0 and one + 8 <= SHARED_BYTES for one in Word)


def test_programs_are_whole_instructions() -> None:
    for program in (gate_code(3), exit_code(3, 4, bytes(6)), wire_code(4, True), wire_code(4, False)):
        assert len(program) % 8 == 0 and 0x95 in program[::8]
    with pytest.raises(ValueError, match="6 bytes"):
        exit_code(3, 4, bytes(5))


@given(st.integers(1, 0xFFFFFF), st.integers(1, 0xFFFFFF))
def test_device_names(one: int, other: int) -> None:
    both = (names.tunnel_name(one), names.park_name(one))
    assert all(len(name) <= 15 and names.is_ours(name) for name in both)
    assert (names.tunnel_name(one) == names.tunnel_name(other)) == (one == other)
    assert both[0] != both[1]


@pytest.mark.parametrize(
    "name", ["eth0", "vmt", "vmtap0", "vmt00000G", "vmx000001", "vmt0000001", "br-vmt", ""]
)
def test_other_devices_are_not_ours(name: str) -> None:
    assert not names.is_ours(name)
