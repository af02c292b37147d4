"""The run time of CPU programs, as LLVM IR text: barrier, thread pool, waiting.

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

Who is woken may be put on the very core that its waker runs on, and stay there: two threads that
sleep and wake in turn look like one to a scheduler. So a worker that finds itself on the core of
the calling thread excludes that core from its own affinity until it meets the caller elsewhere.
Until then the two must not spin for each other: a worker that has woken the caller at the end of a
job offers its core once, and so does, every 25 microseconds, who waits on a core where another
thread of the job was seen last.

Layout of the pool in bytes (64 apart, so that no two words share a cache line): 0 generation,
64 pending, 128 function, 136 argument, 144 threads of the job, 152 core of the caller, 160 pauses
of a worker after the job, 168 end of the last inference in nanoseconds, 176 whether the pool waits
passively, 192 barrier count, 256 barrier generation, 320 sleepers, 384 stop; then 32 bytes (pool,
tid, core) per worker from 448. The eight bytes before the pool hold its number of threads.
"""

from __future__ import annotations

from aisc.codegen.cpu.memory_runtime import memory_text
from aisc.ir.diagnostics import error

GENERATION, PENDING, FUNCTION, ARGUMENT, THREADS, CORE = 0, 64, 128, 136, 144, 152
PAUSES, ENDED, PASSIVE = 160, 168, 176
COUNT, PHASE, SLEEPERS, STOP, WORKERS = 192, 256, 320, 384, 448
WORKER = 32
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
    return WORKERS + WORKER * threads


def runtime_text(machine: str) -> str:
    """LLVM IR of the run time for an architecture, the first part of a triple; E402 for others."""
    if machine not in PAUSE:
        raise error("E402", f"there is no run time for {machine}", f"has: {', '.join(PAUSE)}")
    pause, parameters, arguments = PAUSE[machine]
    values = {
        "futex": SYS_FUTEX[machine], "pause": f"@{pause}({arguments})",
        "pause type": f"@{pause}({parameters})", "generation": GENERATION,
        "pending": PENDING, "function": FUNCTION, "argument": ARGUMENT, "threads": THREADS,
        "core": CORE, "pauses": PAUSES, "ended": ENDED, "passive": PASSIVE, "follows": FOLLOWS,
        "count": COUNT, "phase": PHASE, "sleepers": SLEEPERS, "stop": STOP, "workers": WORKERS,
        "inside": SPIN_INSIDE, "between": SPIN_BETWEEN, "look": SPIN_LOOK, "worker": WORKER,
        "wait": WAIT, "wake": WAKE,
    }  # fmt: skip
    text = _TEXT
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
declare i32 @sched_setaffinity(i32, i64, ptr)
declare void @llvm.memcpy.p0.p0.i64(ptr, ptr, i64, i1)
declare void @llvm.memset.p0.i64(ptr, i8, i64, i1)

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
  %at = mul i64 %k, $worker$
  %place = add i64 %at, $workers$
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

; Wait until the i32 at %word differs from %old: spin, then sleep.
define internal void @aisc_wait(ptr %pool, ptr %word, i32 %old, i64 %most) {
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
  %sleepers = getelementptr i8, ptr %pool, i64 $sleepers$
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

; Wake whoever sleeps on %word, if anybody sleeps at all, and tell whether somebody did.
define internal i1 @aisc_wake(ptr %pool, ptr %word) {
  %sleepers = getelementptr i8, ptr %pool, i64 $sleepers$
  %s = load atomic i32, ptr %sleepers seq_cst, align 4
  %any = icmp ne i32 %s, 0
  br i1 %any, label %wake, label %done
wake:
  %r = call i64 (i64, ...) @syscall(i64 $futex$, ptr %word, i64 $wake$, i32 2147483647, ptr null,
                                   ptr null, i64 0)
  br label %done
done:
  ret i1 %any
}

; All %n threads of the job arrive before any leaves.
define void @aisc_barrier(ptr %pool, i64 %n) {
  %alone = icmp sle i64 %n, 1
  br i1 %alone, label %done, label %arrive
arrive:
  %count = getelementptr i8, ptr %pool, i64 $count$
  %phase = getelementptr i8, ptr %pool, i64 $phase$
  %before = load atomic i32, ptr %phase acquire, align 4
  %old = atomicrmw add ptr %count, i32 1 acq_rel
  %mine = add i32 %old, 1
  %all = trunc i64 %n to i32
  %last = icmp eq i32 %mine, %all
  br i1 %last, label %open, label %wait
open:
  store atomic i32 0, ptr %count release, align 4
  %p = atomicrmw add ptr %phase, i32 1 seq_cst
  %w = call i1 @aisc_wake(ptr %pool, ptr %phase)
  br label %done
wait:
  call void @aisc_wait(ptr %pool, ptr %phase, i32 %before, i64 $inside$)
  br label %done
done:
  ret void
}

; Leave the core of the calling thread, if this thread may run on another one.
define internal void @aisc_part(ptr %pool, ptr %allowed) {
entry:
  %mask = alloca [128 x i8], align 8
  %cp = getelementptr i8, ptr %pool, i64 $core$
  %core = load i64, ptr %cp
  %here32 = call i32 @sched_getcpu()
  %here = sext i32 %here32 to i64
  %together = icmp eq i64 %here, %core
  %known = icmp ult i64 %core, 1024
  %leave = and i1 %together, %known
  br i1 %leave, label %move, label %done
move:
  call void @llvm.memcpy.p0.p0.i64(ptr %mask, ptr %allowed, i64 128, i1 false)
  %byte = lshr i64 %core, 3
  %bit64 = and i64 %core, 7
  %bit = trunc i64 %bit64 to i8
  %one = shl i8 1, %bit
  %keep = xor i8 %one, -1
  %at = getelementptr i8, ptr %mask, i64 %byte
  %old = load i8, ptr %at
  %new = and i8 %old, %keep
  store i8 %new, ptr %at
  %r = call i32 @sched_setaffinity(i32 0, i64 128, ptr %mask)
  br label %done
done:
  ret void
}

; A worker: run every job whose number of threads exceeds its own number.
define internal ptr @aisc_worker(ptr %self) {
entry:
  %pool = load ptr, ptr %self
  %tidp = getelementptr i8, ptr %self, i64 8
  %tid = load i64, ptr %tidp
  %generation = getelementptr i8, ptr %pool, i64 $generation$
  %stopp = getelementptr i8, ptr %pool, i64 $stop$
  %allowed = alloca [128 x i8], align 8
  call void @llvm.memset.p0.i64(ptr %allowed, i8 0, i64 128, i1 false)
  %got = call i32 @sched_getaffinity(i32 0, i64 128, ptr %allowed)
  br label %idle
idle:
  %seen = phi i32 [0, %entry], [%now, %back]
  %spins = phi i64 [$between$, %entry], [%pauses, %back]
  call void @aisc_wait(ptr %pool, ptr %generation, i32 %seen, i64 %spins)
  %now = load atomic i32, ptr %generation acquire, align 4
  %stop = load atomic i32, ptr %stopp acquire, align 4
  %halt = icmp ne i32 %stop, 0
  br i1 %halt, label %leave, label %look
look:
  %np = getelementptr i8, ptr %pool, i64 $threads$
  %n = load i64, ptr %np
  %sp = getelementptr i8, ptr %pool, i64 $pauses$
  %pauses = load i64, ptr %sp
  %mine = icmp ult i64 %tid, %n
  br i1 %mine, label %work, label %next
work:
  call void @aisc_part(ptr %pool, ptr %allowed)
  %cpu32 = call i32 @sched_getcpu()
  %cpu = sext i32 %cpu32 to i64
  %cpup = getelementptr i8, ptr %self, i64 16
  store i64 %cpu, ptr %cpup
  %fp = getelementptr i8, ptr %pool, i64 $function$
  %f = load ptr, ptr %fp
  %ap = getelementptr i8, ptr %pool, i64 $argument$
  %a = load ptr, ptr %ap
  call void %f(ptr %a, i64 %tid, i64 %n, ptr %pool)
  br label %next
next:
  %pending = getelementptr i8, ptr %pool, i64 $pending$
  %left = atomicrmw sub ptr %pending, i32 1 acq_rel
  %final = icmp eq i32 %left, 1
  br i1 %final, label %tell, label %back
tell:
  %woke = call i1 @aisc_wake(ptr %pool, ptr %pending)
  br i1 %woke, label %offer, label %back
offer:
  %y = call i32 @sched_yield()
  br label %back
back:
  br label %idle
leave:
  ret ptr null
}

; Start workers 1 .. %n - 1; the pool's memory is zero before.
define i32 @aisc_pool_start(ptr %pool, i64 %n) {
entry:
  %id = alloca i64
  br label %loop
loop:
  %k = phi i64 [1, %entry], [%k1, %made]
  %go = icmp ult i64 %k, %n
  br i1 %go, label %make, label %done
make:
  %at = mul i64 %k, $worker$
  %place = add i64 %at, $workers$
  %self = getelementptr i8, ptr %pool, i64 %place
  store ptr %pool, ptr %self
  %tidp = getelementptr i8, ptr %self, i64 8
  store i64 %k, ptr %tidp
  %cpup = getelementptr i8, ptr %self, i64 16
  store i64 -1, ptr %cpup
  %r = call i32 @pthread_create(ptr %id, ptr null, ptr @aisc_worker, ptr %self)
  %bad = icmp ne i32 %r, 0
  br i1 %bad, label %fail, label %made
made:
  %handle = load i64, ptr %id
  %d = call i32 @pthread_detach(i64 %handle)
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

; Run %f(%arg, tid, n, pool) on n of the pool's %size threads, this one being thread 0.
define void @aisc_pool_run(ptr %pool, i64 %size, ptr %f, ptr %arg, i64 %n) {
  %fp = getelementptr i8, ptr %pool, i64 $function$
  store ptr %f, ptr %fp
  %ap = getelementptr i8, ptr %pool, i64 $argument$
  store ptr %arg, ptr %ap
  %np = getelementptr i8, ptr %pool, i64 $threads$
  store i64 %n, ptr %np
  %cp = getelementptr i8, ptr %pool, i64 $core$
  %here = call i32 @sched_getcpu()
  %core = sext i32 %here to i64
  store i64 %core, ptr %cp
  %pending = getelementptr i8, ptr %pool, i64 $pending$
  %others = sub i64 %size, 1
  %others32 = trunc i64 %others to i32
  store atomic i32 %others32, ptr %pending release, align 4
  %generation = getelementptr i8, ptr %pool, i64 $generation$
  %g = atomicrmw add ptr %generation, i32 1 seq_cst
  %w = call i1 @aisc_wake(ptr %pool, ptr %generation)
  call void %f(ptr %arg, i64 0, i64 %n, ptr %pool)
  br label %join
join:
  %left = load atomic i32, ptr %pending acquire, align 4
  %finished = icmp eq i32 %left, 0
  br i1 %finished, label %done, label %wait
wait:
  call void @aisc_wait(ptr %pool, ptr %pending, i32 %left, i64 $inside$)
  br label %join
done:
  ret void
}
"""
