"""The run time of CPU programs, as LLVM IR text: thread pool, waiting. How the work of a job is
given to its threads is told in :mod:`aisc.codegen.cpu.shares_runtime`.

Waiting spins first and then sleeps on a futex. Inside an inference the barrier and the join spin
for some 200 microseconds (8,000 pauses): who sleeps earlier is often put on the other's core when
it wakes, which costs a scheduler's slice. Between inferences workers spin as long where inferences
follow each other, that is where the last one began within 200 microseconds of the end of the one
before; else for a moment only, since endless spinning costs slices on a busy machine. So a caller
that comes back at once finds them awake, and one that does not costs no more than one such wait. A
waiter announces itself in a counter before it sleeps, so that nobody pays for a system call to wake
sleepers that do not exist.

A pool that waits *passively*, for hosts whose cores are shared, never spins longer than that
moment: every wait that lasts is a sleep, and nobody is taken to be awake when an inference begins.

A job is open from its start until the calling thread has nothing left to do. A worker that wakes in
time joins it; one that comes later finds it closed and waits for the next. So nobody waits for a
thread that a busy machine does not let run, and the caller leaves when those that joined have left.

Who is woken may be put on the very core that its waker runs on, and stay there: two threads that
sleep and wake in turn look like one to a scheduler. So workers are kept off the core of the calling
thread, whenever it begins a job on another core than the last one, as long as there are cores for
all. Where they do share one they must not spin for each other: who waits offers its core every 25
microseconds where another thread of the job was seen last.

Layout of the pool in bytes (64 apart, so that no two words share a cache line): 0 generation,
64 guests: workers in the job, and a bit that tells that it is closed; 128 function, 136 argument,
144 threads of the job, 152 core of the caller, 160 pauses of a worker after the job, 168 end of the
last inference in nanoseconds, 176 whether the pool waits passively, 184 whether all threads of the
job meet at barriers; 192 threads that have met, 256 number of the meeting, 320 who sleeps between
jobs, 384 stop, 448 shares done, 512 who sleeps within a job, 576 cores that threads may use (128
bytes), 704 and 712 loops and shares before the
job, 720 number of the job; then 128 bytes for each thread, from that of
the caller on: 0 pool, 8 number, 16 core, 24 handle, and what the shares need. The eight bytes
before the pool hold its number of threads.
"""

from __future__ import annotations

from aisc.codegen.cpu.memory_runtime import memory_text
from aisc.codegen.cpu.shares_runtime import SHARES
from aisc.ir.diagnostics import error

GENERATION, GUESTS, FUNCTION, ARGUMENT, THREADS, CORE = 0, 64, 128, 136, 144, 152
PAUSES, ENDED, PASSIVE, MEETS = 160, 168, 176, 184
COUNT, PHASE, IDLE, STOP, DONE, SLEEPERS = 192, 256, 320, 384, 448, 512
ALLOWED, BASE_LOOP, BASE_SHARES, JOB, MEMBERS = 576, 704, 712, 720, 768
MEMBER, TICKET = 128, 64
CLOSED = -(1 << 31)  # the sign of the guests
SPIN_INSIDE, SPIN_BETWEEN, SPIN_LOOK = 8000, 60, 1023  # the last one a mask
FOLLOWS = 200_000  # nanoseconds between two inferences of which the second follows the first
# By architecture: the number of the system call futex, and the intrinsic that tells the core that a
# loop waits, its parameters and arguments: inline assembly would need the parser of each. That of
# RISC-V is an extension which few have.
SYS_FUTEX = {"x86_64": 202, "aarch64": 98, "riscv64": 98}
PAUSE = {
    "x86_64": ("llvm.x86.sse2.pause", "", ""),
    "aarch64": ("llvm.aarch64.hint", "i32", "i32 1"),
    "riscv64": ("llvm.donothing", "", ""),
}
WAIT, WAKE = 128, 129  # private futexes


def pool_bytes(threads: int) -> int:
    """Size of a pool's memory."""
    return MEMBERS + MEMBER * threads


def runtime_text(machine: str) -> str:
    """LLVM IR of the run time for an architecture, the first part of a triple; E402 for others."""
    if machine not in PAUSE:
        raise error("E402", f"there is no run time for {machine}", f"has: {', '.join(PAUSE)}")
    pause, parameters, arguments = PAUSE[machine]
    values = {
        "futex": SYS_FUTEX[machine], "pause": f"@{pause}({arguments})",
        "pause type": f"@{pause}({parameters})", "generation": GENERATION,
        "guests": GUESTS, "function": FUNCTION, "argument": ARGUMENT, "threads": THREADS,
        "core": CORE, "pauses": PAUSES, "ended": ENDED, "passive": PASSIVE, "follows": FOLLOWS,
        "count": COUNT, "phase": PHASE, "idle": IDLE, "sleepers": SLEEPERS, "stop": STOP,
        "members": MEMBERS, "member": MEMBER, "meets": MEETS, "done": DONE, "allowed": ALLOWED,
        "tickets": MEMBERS + TICKET, "job": JOB, "base loop": BASE_LOOP,
        "base shares": BASE_SHARES, "closed": CLOSED,
        "inside": SPIN_INSIDE, "between": SPIN_BETWEEN, "look": SPIN_LOOK,
        "wait": WAIT, "wake": WAKE,
    }  # fmt: skip
    text = _TEXT + SHARES
    for key, value in values.items():
        text = text.replace(f"${key}$", str(value))
    return text + memory_text()


_TEXT = """
declare i64 @syscall(i64, ...)
declare i32 @pthread_create(ptr, ptr, ptr, ptr)
declare i32 @pthread_detach(i64)
declare i32 @clock_gettime(i32, ptr)
declare i32 @sched_getcpu()
declare i32 @sched_yield()
declare void $pause type$
declare i32 @sched_getaffinity(i32, i64, ptr)
declare i32 @pthread_setaffinity_np(i64, i64, ptr)
declare void @llvm.memcpy.p0.p0.i64(ptr, ptr, i64, i1)
declare i64 @llvm.ctpop.i64(i64)

; Offer this core if two threads of the job, of which this may be one, were last seen on it.
define internal void @aisc_offer(ptr %pool) {
entry:
  %here32 = call i32 @sched_getcpu()
  %here = sext i32 %here32 to i64
  %sizep = getelementptr i8, ptr %pool, i64 -8
  %size = load i64, ptr %sizep
  %cp = getelementptr i8, ptr %pool, i64 $core$
  %core = load i64, ptr %cp
  %caller = icmp eq i64 %core, %here
  %first = zext i1 %caller to i64
  br label %loop
loop:
  %k = phi i64 [1, %entry], [%k1, %next]
  %seen = phi i64 [%first, %entry], [%seen1, %next]
  %go = icmp ult i64 %k, %size
  br i1 %go, label %next, label %done
next:
  %at = mul i64 %k, $member$
  %place = add i64 %at, $members$
  %self = getelementptr i8, ptr %pool, i64 %place
  %wp = getelementptr i8, ptr %self, i64 16
  %w = load i64, ptr %wp
  %same = icmp eq i64 %w, %here
  %one = zext i1 %same to i64
  %seen1 = add i64 %seen, %one
  %k1 = add i64 %k, 1
  br label %loop
done:
  %shared = icmp ugt i64 %seen, 1
  br i1 %shared, label %offer, label %leave
offer:
  %r = call i32 @sched_yield()
  br label %leave
leave:
  ret void
}

; Wait until the i32 at %word differs from %old: spin, then sleep, counted among %sleepers.
define internal void @aisc_wait(ptr %pool, ptr %word, i32 %old, i64 %most, ptr %sleepers) {
entry:
  %pp = getelementptr i8, ptr %pool, i64 $passive$
  %passive = load i64, ptr %pp
  %calm = icmp ne i64 %passive, 0
  %spins = select i1 %calm, i64 $between$, i64 %most
  br label %spin
spin:
  %k = phi i64 [0, %entry], [%k1, %next]
  %now = load atomic i32, ptr %word acquire, align 4
  %moved = icmp ne i32 %now, %old
  br i1 %moved, label %done, label %again
again:
  call void $pause$
  %k1 = add i64 %k, 1
  %turn = and i64 %k1, $look$
  %due = icmp eq i64 %turn, 0
  br i1 %due, label %look, label %next
look:
  call void @aisc_offer(ptr %pool)
  br label %next
next:
  %more = icmp ult i64 %k1, %spins
  br i1 %more, label %spin, label %sleep
sleep:
  %s = atomicrmw add ptr %sleepers, i32 1 seq_cst
  br label %check
check:
  %still = load atomic i32, ptr %word seq_cst, align 4
  %same = icmp eq i32 %still, %old
  br i1 %same, label %futex, label %awake
futex:
  %r = call i64 (i64, ...) @syscall(i64 $futex$, ptr %word, i64 $wait$, i32 %old, ptr null,
                                   ptr null, i64 0)
  br label %check
awake:
  %t = atomicrmw sub ptr %sleepers, i32 1 seq_cst
  br label %done
done:
  ret void
}

; Wake whoever sleeps on %word, if there are %sleepers at all.
define internal void @aisc_wake(ptr %word, ptr %sleepers) {
  %s = load atomic i32, ptr %sleepers seq_cst, align 4
  %any = icmp ne i32 %s, 0
  br i1 %any, label %wake, label %done
wake:
  %r = call i64 (i64, ...) @syscall(i64 $futex$, ptr %word, i64 $wake$, i32 2147483647, ptr null,
                                   ptr null, i64 0)
  br label %done
done:
  ret void
}

; Keep the workers of a job of %n threads off the core %here, where there are as many cores.
define internal void @aisc_part(ptr %pool, i64 %n, i64 %here) {
entry:
  %mask = alloca [16 x i64], align 8
  %allowed = getelementptr i8, ptr %pool, i64 $allowed$
  call void @llvm.memcpy.p0.p0.i64(ptr %mask, ptr %allowed, i64 128, i1 false)
  %known = icmp ult i64 %here, 1024
  br i1 %known, label %take, label %done
take:
  %word = lshr i64 %here, 6
  %bit = and i64 %here, 63
  %one = shl i64 1, %bit
  %keep = xor i64 %one, -1
  %at = getelementptr i64, ptr %mask, i64 %word
  %old = load i64, ptr %at
  %new = and i64 %old, %keep
  store i64 %new, ptr %at
  br label %count
count:
  %k = phi i64 [0, %take], [%k1, %count]
  %sum = phi i64 [0, %take], [%sum1, %count]
  %wp = getelementptr i64, ptr %mask, i64 %k
  %w = load i64, ptr %wp
  %bits = call i64 @llvm.ctpop.i64(i64 %w)
  %sum1 = add i64 %sum, %bits
  %k1 = add i64 %k, 1
  %more = icmp ult i64 %k1, 16
  br i1 %more, label %count, label %judge
judge:
  %others = sub i64 %n, 1
  %room = icmp uge i64 %sum1, %others
  br i1 %room, label %loop, label %done
loop:
  %m = phi i64 [1, %judge], [%m1, %move]
  %go = icmp ult i64 %m, %n
  br i1 %go, label %move, label %done
move:
  %place = mul i64 %m, $member$
  %from = add i64 %place, $members$
  %handlep = getelementptr i8, ptr %pool, i64 %from
  %hp = getelementptr i8, ptr %handlep, i64 24
  %handle = load i64, ptr %hp
  %r = call i32 @pthread_setaffinity_np(i64 %handle, i64 128, ptr %mask)
  %m1 = add i64 %m, 1
  br label %loop
done:
  ret void
}

; A worker: take part in every job that is open and has a number of threads above its own number.
define internal ptr @aisc_worker(ptr %self) {
entry:
  %pool = load ptr, ptr %self
  %tidp = getelementptr i8, ptr %self, i64 8
  %tid = load i64, ptr %tidp
  %generation = getelementptr i8, ptr %pool, i64 $generation$
  %idlers = getelementptr i8, ptr %pool, i64 $idle$
  %sleepers = getelementptr i8, ptr %pool, i64 $sleepers$
  %guests = getelementptr i8, ptr %pool, i64 $guests$
  %stopp = getelementptr i8, ptr %pool, i64 $stop$
  br label %idle
idle:
  %seen = phi i32 [0, %entry], [%last, %back]
  %spins = phi i64 [$between$, %entry], [%pauses, %back]
  call void @aisc_wait(ptr %pool, ptr %generation, i32 %seen, i64 %spins, ptr %idlers)
  %now = load atomic i32, ptr %generation acquire, align 4
  %stop = load atomic i32, ptr %stopp acquire, align 4
  %halt = icmp ne i32 %stop, 0
  br i1 %halt, label %leave, label %ask
ask:
  %there = load atomic i32, ptr %guests monotonic, align 4
  br label %join
join:
  %count = phi i32 [%there, %ask], [%found, %enter]
  %late = icmp slt i32 %count, 0
  br i1 %late, label %back, label %enter
enter:
  %count1 = add i32 %count, 1
  %pair = cmpxchg ptr %guests, i32 %count, i32 %count1 acq_rel monotonic
  %found = extractvalue {i32, i1} %pair, 0
  %in = extractvalue {i32, i1} %pair, 1
  br i1 %in, label %look, label %join
look:
  %jp = getelementptr i8, ptr %pool, i64 $job$
  %this = load i32, ptr %jp
  %new = icmp ne i32 %this, %seen
  %np = getelementptr i8, ptr %pool, i64 $threads$
  %n = load i64, ptr %np
  %among = icmp ult i64 %tid, %n
  %mine = and i1 %among, %new
  br i1 %mine, label %work, label %next
work:
  %cpu32 = call i32 @sched_getcpu()
  %cpu = sext i32 %cpu32 to i64
  %cpup = getelementptr i8, ptr %self, i64 16
  store i64 %cpu, ptr %cpup
  call void @aisc_enlist(ptr %self)
  %fp = getelementptr i8, ptr %pool, i64 $function$
  %f = load ptr, ptr %fp
  %ap = getelementptr i8, ptr %pool, i64 $argument$
  %a = load ptr, ptr %ap
  call void %f(ptr %a, i64 %tid, i64 %n, ptr %self)
  br label %next
next:
  %left = atomicrmw sub ptr %guests, i32 1 seq_cst
  call void @aisc_wake(ptr %guests, ptr %sleepers)
  br label %back
back:
  %last = phi i32 [%now, %join], [%this, %next]
  %sp = getelementptr i8, ptr %pool, i64 $pauses$
  %pauses = load atomic i64, ptr %sp monotonic, align 8
  br label %idle
leave:
  ret ptr null
}

; Start workers 1 .. %n - 1; the pool's memory is zero before.
define i32 @aisc_pool_start(ptr %pool, i64 %n) {
entry:
  %allowed = getelementptr i8, ptr %pool, i64 $allowed$
  %got = call i32 @sched_getaffinity(i32 0, i64 128, ptr %allowed)
  %cp = getelementptr i8, ptr %pool, i64 $core$
  store i64 -1, ptr %cp
  br label %loop
loop:
  %k = phi i64 [0, %entry], [%k1, %made]
  %go = icmp ult i64 %k, %n
  br i1 %go, label %make, label %done
make:
  %at = mul i64 %k, $member$
  %place = add i64 %at, $members$
  %self = getelementptr i8, ptr %pool, i64 %place
  store ptr %pool, ptr %self
  %tidp = getelementptr i8, ptr %self, i64 8
  store i64 %k, ptr %tidp
  %cpup = getelementptr i8, ptr %self, i64 16
  store i64 -1, ptr %cpup
  call void @aisc_enlist(ptr %self)
  %caller = icmp eq i64 %k, 0
  br i1 %caller, label %made, label %start
start:
  %handle = getelementptr i8, ptr %self, i64 24
  %r = call i32 @pthread_create(ptr %handle, ptr null, ptr @aisc_worker, ptr %self)
  %bad = icmp ne i32 %r, 0
  br i1 %bad, label %fail, label %let
let:
  %h = load i64, ptr %handle
  %d = call i32 @pthread_detach(i64 %h)
  br label %made
made:
  %k1 = add i64 %k, 1
  br label %loop
fail:
  ret i32 %r
done:
  ret i32 0
}

; Nanoseconds of the steady clock.
define internal i64 @aisc_now() {
  %t = alloca [2 x i64], align 8
  %r = call i32 @clock_gettime(i32 1, ptr %t)
  %s = load i64, ptr %t, align 8
  %np = getelementptr i64, ptr %t, i64 1
  %n = load i64, ptr %np, align 8
  %ns = mul i64 %s, 1000000000
  %now = add i64 %ns, %n
  ret i64 %now
}

; Whether the inference that begins now follows the last one; workers will wait accordingly.
define i1 @aisc_pool_begin(ptr %pool) {
  %now = call i64 @aisc_now()
  %ep = getelementptr i8, ptr %pool, i64 $ended$
  %ended = load i64, ptr %ep
  %gap = sub i64 %now, %ended
  %soon = icmp ult i64 %gap, $follows$
  %pp = getelementptr i8, ptr %pool, i64 $passive$
  %passive = load i64, ptr %pp
  %active = icmp eq i64 %passive, 0
  %follows = and i1 %soon, %active
  %spins = select i1 %follows, i64 $inside$, i64 $between$
  %sp = getelementptr i8, ptr %pool, i64 $pauses$
  store i64 %spins, ptr %sp
  ret i1 %follows
}

; An inference ends.
define void @aisc_pool_end(ptr %pool) {
  %now = call i64 @aisc_now()
  %ep = getelementptr i8, ptr %pool, i64 $ended$
  store i64 %now, ptr %ep
  ret void
}

; Run %f(%arg, tid, n, member) on up to n of the pool's threads, this one being thread 0; with
; %meets all of them take part, and every barrier waits for all.
define void @aisc_pool_run(ptr %pool, ptr %f, ptr %arg, i64 %n, i64 %meets) {
  %fp = getelementptr i8, ptr %pool, i64 $function$
  store ptr %f, ptr %fp
  %ap = getelementptr i8, ptr %pool, i64 $argument$
  store ptr %arg, ptr %ap
  %np = getelementptr i8, ptr %pool, i64 $threads$
  store i64 %n, ptr %np
  %mp = getelementptr i8, ptr %pool, i64 $meets$
  store i64 %meets, ptr %mp
  %self = getelementptr i8, ptr %pool, i64 $members$
  call void @aisc_note(ptr %self)
  %cp = getelementptr i8, ptr %pool, i64 $core$
  %before = load i64, ptr %cp
  %here32 = call i32 @sched_getcpu()
  %here = sext i32 %here32 to i64
  %stays = icmp eq i64 %here, %before
  br i1 %stays, label %open, label %part
part:
  store i64 %here, ptr %cp
  call void @aisc_part(ptr %pool, i64 %n, i64 %here)
  br label %open
open:
  %guests = getelementptr i8, ptr %pool, i64 $guests$
  %sleepers = getelementptr i8, ptr %pool, i64 $sleepers$
  %idlers = getelementptr i8, ptr %pool, i64 $idle$
  %generation = getelementptr i8, ptr %pool, i64 $generation$
  %last = load atomic i32, ptr %generation monotonic, align 4
  %this = add i32 %last, 1
  %jp = getelementptr i8, ptr %pool, i64 $job$
  store i32 %this, ptr %jp
  store atomic i32 0, ptr %guests release, align 4
  %g = atomicrmw add ptr %generation, i32 1 seq_cst
  call void @aisc_wake(ptr %generation, ptr %idlers)
  call void %f(ptr %arg, i64 0, i64 %n, ptr %self)
  %in = atomicrmw or ptr %guests, i32 $closed$ seq_cst
  br label %join
join:
  %left = load atomic i32, ptr %guests acquire, align 4
  %finished = icmp eq i32 %left, $closed$
  br i1 %finished, label %done, label %wait
wait:
  call void @aisc_wait(ptr %pool, ptr %guests, i32 %left, i64 $inside$, ptr %sleepers)
  br label %join
done:
  ret void
}
"""
