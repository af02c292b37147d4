"""Machine code from LLVM IR text: with long blocks LLVM leaves addresses as they are written."""

import llvmlite.binding as llvm
import pytest

from aisc.codegen.llvm import generate as code
from aisc.codegen.llvm.link import host_machine


def looped(addresses: int) -> str:
    """A loop that adds so many rows of `%a` to those of `%b`."""
    lines = [
        f'target triple = "{host_machine().triple}"',
        "define void @f(ptr noalias %a, ptr noalias %b, i64 %n, i64 %row) {",
        "entry:",
        "  br label %loop",
        "loop:",
        "  %i = phi i64 [ 0, %entry ], [ %next, %loop ]",
    ]
    for k in range(addresses // 2):
        lines += [
            f"  %m{k} = mul i64 %row, {k}",
            f"  %j{k} = add i64 %i, %m{k}",
            f"  %p{k} = getelementptr float, ptr %a, i64 %j{k}",
            f"  %q{k} = getelementptr float, ptr %b, i64 %j{k}",
            f"  %x{k} = load float, ptr %p{k}, align 4",
            f"  %y{k} = load float, ptr %q{k}, align 4",
            f"  %z{k} = fadd float %x{k}, %y{k}",
            f"  store float %z{k}, ptr %q{k}, align 4",
        ]
    lines += [
        "  %next = add i64 %i, 1",
        "  %more = icmp slt i64 %next, %n",
        "  br i1 %more, label %loop, label %end",
        "end:",
        "  ret void",
        "}",
    ]
    return "\n".join(lines)


def listing(text: str) -> str:
    machine = host_machine()
    made = code.generate(text, machine.triple, machine.arch, ",".join(machine.features), True)
    assert made.listing is not None
    return made.listing


def by_llvm_alone(text: str) -> str:
    """Assembly as whoever else uses LLVM in this process gets it."""
    machine = host_machine()
    target = code.target_machine(machine.triple, machine.arch, ",".join(machine.features))
    module = llvm.parse_assembly(text)
    return str(target.emit_assembly(module))


def test_addresses_of_long_blocks_stay_as_they_are_written() -> None:
    short, long = looped(6), looped(2 * code._MANY_ADDRESSES)
    others = by_llvm_alone(short), by_llvm_alone(long)
    assert listing(short) == others[0]
    if host_machine().triple.split("-")[0] in code._ADDING:
        assert listing(long) != others[1]
    # What is generated for long blocks changes nothing for anybody else, nor for short ones.
    assert (by_llvm_alone(short), by_llvm_alone(long)) == others
    assert listing(short) == others[0]


def test_a_fault_leaves_llvm_as_it_was() -> None:
    long = looped(2 * code._MANY_ADDRESSES)
    before = by_llvm_alone(long)
    with pytest.raises(MemoryError), code._loop_strength_reduction(False):
        raise MemoryError
    assert by_llvm_alone(long) == before


@pytest.mark.parametrize("count", [2, 30, 64])
def test_the_longest_block_counts(count: int) -> None:
    assert code._most_addresses(looped(count)) == count
    apart = looped(count).replace("loop:", "  %p = getelementptr float, ptr %a, i64 0\nloop:")
    assert code._most_addresses(apart) == count
