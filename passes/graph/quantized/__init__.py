"""Quantized graphs stay integers: the rules, and how exact each of them is.

A model says with ``quantize`` and ``dequantize`` what it stores in few bits, and computes floats
between the two. The rules turn that around. Their exactness is one of

- *same bits*: the value of the left side, to the bit;
- *same sum*: the right side rounds less. A sum of products of integers is exact, and is rounded
  three times on its way to a float where the left side rounds every product and every sum. What is
  quantized afterwards differs where the float lies next to the middle between two steps;
- *one step*: besides, a quotient by a scale is a product with its reciprocal: what is quantized
  afterwards may be the next step where the quotient lies next to the middle between two.

| rule | exactness |
|---|---|
| `quantize_undone`, `later_transpose`, `later_movement`, `later_concat` | same bits |
| `later_max_pool`, `later_relu`, `relu_of_lowest` | same bits |
| `zero_point_in_bias`, `short_weights` | same bits |
| `integer_product` | same sum |
| `scale_by_reciprocal`, `scales_joined` | one step |

:data:`EXACT` leaves out what may differ by a step from a float product rounded in any order.
"""

from __future__ import annotations

from aisc.ir.rewrite.rules import Rule
from aisc.passes.graph.quantized import moves, products, steps

EXACT: tuple[Rule, ...] = moves.RULES + products.RULES
RULES: tuple[Rule, ...] = EXACT + steps.RULES
