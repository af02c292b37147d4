"""The run time's part that gives work to threads, as LLVM IR text: shares of loops, barriers.

All threads of a job execute the same statements. A parallel loop is cut into shares, some for each
thread; a thread takes its own shares first, then those that others have not begun, and goes on when
none is left. So a thread that comes late, or that a busy machine does not let run, costs no more
than the share it is at; and it may come at any time: what is done already it passes by.

Each thread counts the loops it has come to, and the shares of all of them. Since all execute the
same statements, a loop has the same number everywhere, and the number of shares up to a barrier
too: the barrier is open as soon as so many shares are done by whomever. The ticket of a thread
holds the loop of which its shares are being taken (from bit 16 on) and how many of them are taken;
a ticket of a later loop tells that nothing of this one is left. What one thread alone executes,
thread 0, counts as one share.

Statements that decide by what is in memory, before it is overwritten, need more than that: in jobs
in which all threads *meet*, a barrier waits for the work and then for all threads.

What a member of the pool holds from byte 32 on: 32 loops come to, 40 shares of them, 48 whose
shares are looked at, counted from the own ones, or -1 between loops, 56 shares done in this loop;
64 ticket.
"""

from __future__ import annotations

SHARES = """
; What is known of a job before it begins: loops and shares of all jobs before.
define internal void @aisc_note(ptr %self) {
  %pool = load ptr, ptr %self
  %lp = getelementptr i8, ptr %self, i64 32
  %loops = load i64, ptr %lp
  %blp = getelementptr i8, ptr %pool, i64 $base loop$
  store i64 %loops, ptr %blp
  %sp = getelementptr i8, ptr %self, i64 40
  %shares = load i64, ptr %sp
  %bsp = getelementptr i8, ptr %pool, i64 $base shares$
  store i64 %shares, ptr %bsp
  ret void
}

; A thread begins at the start of the job.
define internal void @aisc_enlist(ptr %self) {
  %pool = load ptr, ptr %self
  %blp = getelementptr i8, ptr %pool, i64 $base loop$
  %loops = load i64, ptr %blp
  %lp = getelementptr i8, ptr %self, i64 32
  store i64 %loops, ptr %lp
  %bsp = getelementptr i8, ptr %pool, i64 $base shares$
  %shares = load i64, ptr %bsp
  %sp = getelementptr i8, ptr %self, i64 40
  store i64 %shares, ptr %sp
  %vp = getelementptr i8, ptr %self, i64 48
  store i64 -1, ptr %vp
  ret void
}

; So many shares are done: all that they wrote is there.
define internal void @aisc_report(ptr %pool, i32 %count) {
  %dp = getelementptr i8, ptr %pool, i64 $done$
  %d = atomicrmw add ptr %dp, i32 %count seq_cst
  %sleepers = getelementptr i8, ptr %pool, i64 $sleepers$
  call void @aisc_wake(ptr %dp, ptr %sleepers)
  ret void
}

; The next share of the parallel loop that a thread is at, of %n times %each; -1 when none is left.
; %last is what this gave before in the same loop, -1 at first. One thread takes all as share 0.
define i64 @aisc_share(ptr %self, i64 %n, i64 %each, i64 %last) {
entry:
  %alone = icmp ule i64 %n, 1
  br i1 %alone, label %single, label %several
single:
  %first = icmp slt i64 %last, 0
  %all = select i1 %first, i64 0, i64 -1
  ret i64 %all
several:
  %pool = load ptr, ptr %self
  %tidp = getelementptr i8, ptr %self, i64 8
  %tid = load i64, ptr %tidp
  %lp = getelementptr i8, ptr %self, i64 32
  %vp = getelementptr i8, ptr %self, i64 48
  %madep = getelementptr i8, ptr %self, i64 56
  %loops = load i64, ptr %lp
  %v0 = load i64, ptr %vp
  %open = icmp sge i64 %v0, 0
  br i1 %open, label %resume, label %begin
begin:
  %loops1 = add i64 %loops, 1
  store i64 %loops1, ptr %lp
  store i64 0, ptr %madep
  br label %find
resume:
  %made0 = load i64, ptr %madep
  %made1 = add i64 %made0, 1
  store i64 %made1, ptr %madep
  br label %find
find:
  %loop = phi i64 [%loops1, %begin], [%loops, %resume], [%loop, %next]
  %v = phi i64 [0, %begin], [%v0, %resume], [%v1, %next]
  %more = icmp ult i64 %v, %n
  br i1 %more, label %look, label %end
look:
  %sum = add i64 %tid, %v
  %over = icmp uge i64 %sum, %n
  %less = sub i64 %sum, %n
  %whose = select i1 %over, i64 %less, i64 %sum
  %at = mul i64 %whose, $member$
  %place = add i64 %at, $tickets$
  %ticket = getelementptr i8, ptr %pool, i64 %place
  %w0 = load atomic i64, ptr %ticket monotonic, align 8
  br label %try
try:
  %w = phi i64 [%w0, %look], [%w1, %take]
  %its = lshr i64 %w, 16
  %taken = and i64 %w, 65535
  %later = icmp ugt i64 %its, %loop
  %same = icmp eq i64 %its, %loop
  %k = select i1 %same, i64 %taken, i64 0
  %left = icmp ult i64 %k, %each
  %no = xor i1 %later, true
  %free = and i1 %left, %no
  br i1 %free, label %take, label %next
take:
  %head = shl i64 %loop, 16
  %k1 = add i64 %k, 1
  %new = or i64 %head, %k1
  %pair = cmpxchg ptr %ticket, i64 %w, i64 %new acq_rel monotonic
  %w1 = extractvalue {i64, i1} %pair, 0
  %got = extractvalue {i64, i1} %pair, 1
  br i1 %got, label %give, label %try
give:
  store i64 %v, ptr %vp
  %own = mul i64 %whose, %each
  %share = add i64 %own, %k
  ret i64 %share
next:
  %v1 = add i64 %v, 1
  br label %find
end:
  store i64 -1, ptr %vp
  %sp = getelementptr i8, ptr %self, i64 40
  %shares = load i64, ptr %sp
  %these = mul i64 %n, %each
  %shares1 = add i64 %shares, %these
  store i64 %shares1, ptr %sp
  %made = load i64, ptr %madep
  %any = icmp ne i64 %made, 0
  br i1 %any, label %tell, label %leave
tell:
  %count = trunc i64 %made to i32
  call void @aisc_report(ptr %pool, i32 %count)
  br label %leave
leave:
  ret i64 -1
}

; All come past something that thread 0 alone has executed.
define void @aisc_passed(ptr %self, i64 %tid) {
  %none = icmp eq ptr %self, null
  br i1 %none, label %done, label %count
count:
  %sp = getelementptr i8, ptr %self, i64 40
  %shares = load i64, ptr %sp
  %shares1 = add i64 %shares, 1
  store i64 %shares1, ptr %sp
  %first = icmp eq i64 %tid, 0
  br i1 %first, label %tell, label %done
tell:
  %pool = load ptr, ptr %self
  call void @aisc_report(ptr %pool, i32 1)
  br label %done
done:
  ret void
}

; All shares up to here are done before any of the %n threads of the job goes on.
define void @aisc_barrier(ptr %self, i64 %n) {
  %alone = icmp ule i64 %n, 1
  br i1 %alone, label %done, label %look
look:
  %pool = load ptr, ptr %self
  %dp = getelementptr i8, ptr %pool, i64 $done$
  %sleepers = getelementptr i8, ptr %pool, i64 $sleepers$
  %sp = getelementptr i8, ptr %self, i64 40
  %shares = load i64, ptr %sp
  %wanted = trunc i64 %shares to i32
  br label %test
test:
  %there = load atomic i32, ptr %dp acquire, align 4
  %ahead = sub i32 %there, %wanted
  %opened = icmp sge i32 %ahead, 0
  br i1 %opened, label %open, label %wait
wait:
  call void @aisc_wait(ptr %pool, ptr %dp, i32 %there, i64 $inside$, ptr %sleepers)
  br label %test
open:
  %mp = getelementptr i8, ptr %pool, i64 $meets$
  %meets = load i64, ptr %mp
  %all = icmp ne i64 %meets, 0
  br i1 %all, label %meet, label %done
meet:
  call void @aisc_meet(ptr %pool, i64 %n)
  br label %done
done:
  ret void
}

; All %n threads of the job arrive before any leaves.
define internal void @aisc_meet(ptr %pool, i64 %n) {
  %count = getelementptr i8, ptr %pool, i64 $count$
  %phase = getelementptr i8, ptr %pool, i64 $phase$
  %sleepers = getelementptr i8, ptr %pool, i64 $sleepers$
  %before = load atomic i32, ptr %phase acquire, align 4
  %old = atomicrmw add ptr %count, i32 1 acq_rel
  %mine = add i32 %old, 1
  %all = trunc i64 %n to i32
  %last = icmp eq i32 %mine, %all
  br i1 %last, label %open, label %wait
open:
  store atomic i32 0, ptr %count release, align 4
  %p = atomicrmw add ptr %phase, i32 1 seq_cst
  call void @aisc_wake(ptr %phase, ptr %sleepers)
  br label %done
wait:
  call void @aisc_wait(ptr %pool, ptr %phase, i32 %before, i64 $inside$, ptr %sleepers)
  br label %done
done:
  ret void
}
"""
