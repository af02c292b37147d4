# Written by docs/generate.py from the code; do not edit.
from collections.abc import Sequence
from typing import Literal

from aisc.passes.schedule.schedule import Schedule

class Steps:
    def split(self, loop: str, factor: int, names: tuple[str, str] = ("", "")) -> Schedule:
        """Split a loop into an outer and an inner one of `factor` iterations.

        before: ``for i in 0..N: S(i)``
        after:  ``for io in 0..ceil(N/factor): for ii in 0..factor: if io*factor+ii < N: S(…)``
        (the guard stands only where `factor` does not divide N). Always legal. Of a parallel loop the
        outer one stays parallel, of a vectorized loop the inner one keeps its lanes."""
    def fuse(self, outer: str, inner: str, name: str = "") -> Schedule:
        """Fuse two perfectly nested loops into one.

        before: ``for i in 0..N: for j in 0..M: S(i, j)``
        after:  ``for f in 0..N*M: S(f // M, f % M)``. Always legal for loops of one kind, serial or
        unrolled: others say that their own iterations are independent, not those of both. A reduce loop
        that may be empty is not fused with a spatial one: nothing would start the reduction."""
    def reorder(self, *loops: str) -> Schedule:
        """Permute loops of one perfect nest; the named loops take the given order.

        before: ``for i: for j: S``   after ``reorder("j", "i")``: ``for j: for i: S``.
        Legal when every block inside declares its iterators over these loops spatial or reduce;
        float reductions may round differently."""
    def tile(
        self, loops: Sequence[str], factors: Sequence[int], names: Sequence[tuple[str, str]] = ()
    ) -> Schedule:
        """Split several loops of one perfect nest, and move the inner ones inside.

        before: ``for i in 0..N: for j in 0..M: S(i, j)``
        after ``tile(("i", "j"), (4, 8))``:
        ``for io: for jo: for ii in 0..4: for ji in 0..8: S(io*4+ii, jo*8+ji)``
        with the guards of ``split``. `names` are pairs of an outer and an inner name. Legal where
        ``reorder`` is."""
    def predicate(self, loop: str, multiple: int) -> Schedule:
        """Round a loop up to a multiple, with its body guarded, so that later steps find full tiles.

        before: ``for i in 0..N: S(i)``
        after:  ``for i in 0..ceil(N/m)*m: if i < N: S(i)``
        The guard becomes a mask where the loop becomes lanes. Always legal. Where the excess may run
        unguarded, ``clamp_tail`` is the faster one."""
    def unroll(self, loop: str) -> Schedule:
        """Mark a loop to be unrolled when code is printed: one of constant extent, or of an extent that
        is constant in each copy of unrolled loops around it. Always legal."""
    def vectorize(self, loop: str) -> Schedule:
        """Execute all iterations of an innermost loop at once, as lanes of a vector.

        Legal when the iterations are independent of each other."""
    def parallel(self, loop: str) -> Schedule:
        """Divide the iterations of a loop among the SPMD threads.

        Legal when the iterations are independent of each other, and the loop stands alone in its
        outermost nest: threads meet between outermost statements only, so different iterations must
        not conflict in any iterations of the loops around."""
    def annotate(self, loop: str, key: str, value: int | float | str | bool) -> Schedule:
        """Attach a hint to a loop; hints never change meaning."""
    def partition(self, loop: str, *at: int | str, names: tuple[str, ...] = ()) -> Schedule:
        """Cut the range of a loop into pieces that run one after the other (peel).

        before: ``for i in 0..N: S(i)``
        after ``partition("i", p)``: ``for i in 0..p: S(i);  for i_1 in 0..N-p: S(p + i_1)``
        A point counts from the start, a negative one from the end; a text is an expression over the
        function's dimensions, such as ``"n // 2"``. Points beyond the range are moved to its ends. The
        first piece keeps all names; loops, blocks and private buffers of the others get fresh ones, or
        the loops get `names`, one for each piece. Guards and initialisations that a piece decides are
        dropped. Legal unless a reduction over the loop might start in any of several pieces."""
    def fission(self, loop: str, after_block: str, name: str = "") -> Schedule:
        """Split a loop over a sequence of statements into two loops, the first up to the statement
        that holds `after_block`.

        before: ``for i: { A(i); B(i) }``   after: ``for i: A(i);  for i_1: B(i_1)``
        Legal when no later iteration of A conflicts with an earlier one of B. Buffers that the body
        declares are declared before both loops."""
    def fuse_loops(self, first: str, second: str) -> Schedule:
        """Merge two loops that stand one after the other and have as many iterations.

        before: ``for i in 0..N: A(i);  for j in 0..N: B(j)``   after: ``for i in 0..N: { A(i); B(i) }``
        Legal when no later iteration of A conflicts with an earlier one of B; parallel and vectorized
        loops must still be independent."""
    def inline(self, block: str) -> Schedule:
        """Put the expression of a map block into its readers and drop the block.

        before: ``t[i] = f(i); y[j] = g(t[j])``   after: ``y[j] = g(f(j))``.
        Legal for a block with spatial iterators only that writes one scratch buffer at its iterators,
        where nothing writes what it reads up to its readers."""
    def reverse_compute_at(self, block: str, loop: str) -> Schedule:
        """Move a consumer into a loop of its producer, at the end of that loop's body.

        before: ``for i: for j: t[i,j] = …;  for a: for b: y[a,b] = g(t[a,b])``
        after:  ``for i: { for j: t[i,j] = …; for j: y[i,j] = g(t[i,j]) }``
        Legal when the block is a map, reads what the loop produces at its own iterators, and the
        part that one iteration produces is complete by its end. Loops around both stay as they are.
        It may reduce over one iterator, if each iteration of a loop produces one value of it. A block
        that updates elements in place takes all that an iteration produces, and once."""
    def compute_at(self, block: str, loop: str) -> Schedule:
        """Move a producer into a loop of its consumers, at the start of that loop's body, where it
        computes only what one iteration reads.

        before: ``for a: t[a] = …;  for i: for j: y[i] += t[i+j]``
        after:  ``for i: { for a in window(i): t[a] = …; for j: y[i] += t[i+j] }``
        Legal for a map block whose scratch result is read below `loop` only; threads and lanes must
        not compute the same element."""
    def clamp_tail(self, block: str, loop: str, multiple: int, zero: bool = False) -> Schedule:
        """Round a loop up to a multiple so that full tiles always run; excess iterations are harmless.

        before: ``for i in 0..N: t[i] = f(x[i])``
        after:  ``for i in 0..ceil(N/m)*m: t[i] = f(x[min(i, N-1)])`` with `t` enlarged.
        With `zero`, a read that could leave its buffer gives 0 instead (for loops that become lanes).
        Legal when the loop carries a spatial iterator of this block alone and the block writes scratch
        buffers only: whoever reads them reads the first N elements."""
    def decompose_reduction(self, block: str, loop: str) -> Schedule:
        """Give the initialisation of a reduction a nest of its own, just before `loop`.

        before: ``for k: for j: { if k == 0: c[j] = 0;  c[j] += … }``
        after:  ``for j: c[j] = 0;  for k: for j: c[j] += …``
        Legal when every loop that the reduce iterators use is `loop` or inside it."""
    def split_chunks(self, block: str, loop: str, chunks: int) -> Schedule:
        """Divide a reduction into a fixed number of interleaved partial ones, combined in index order.

        before: ``for k in 0..K: acc[i] += f(i, k)``
        after:  ``for ko: for c in 0..chunks: part[i, c] += f(i, ko*chunks + c)`` and
                ``for c in 0..chunks: acc[i] += part[i, c]``
        The partial block keeps its name, the final one is ``<block>_combine``. The number of chunks
        does not depend on the number of threads, so results do not either. Legal for a reduction with
        one result, alone in its nest, whose reduce iterator is bound to `loop` itself."""
    def rfactor(self, block: str, loop: str) -> Schedule:
        """Factor a reduction along one of its loops: a partial result for each iteration of it, then
        their combination in index order.

        before: ``for i: for ko: for ki: acc[i] += f(i, ko*4 + ki)``
        after ``rfactor("b", "ki")``: ``for i: { for ko: for ki: part[i, ki] += f(i, ko*4 + ki);
        for r in 0..4: acc[i] += part[i, r] }``
        The partial block keeps its name, and its iterator over `loop` is spatial: that loop may then
        run in parallel or as lanes. The final one is ``<block>_combine``; it starts as the reduction
        did. For any registered combiner, several results included. Legal for a reduction alone in its
        reduce loops, whose reduce iterators use loops that its spatial ones do not use."""
    def set_scope(self, name: str, space: str, loop: str = "") -> Schedule:
        """Place a scratch buffer in another memory space, declared in the innermost loop around all
        its uses, or in a `loop` around that, so that each iteration has its own. Storage is compacted
        later.

        Legal when no iteration of that loop reads what another one wrote: it writes each element
        before it reads it. In global memory a buffer is declared at the start of the function."""
    def cache_write(self, block: str, space: str, name: str = "") -> Schedule:
        """Let a block write a scratch buffer, and copy that to its result afterwards.

        before: ``for i: c[i] = …``   after: ``for i: c_local[i] = …;  for i: c[i] = c_local[i]``.
        The copy is a map block called ``<block>_copy``. Legal when the block's nest writes the whole
        result, and each element before it reads it."""
    def cache_read(
        self, block: str, name: str, space: str, as_name: str = "", dtype: str = ""
    ) -> Schedule:
        """Let a block read a copy of one of its inputs, filled before the block's nest; with `dtype` a
        copy in an integer type that has all values of its own.

        before: ``for i: y[i] = f(x[i])``   after: ``x_c = x;  for i: y[i] = f(x_c[i])``.
        The copy is a map block called ``<copy's name>_fill``. Legal when the block does not write
        the buffer itself, and casts what it reads of it to an integer where the copy is wider."""
    def permute(self, name: str, order: Sequence[int]) -> Schedule:
        """Store a private buffer with its axes in another order.

        before: ``t[i, j] = f(i, j);  y[i] += t[i, j]``
        after ``permute("t", (1, 0))``: ``t[j, i] = f(i, j);  y[i] += t[j, i]``.
        Always legal for a scratch buffer: all accesses change alike."""
    def pack(self, name: str, axis: int, factor: int, order: Sequence[int]) -> Schedule:
        """Store a parameter in another layout: `axis` split by `factor`, axes permuted by `order`.

        With axes numbered after the split, ``b[K, N]``, axis 1, factor 32, order (1, 0, 2) becomes
        ``b_packed[ceil(N/32), K, 32]``, zero where the split exceeds N. For a weight the result is
        (new function, packer); the plan runs the packer at compile time. Any other buffer is packed
        by a block ``<name>_pack`` at the start of the function. Always legal for what is only read."""
    def pipeline(self, loop: str, block: str) -> Schedule:
        """Fill a buffer for the next iteration of a loop while this one uses it (double_buffer).

        before: ``for k in 0..N: { fill t from x at k;  use t }``
        after:  ``fill t[0] from x at 0;  for k in 0..N: { if k + 1 < N: fill t[(k+1) % 2] from x at
        k + 1;  use t[k % 2] }``
        The buffer is doubled; outside of global memory each half has the extents that one iteration
        fills. The first filling gets fresh names. Legal when `block` alone writes the scratch buffer,
        in a statement of its own in the loop, each iteration reads only what it has filled itself, and
        nothing in the loop writes what the filling reads before its next turn."""
    def pad_reduction(self, block: str, loop: str, multiple: int) -> Schedule:
        """Round the loop of a sum of products up to a multiple; what is added is zero.

        before: ``for k in 0..K: c[i] += a[i,k] * b[k]``
        after:  ``for k in 0..ceil(K/m)*m: c[i] += a[i,k] * b[k]``
        Legal when each factor that is read at `k` comes from a map that gives 0 from K on
        (``clamp_tail`` with `zero`); of integers one such factor is enough, the other may be packed."""
    def bind(
        self, loop: str, axis: Literal["serial", "parallel", "unroll", "vectorize", "block.x", "block.y", "block.z", "thread.x", "thread.y", "thread.z"]
    ) -> Schedule:
        """Let the iterations of a loop be the blocks or threads of a hardware axis.

        before: ``for i in 0..N: S(i)``   after ``bind("i", "thread.x")``: ``thread.x i in 0..N: S(i)``
        A thread axis may be bound by several loops, one after the other: a block runs them all with the
        same threads, iteration `t` of each on thread `t`. So all loops of an axis have one constant
        extent, and no loop of an axis stands inside another of the same axis. Outermost statements with
        loops over blocks are launches of their own, with threads of their own. A tile that many threads
        read is filled by a nest of its own (``cache_read``, ``compute_at``, ``fuse``, ``split``, bind),
        which stands beside the nest that reads it; barriers between such nests are inserted and proved
        by :mod:`aisc.passes.tensor.simt_barriers`. Block loops stand outside of thread loops.
        Legal when the iterations of the loop are independent of each other."""
    def tensorize(self, loop: str, intrinsic: str, target: str) -> Schedule:
        """Replace a loop nest by an instruction of the target that computes the same.

        before: ``for i in 0..8: for j in 0..8: s[i, j] = x[m*8 + i, j]``
        after ``tensorize("i", "mvin", "systolic8")``: ``invoke mvin(x[m*8 +: 8, 0 +: 8], s[…])``
        The nest at `loop` must hold one unconditional block and match the declared semantics:
        iterators in order with kind and extent, operations, dtypes, memory spaces, and access maps up
        to strides and offsets. `target` is a name or the path of a description, so that traces stay
        text. Always legal where it applies; instructions are opaque to later steps, so it comes last."""
    def prefetch(self, block: str, name: str, loop: str, ahead: int = 0) -> Schedule:
        """Ask for the part of a buffer that a block touches in an iteration of `loop` at the start of
        that iteration, or of the one `ahead` iterations before.

        before: ``for i: { S(i); for j in 0..32: y[i, j] = … + x[i, j] }``
        after:  ``for i: { prefetch x[i, 0]; prefetch x[i, 16]; S(i); for j: … }``
        One request for each cache line of the region, at most 64. Always legal: a hint does nothing
        where the place lies outside of the buffer."""
    def prefetch_next(self, block: str, name: str, loop: str, at: str) -> Schedule:
        """Ask in each iteration of `at` for a share of what a block reads of a buffer in the next
        iteration of `loop`, which is around `at`: all of it together.

        before: ``for p: for i: for k: … += x[i, k] * w[p, k]``
        after:  ``for p: for i: { prefetch w[p + 1, i*16]; for k: … += x[i, k] * w[p, k] }``
        Always legal, as a hint. Refused where what an iteration reads does not lie in one piece, or
        where more than 64 cache lines come to an iteration."""
    def stream_store(self, block: str, name: str) -> Schedule:
        """Write what a block stores to a buffer past the caches, where whole vectors are stored.

        before: ``for i: y[i] = x[i] + x[i]``
        after:  ``for i: stream y[i] = x[i] + x[i]``
        It saves reading the lines that are written, and what the caches hold stays there; what reads
        the buffer soon after finds it in memory only. Always legal: no result depends on it. Refused
        where the block reads the buffer itself, as reductions do."""
    def variant(self, block: str, name: str, *sizes: int) -> Schedule:
        """Compute a block by another algorithm, which is chosen by name and found by structure.

        before: ``conv[n,h,w,o] += x[n,h+kh,w+kw,c] * w[kh,kw,c,o]``   after ``variant("conv",
        "winograd")``: ``v = B^T d B;  m[p,t,o] += v[p,t,c] * u[p,c,o];  conv = A^T m A`` by tiles of
        4×4 results. Some take `sizes`: ``variant("out", "streaming_attention", 32, 64, 8)`` walks over
        blocks of 64 keys for 32 queries, with 8 rows of scores at a time. Legal for an unscheduled
        block that the variant matches (E302 otherwise); results differ within the variant's stated
        bound."""
    def split_iter(self, block: str, position: int, factor: int) -> Schedule:
        """Give a block two iterators, a quotient and a remainder, in place of the one at `position`.

        before: ``block b(c spatial 96 = e): y[c] = t[c // 48, c % 48]``
        after ``split_iter("b", 0, 48)``:
        ``block b(g spatial 2 = e // 48, o spatial 48 = e % 48): y[g*48 + o] = t[g, o]``
        The same points in the same order, under other names: what was made of quotients is read at the
        block's own iterators. Legal where the factor divides the extent."""
    def fuse_iters(self, block: str, position: int) -> Schedule:
        """Give a block one iterator in place of that at `position` and the next one, a quotient and a
        remainder of it.

        before: ``block b(h spatial 7 = e, w spatial 7 = f): t[h*7 + w] = x[h, w]``
        after ``fuse_iters("b", 0)``:
        ``block b(h_w spatial 49 = e*7 + f): t[h_w] = x[h_w // 7, h_w % 7]``
        The same points in the same order, under other names. Legal for two of the same kind, the second
        of a fixed extent."""
    def split_axis(self, name: str, axis: int, factor: int) -> Schedule:
        """Give a private buffer two axes, a quotient and a remainder, in place of `axis`.

        before: ``t[j] = f(j);  y[c] = t[c] * t[c + 48]``
        after ``split_axis("t", 0, 48)``:
        ``t[j // 48, j % 48] = f(j);  y[c] = t[0, c] * t[1, c]``
        The elements stay where they are. Legal for a scratch buffer whose extent the factor divides."""
    def fuse_axes(self, name: str, axis: int) -> Schedule:
        """Give a private buffer one axis in place of `axis` and the next one.

        before: ``t[p // 7, p % 7] = f(p);  y[h, w] = t[h, w]``
        after ``fuse_axes("t", 0)``: ``t[p] = f(p);  y[h, w] = t[h*7 + w]``
        The elements stay where they are. Legal for a scratch buffer in which they lie in order."""
    def remove_unread(self, block: str) -> Schedule:
        """Leave out a block whose results no other block reads.

        before: ``for v in 0..2: a[v] = f(v);  for w in 2..3: a[w] = f(w);  for v in 0..2: y[v] = a[v]``
        after ``remove_unread`` of the second block: without it
        Legal when it writes private buffers alone, and no element of them that another block reads."""
