"""How long reading the model language takes, by the length of a file.

    python benchmarks/language.py [--lines 1000,2000,4000] [--repeat 5]

prints milliseconds for tokens alone, for the syntax tree, and for the whole check (the verified
graph), the best of some runs, and what a thousand lines cost. Files are made of layers like those
of `examples/lang/`, each used once.
"""

from __future__ import annotations

import argparse
import gc
import time
from collections.abc import Callable
from pathlib import Path

from aisc.frontend.lang.model import graph_of
from aisc.frontend.lang.reading import read, tokens
from aisc.ir.text.source import Source

LAYER = """
# Block {k} of the model.
layer block{k}(x: f32[n, k], out: int = 16, scale: float = 0.5) -> f32[n, out] {{
    param w: f32[k, out] = kaiming_normal()
    param gain: f32[k] = ones()
    power[i] = mean[j](x[i, j] * x[i, j])
    y[i, j] = x[i, j] / sqrt(power[i] + 0.00001) * gain[j]
    y = y @ w
    if k == out {{
        y = y + x * scale
    }} else {{
        y = relu(y) * scale + 1.0
    }}
    gate = sigmoid(y[:, 0:8])
    halves = concat(y[:, 8:], gate, axis=1)
    for i in 0..2 {{
        halves = tanh(halves) - cast(i, to=f32) / 3.0
    }}
    return softmax(halves + y, axis=-1)
}}
"""
CALL = "    x = block{k}(x, out=16) as blocks[{k}]\n"


def model(lines: int) -> str:
    """A file of about so many lines."""
    count = max(1, lines // (LAYER.count("\n") + CALL.count("\n")))
    layers = "".join(LAYER.format(k=k) for k in range(count))
    calls = "".join(CALL.format(k=k) for k in range(count))
    return f"seed 1\n{layers}\nmodel long(x: f32[n, 16]) {{\n{calls}    return x\n}}\n"


def best(action: Callable[[], object], repeat: int) -> float:
    """The least milliseconds of some runs."""
    found = []
    for _ in range(repeat):
        gc.collect()
        start = time.perf_counter()
        action()
        found.append((time.perf_counter() - start) * 1e3)
    return min(found)


def main() -> None:
    parser = argparse.ArgumentParser(description="Time of reading the model language.")
    parser.add_argument("--lines", default="1000,2000,4000,8000,16000", help="lengths of files")
    parser.add_argument("--repeat", type=int, default=3, help="runs, of which the best counts")
    chosen = parser.parse_args()
    read(Source(model(20)))  # loads the grammar
    print(
        f"{'lines':>7} {'tokens':>8} {'lex ms':>9} {'tree ms':>9} {'check ms':>9}   per 1000 lines"
    )
    for lines in map(int, chosen.lines.split(",")):
        text = model(lines)
        count, length = sum(1 for _ in tokens(text)), text.count("\n")
        times = [
            best(lambda text=text: list(tokens(text)), chosen.repeat),  # type: ignore[misc]
            best(lambda text=text: read(Source(text)), chosen.repeat),  # type: ignore[misc]
            best(lambda text=text: graph_of(text, "m.aim", Path(), {}), chosen.repeat),  # type: ignore[misc]
        ]
        each = " ".join(f"{t / length * 1e3:8.1f}" for t in times)
        print(f"{length:7} {count:8} {times[0]:9.1f} {times[1]:9.1f} {times[2]:9.1f}   {each}")


if __name__ == "__main__":
    main()
