"""Small functions as text, and what holds of every schedule of them."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from aisc.ir.arith.poly import evaluate
from aisc.ir.tensor.func import Func
from aisc.ir.tensor.interpret import bind_dims, run_func
from aisc.ir.tensor.verify_func import verify_func
from aisc.ir.text.parser import parse_func
from aisc.ir.text.printer import print_ir
from aisc.passes.schedule.schedule import Schedule, trace_from_json, trace_to_json
from aisc.passes.tensor.optimize import optimize

Steps = Callable[[Schedule], Schedule]

DOUBLE = """
func @f(x: i32[10] input, y: i32[10] output) target cpu {
  serial i in 0 .. 10 {
    block m(v spatial 10 = i) reads(x[v]) writes(y[v]) {
      y[v] = x[v] * 2:i32
    }
  }
}
"""
DOUBLE_N = """
func @f(x: i32[n] input, y: i32[n] output; n) target cpu {
  serial i in 0 .. n {
    block m(v spatial n = i) reads(x[v]) writes(y[v]) {
      y[v] = x[v] * 2:i32
    }
  }
}
"""
GRID = """
func @f(x: i32[6, 10] input, y: i32[6, 10] output) target cpu {
  serial i in 0 .. 6 {
    serial j in 0 .. 10 {
      block m(v spatial 6 = i, w spatial 10 = j) reads(x[v, w]) writes(y[v, w]) {
        y[v, w] = x[v, w] * 2:i32
      }
    }
  }
}
"""
TWO = """
func @f(x: i32[8] input, y: i32[8] output) target cpu {
  alloc t: i32[8]
  serial i in 0 .. 8 {
    block a(v spatial 8 = i) reads(x[v]) writes(t[v]) {
      t[v] = x[v] + 1:i32
    }
    block b(w spatial 8 = i) reads(t[w]) writes(y[w]) {
      y[w] = t[w] * 2:i32
    }
  }
}
"""
SUM = """
func @f(x: i32[3, 8] input, y: i32[3] output) target cpu {
  serial i in 0 .. 3 {
    serial k in 0 .. 8 {
      block s(v spatial 3 = i, r reduce 8 = k) reads(x[v, r]) writes(y[v]) combiner sum init {
        y[v] = 0:i32
      } body {
        y[v] = y[v] + x[v, r]
      }
    }
  }
}
"""
GROUPED = """
func @f(x: i32[2, 12] input, q: i32[12, 5] input, w: i32[4, 5] input, y: i32[2, 5] output) target cpu {
  serial m in 0 .. 2 {
    serial n in 0 .. 5 {
      serial g in 0 .. 4 {
        serial k in 0 .. 3 {
          block b(a spatial 2 = m, c spatial 5 = n, h reduce 4 = g, r reduce 3 = k) reads(x[a, h * 3 + r], q[h * 3 + r, c], w[h, c]) writes(y[a, c]) combiner sum init {
            y[a, c] = 0:i32
          } body {
            y[a, c] = y[a, c] + x[a, h * 3 + r] * (q[h * 3 + r, c] * w[h, c])
          }
        }
      }
    }
  }
}
"""  # noqa: E501
SUM_N = """
func @f(x: i32[3, n] input, y: i32[3] output; n) target cpu {
  serial i in 0 .. 3 {
    serial k in 0 .. n {
      block s(v spatial 3 = i, r reduce n = k) reads(x[v, r]) writes(y[v]) combiner sum init {
        y[v] = 0:i32
      } body {
        y[v] = y[v] + x[v, r]
      }
    }
  }
}
"""
LARGEST = """
func @f(x: i32[3, 10] input, y: i32[3] output, z: i64[3] output) target cpu {
  serial i in 0 .. 3 {
    serial k in 0 .. 10 {
      block s(v spatial 3 = i, r reduce 10 = k) reads(x[v, r]) writes(y[v], z[v]) combiner argmax init {
        y[v] = -2147483648:i32
        z[v] = 9223372036854775807
      } body {
        let better:bool = x[v, r] > y[v] | x[v, r] == y[v] & r < z[v]
        let new_y:i32 = select(better:bool, x[v, r], y[v])
        let new_z = select(better:bool, r, z[v])
        y[v] = new_y:i32
        z[v] = new_z
      }
    }
  }
}
"""  # noqa: E501
FILL = """
func @f(x: i32[24] input, y: i32[24] output) target cpu {
  serial k in 0 .. 6 {
    alloc t: i32[24] space register
    serial a in 0 .. 4 {
      block fill(v spatial 24 = k * 4 + a) reads(x[v]) writes(t[v]) {
        t[v] = x[v] + 1:i32
      }
    }
    serial b in 0 .. 4 {
      block use(w spatial 24 = k * 4 + b) reads(t[w]) writes(y[w]) {
        y[w] = t[w] * 2:i32
      }
    }
  }
}
"""
# Each turn uses what the one before has left in y.
CHAIN = """
func @f(x: i32[8] input, y: i32[9] output) target cpu {
  alloc t: i32[8]
  block zero() reads() writes(y[0]) {
    y[0] = 0:i32
  }
  serial k in 0 .. 8 {
    block fill(v spatial 8 = k) reads(y[v]) writes(t[v]) {
      t[v] = y[v] + 1:i32
    }
    block use(w spatial 8 = k) reads(t[w], x[w]) writes(y[w + 1]) {
      y[w + 1] = t[w] * x[w]
    }
  }
}
"""
# One element passes every turn's value on.
PASSED = """
func @f(x: i32[8] input, y: i32[8] output) target cpu {
  alloc t: i32[1]
  serial i in 0 .. 8 {
    block a(v spatial 8 = i) reads(x[v]) writes(t[0]) {
      t[0] = x[v]
    }
    block b(w spatial 8 = i) reads(t[0]) writes(y[w]) {
      y[w] = t[0] * 2:i32
    }
  }
}
"""
MIRROR = """
func @f(x: i32[8] input, y: i32[8] output) target cpu {
  alloc t: i32[8]
  serial i in 0 .. 8 {
    block a(v spatial 8 = i) reads(x[v]) writes(t[v]) {
      t[v] = x[v]
    }
  }
  serial j in 0 .. 8 {
    block b(w spatial 8 = j) reads(t[7 - w]) writes(y[w]) {
      y[w] = t[7 - w]
    }
  }
}
"""
STENCIL = """
func @f(x: i32[8] input, y: i32[8] output) target cpu {
  alloc t: i32[9]
  serial i in 0 .. 9 {
    block a(v spatial 9 = i) reads(x[v]) writes(t[v]) {
      t[v] = select(v < 8, x[v], 0:i32)
    }
  }
  serial j in 0 .. 8 {
    block b(w spatial 8 = j) reads(t[w], t[w + 1]) writes(y[w]) {
      y[w] = t[w] + t[w + 1]
    }
  }
}
"""
UPDATE = """
func @f(x: i32[8] input, y: i32[4] output) target cpu {
  serial i in 0 .. 4 {
    block m(v spatial 4 = i) reads() writes(y[v]) {
      y[v] = 1:i32
    }
  }
  serial j in 0 .. 4 {
    block u(w spatial 4 = j) reads(x[w]) writes(y[w]) {
      y[w] = y[w] * x[w]
    }
  }
}
"""


def outputs(func: Func, start: Func, dims: dict[str, int]) -> list[np.ndarray]:
    """What a function, whose first parameters are those of `start`, computes."""
    rng = np.random.default_rng(0)
    values = {v.name: dims.get(v.name, 0) for v in start.dims}
    shapes = [tuple(evaluate(d, values) for d in b.shape) for b in func.params]
    arrays = [
        rng.integers(-9, 9, shape).astype(b.dtype.numpy)
        if b.role == "input"
        else np.full(shape, 5, b.dtype.numpy)
        for b, shape in zip(func.params, shapes, strict=True)
    ]
    run_func(func, arrays, bind_dims(func, arrays, values))
    return [a for a, b in zip(arrays, func.params, strict=True) if b.role == "output"]


STEPS = """
func @f(x: i32[4, 6] input, y: i32[6] output) target cpu {
  alloc t: i32[6]
  serial c in 0 .. 6 {
    block clear(v spatial 6 = c) writes(y[v]) {
      y[v] = 1:i32
    }
  }
  serial k in 0 .. 4 {
    serial i in 0 .. 6 {
      block part(p spatial 4 = k, w spatial 6 = i) reads(x[p, w]) writes(t[w]) {
        t[w] = x[p, w] + 1:i32
      }
    }
    serial j in 0 .. 6 {
      block add(q ordered 4 = k, u spatial 6 = j) reads(t[u]) writes(y[u]) {
        y[u] = y[u] * 2:i32 + t[u]
      }
    }
  }
}
"""


def checked(text: str, steps: Steps) -> Func:
    """The scheduled function, after its result was compared at several sizes."""
    start = parse_func(text)
    s = steps(Schedule.of(start))
    verify_func(s.func)
    assert parse_func(print_ir(s.func)) == s.func
    assert Schedule.of(start).replay(trace_from_json(trace_to_json(s.trace))).func == s.func
    for n in (0, 1, 2, 5, 9):
        expected = outputs(start, start, {"n": n})
        for func in (s.func, optimize(s.func)):
            for got, want in zip(outputs(func, start, {"n": n}), expected, strict=True):
                assert np.array_equal(got, want), f"n={n}\n{print_ir(func)}"
    return s.func
