"""``aisc_<name>(frame)``: memory first, then the body on one thread or on the pool."""

from __future__ import annotations

from aisc.codegen.abi import offset

DECLARATIONS = (
    "declare i1 @aisc_pool_begin(ptr)",
    "declare void @aisc_pool_end(ptr)",
    "declare void @aisc_pool_run(ptr, ptr, ptr, i64, i64)",
)


def fork_text(name: str, dims: int, asleep: int, awake: int, meets: bool) -> str:
    """The function as LLVM IR: the body runs on the pool if the product of the dimensions is at
    least `asleep`, or at least `awake` when this run follows another and its workers therefore
    still wait for it (0: always, -1: never). `meets`: whether barriers wait for all threads."""
    fields = {k: offset(k) for k in ("pool", "threads", "error")}
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
  br i1 %one, label %single, label %choose
single:
  call void @aisc_{name}_body(ptr %frame, i64 0, i64 1, ptr null)
  br label %done
choose:
  %follows = call i1 @aisc_pool_begin(ptr %pool)
{_is_large(dims, asleep, awake)}
  br i1 %large, label %fork, label %alone
alone:
  call void @aisc_{name}_body(ptr %frame, i64 0, i64 1, ptr null)
  br label %end
fork:
  call void @aisc_pool_run(ptr %pool, ptr @aisc_{name}_body, ptr %frame, i64 %n, i64 {int(meets)})
  br label %end
end:
  call void @aisc_pool_end(ptr %pool)
  br label %done
done:
  %ep = getelementptr i8, ptr %frame, i64 {fields["error"]}
  %e = load i64, ptr %ep, align 8
  %code = trunc i64 %e to i32
  ret i32 %code
}}"""


def _is_large(dims: int, asleep: int, awake: int) -> str:
    """Instructions that compute ``%large``: work enough for several threads."""
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
    lines.append(f"  %least = select i1 %follows, i64 {awake}, i64 {asleep}")
    lines.append(f"  %large = icmp uge i64 {total}, %least")  # -1 is the largest number
    return "\n".join(lines)
