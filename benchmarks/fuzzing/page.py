"""The results of all kinds of cores as Markdown, for ``docs/benchmarks.md``."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from fuzzing.report import ALL, CALL_US, LIMITS, SHARES, group_cells, micros, share_cells

Row = dict[str, Any]
BEGIN = "<!-- Written by docs/generate.py from benchmarks/results/; do not edit. -->"
END = "<!-- End of what is written. -->"
GROUP_HEAD = ("family", "layers", "mean", *(f"below {limit}" for limit in LIMITS), "worst")
NET_HEAD = ("net", "aisc µs", "best peer µs", "peer", "ratio")
WORST = 5


def renewed(page: str, entries: Mapping[str, Sequence[Row]]) -> str:
    """The page with the results between its marks."""
    before, _, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    assert end, f"the page lacks {BEGIN} … {END}"
    return before + "\n".join([BEGIN, "", *markdown(entries), END]) + after


def markdown(entries: Mapping[str, Sequence[Row]]) -> list[str]:
    """A section per kind of core, in it a part per entry."""
    lines: list[str] = []
    for arch, some in entries.items():
        lines += [f"### {arch}", ""]
        for entry in some:
            lines += [_head(entry), "", *(_layers(entry) if "families" in entry else _nets(entry))]
    return lines


def _head(entry: Row) -> str:
    """What was measured with."""
    about = entry["conditions"]
    versions = ", ".join(f"{name} {v}" for name, v in about["versions"].items())
    threads = f"{about['threads']} thread{'s' * (about['threads'] > 1)}"
    top = about["ceilings"]
    peak = f"peak {top['gflops']:.0f} GFLOP/s, copies {top['gbytes']:.0f} GB/s"
    return f"**{entry['kind']}**, {threads}: `{about['command']}` ({versions}; {peak})"


def _layers(entry: Row) -> list[str]:
    groups = list(entry["families"])
    if entry["calls"]:
        groups.append({"family": f"calls (under {CALL_US:g} µs)", **entry["calls"]})
    rows = (group_cells(g) for g in groups)
    faults = len(entry["faults"])
    worst = "; ".join(f"{r['ratio']:.2f} {r['what']}" for r in entry["worst"][:WORST])
    told = f"Faults: {faults}. Skipped, because no peer runs them: {entry['skipped']}."
    return [*grid(GROUP_HEAD, rows), "", told, "", f"The worst: {worst}.", ""]


def _nets(entry: Row) -> list[str]:
    timed = [r for r in entry["nets"] if "ratio" in r]
    told = [k for k in SHARES if any(k in r for r in timed)]
    rows = (
        [r["what"], micros(r["us"]["aisc"]), micros(r["us"][r["best"]]), r["best"],
         f"{r['ratio']:.2f}", *share_cells(r, told)] for r in timed
    )  # fmt: skip
    return [*grid((*NET_HEAD, *(SHARES[k] for k in told)), rows), ""]


def grid(head: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """A table; names to the left, numbers to the right, what stands for all in bold."""
    lines = ["| " + " | ".join(head) + " |", "|---|" + "--:|" * (len(head) - 1)]
    for row in rows:
        texts = [f"**{t}**" if row[0] == ALL else t for t in row]
        lines.append("| " + " | ".join(t.replace("|", "/") for t in texts) + " |")
    return lines
