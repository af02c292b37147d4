"""``aisc_<name>(frame)``: memory first, then the body on one thread or on the pool."""

from __future__ import annotations

from aisc.codegen.abi import offset


def fork_text(name: str, dims: int, least: int) -> str:
    """The function as LLVM IR: the body runs on the pool if the product of the dimensions is at
    least `least`. The pool's size is kept in the eight bytes before it."""
    fields = {k: offset(k) for k in ("pool", "threads", "error")}
    small = _is_small(dims, least)
    return f"""define i32 @aisc_{name}(ptr %frame) #0 {{
  %status = call i64 @aisc_{name}_setup(ptr %frame)
  %stuck = icmp ne i64 %status, 0
  br i1 %stuck, label %done, label %go
go:
  %np = getelementptr i8, ptr %frame, i64 {fields["threads"]}
  %n = load i64, ptr %np, align 8
  %pp = getelementptr i8, ptr %frame, i64 {fields["pool"]}
  %pool = load ptr, ptr %pp, align 8
  %one = icmp ule i64 %n, 1
{small}
  %single = or i1 %one, %small
  br i1 %single, label %alone, label %fork
alone:
  call void @aisc_{name}_body(ptr %frame, i64 0, i64 1, ptr %pool)
  br label %done
fork:
  %sizep = getelementptr i8, ptr %pool, i64 -8
  %size = load i64, ptr %sizep, align 8
  call void @aisc_pool_run(ptr %pool, i64 %size, ptr @aisc_{name}_body, ptr %frame, i64 %n)
  br label %done
done:
  %ep = getelementptr i8, ptr %frame, i64 {fields["error"]}
  %e = load i64, ptr %ep, align 8
  %code = trunc i64 %e to i32
  ret i32 %code
}}"""


def _is_small(dims: int, least: int) -> str:
    """Instructions that compute ``%small``: too little work for several threads."""
    if least <= 0:
        return f"  %small = or i1 {'true' if least < 0 else 'false'}, false"
    lines = [
        f"  %dp = getelementptr i8, ptr %frame, i64 {offset('dims')}",
        "  %dims = load ptr, ptr %dp, align 8",
    ]
    total = "1"
    for k in range(dims):
        lines.append(f"  %d{k}p = getelementptr i64, ptr %dims, i64 {k}")
        lines.append(f"  %d{k} = load i64, ptr %d{k}p, align 8")
        lines.append(f"  %m{k} = mul i64 {total}, %d{k}")
        total = f"%m{k}"
    lines.append(f"  %small = icmp ult i64 {total}, {least}")
    return "\n".join(lines)
