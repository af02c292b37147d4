"""The run time's part for memory, as LLVM IR text: growing a segment, placing its slots."""

from __future__ import annotations

from aisc.codegen.abi import NO_MEMORY

# `aisc_place` is aisc.ir.tensor.first_fit.first_fit on rounded sizes: what is placed need not be
# kept in order, as the start only ever moves up to the end of something that is in the way.
_TEXT = """
declare ptr @aligned_alloc(i64, i64)
declare void @free(ptr)

; A segment is two words: its base and its capacity in bytes. Make the capacity at least %size; a
; negative size is one that is too large. Gives 0, or an error code. With %keep the contents stay,
; and the capacity at least doubles when it grows.
define i64 @aisc_reserve(ptr %segment, i64 %size, i1 %keep) {
entry:
  %capp = getelementptr i64, ptr %segment, i64 1
  %cap = load i64, ptr %capp
  %negative = icmp slt i64 %size, 0
  br i1 %negative, label %bad, label %look
look:
  %base = load ptr, ptr %segment
  %null = icmp eq ptr %base, null
  %small = icmp slt i64 %cap, %size
  %need = or i1 %null, %small
  br i1 %need, label %grow, label %good
grow:
  %twice = shl i64 %cap, 1
  %more = icmp sgt i64 %twice, %size
  %both = and i1 %more, %keep
  %wanted = select i1 %both, i64 %twice, i64 %size
  %up = add i64 %wanted, 64
  %whole = and i64 %up, -64
  br i1 %keep, label %make, label %drop
drop:
  call void @free(ptr %base)
  store ptr null, ptr %segment
  store i64 0, ptr %capp
  br label %make
make:
  %new = call ptr @aligned_alloc(i64 64, i64 %whole)
  %failed = icmp eq ptr %new, null
  br i1 %failed, label %bad, label %made
made:
  %copy = and i1 %keep, true
  br i1 %copy, label %save, label %set
save:
  call void @llvm.memcpy.p0.p0.i64(ptr %new, ptr %base, i64 %cap, i1 false)
  call void @free(ptr %base)
  br label %set
set:
  store ptr %new, ptr %segment
  store i64 %whole, ptr %capp
  br label %good
good:
  ret i64 0
bad:
  ret i64 $no_memory$
}

; Offsets of %n slots from their sizes and spans (first, last); gives the bytes they take together.
define i64 @aisc_place(ptr %sizes, ptr %offsets, ptr %spans, i64 %n) {
entry:
  %total = alloca i64
  store i64 0, ptr %total
  %round = alloca i64
  store i64 0, ptr %round
  %best = alloca i64
  %largest = alloca i64
  %start = alloca i64
  %j = alloca i64
  br label %clear
clear:
  %c = load i64, ptr %round
  %cmore = icmp slt i64 %c, %n
  br i1 %cmore, label %clear1, label %begin
clear1:
  %cp = getelementptr i64, ptr %offsets, i64 %c
  store i64 -1, ptr %cp
  %c1 = add i64 %c, 1
  store i64 %c1, ptr %round
  br label %clear
begin:
  store i64 0, ptr %round
  br label %next
next:
  %r = load i64, ptr %round
  %rmore = icmp slt i64 %r, %n
  br i1 %rmore, label %choose, label %done
choose:
  store i64 -1, ptr %largest
  store i64 0, ptr %j
  br label %pick
pick:
  %p = load i64, ptr %j
  %pmore = icmp slt i64 %p, %n
  br i1 %pmore, label %pick1, label %fit
pick1:
  %pop = getelementptr i64, ptr %offsets, i64 %p
  %po = load i64, ptr %pop
  %open = icmp eq i64 %po, -1
  %psp = getelementptr i64, ptr %sizes, i64 %p
  %ps = load i64, ptr %psp
  %old = load i64, ptr %largest
  %bigger = icmp sgt i64 %ps, %old
  %take = and i1 %open, %bigger
  br i1 %take, label %pick2, label %pick3
pick2:
  store i64 %p, ptr %best
  store i64 %ps, ptr %largest
  br label %pick3
pick3:
  %p1 = add i64 %p, 1
  store i64 %p1, ptr %j
  br label %pick
fit:
  %k = load i64, ptr %best
  %size = load i64, ptr %largest
  %k2 = shl i64 %k, 1
  %kfp = getelementptr i64, ptr %spans, i64 %k2
  %kf = load i64, ptr %kfp
  %k21 = add i64 %k2, 1
  %klp = getelementptr i64, ptr %spans, i64 %k21
  %kl = load i64, ptr %klp
  store i64 0, ptr %start
  br label %again
again:
  store i64 0, ptr %j
  br label %scan
scan:
  %q = load i64, ptr %j
  %qmore = icmp slt i64 %q, %n
  br i1 %qmore, label %scan1, label %place
scan1:
  %qop = getelementptr i64, ptr %offsets, i64 %q
  %qo = load i64, ptr %qop
  %there = icmp sge i64 %qo, 0
  %q2 = shl i64 %q, 1
  %qfp = getelementptr i64, ptr %spans, i64 %q2
  %qf = load i64, ptr %qfp
  %q21 = add i64 %q2, 1
  %qlp = getelementptr i64, ptr %spans, i64 %q21
  %ql = load i64, ptr %qlp
  %before = icmp sle i64 %qf, %kl
  %after = icmp sle i64 %kf, %ql
  %meet = and i1 %before, %after
  %qsp = getelementptr i64, ptr %sizes, i64 %q
  %qs = load i64, ptr %qsp
  %qe = add i64 %qo, %qs
  %s = load i64, ptr %start
  %e = add i64 %s, %size
  %below = icmp slt i64 %qo, %e
  %above = icmp sgt i64 %qe, %s
  %cross = and i1 %below, %above
  %both = and i1 %meet, %cross
  %way = and i1 %there, %both
  %q1 = add i64 %q, 1
  store i64 %q1, ptr %j
  br i1 %way, label %move, label %scan
move:
  store i64 %qe, ptr %start
  br label %again
place:
  %at = load i64, ptr %start
  %kop = getelementptr i64, ptr %offsets, i64 %k
  store i64 %at, ptr %kop
  %end = add i64 %at, %size
  %t = load i64, ptr %total
  %larger = icmp sgt i64 %end, %t
  %most = select i1 %larger, i64 %end, i64 %t
  store i64 %most, ptr %total
  %r1 = add i64 %r, 1
  store i64 %r1, ptr %round
  br label %next
done:
  %result = load i64, ptr %total
  ret i64 %result
}
"""


# For runs under guard: memory between two pages that cannot be touched, at the end of what lies
# between them or at its start. One more page before tells the size of the whole.
_GUARDED = """
declare ptr @mmap(ptr, i64, i32, i32, i32, i64)
declare i32 @mprotect(ptr, i64, i32)
declare i32 @munmap(ptr, i64)

define ptr @aisc_guarded_alloc(i64 %align, i64 %size) {
  %up = add i64 %size, 4095
  %inner = and i64 %up, -4096
  %all = add i64 %inner, 12288
  %base = call ptr @mmap(ptr null, i64 %all, i32 3, i32 34, i32 -1, i64 0)
  %failed = icmp eq ptr %base, inttoptr (i64 -1 to ptr)
  br i1 %failed, label %bad, label %good
bad:
  ret ptr null
good:
  store i64 %all, ptr %base
  %before = getelementptr i8, ptr %base, i64 4096
  %first = call i32 @mprotect(ptr %before, i64 4096, i32 0)
  %start = getelementptr i8, ptr %base, i64 8192
  %stop = getelementptr i8, ptr %start, i64 %inner
  %last = call i32 @mprotect(ptr %stop, i64 4096, i32 0)
  %left = sub i64 %inner, %size
  %at = select i1 $at_end$, i64 %left, i64 0
  %p = getelementptr i8, ptr %start, i64 %at
  ret ptr %p
}

define void @aisc_guarded_free(ptr %p) {
  %null = icmp eq ptr %p, null
  br i1 %null, label %done, label %some
some:
  %word = ptrtoint ptr %p to i64
  %page = and i64 %word, -4096
  %at = sub i64 %page, 8192
  %base = inttoptr i64 %at to ptr
  %all = load i64, ptr %base
  %status = call i32 @munmap(ptr %base, i64 %all)
  br label %done
done:
  ret void
}
"""


def guarded_text(text: str, at_end: bool) -> str:
    """The run time with segments of exactly the sizes that are asked for, under guard."""
    for old, new in (
        ("declare ptr @aligned_alloc(i64, i64)\ndeclare void @free(ptr)\n", _GUARDED),
        ("@aligned_alloc(", "@aisc_guarded_alloc("), ("@free(", "@aisc_guarded_free("),
        ("%whole = and i64 %up, -64", "%whole = add i64 %wanted, 0"),
    ):  # fmt: skip
        assert old in text, f"the run time has no {old}"
        text = text.replace(old, new)
    return text.replace("$at_end$", "true" if at_end else "false")


def memory_text() -> str:
    """LLVM IR of the memory functions; ``llvm.memcpy`` is declared by the rest of the run time."""
    return _TEXT.replace("$no_memory$", str(NO_MEMORY))
