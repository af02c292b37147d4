"""What a model says of itself, held against the standard and against what its graph gives.

Versions and imports of the model as a whole, the number of operands of each node and whether the
imported operator set has its operator, and the declared types of the results.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

from aisc.frontend.building.report import Report
from aisc.frontend.onnx.functions import domain_of
from aisc.frontend.onnx.node import Node
from aisc.frontend.onnx.signatures import NEWEST, signature, versions
from aisc.frontend.onnx.tensors import element_type
from aisc.ir.diagnostics import CompileError, Diagnostic, error, warn
from aisc.ir.location import Loc
from aisc.ir.types import TensorType

if TYPE_CHECKING:
    from onnx import FunctionProto, ModelProto, NodeProto, OperatorSetIdProto, ValueInfoProto


# --- the model as a whole -------------------------------------------------------------------------
def check_versions(model: ModelProto, file: str) -> None:
    """E103 for versions and imports that no model may have, a warning for a newer format."""
    from onnx import IR_VERSION

    loc, report = Loc(file), Report()
    if model.ir_version < 1:
        given = model.ir_version if model.HasField("ir_version") else "none"
        report.malformed("the model has no valid ir_version", f"got {given}", loc=loc)
    elif model.ir_version > IR_VERSION:
        message = f"ir_version {model.ir_version} is newer than the newest known, {IR_VERSION}"
        note = "what is new in it is not seen"
        warn(Diagnostic("E103", message, loc, (note,), "warning"))
    _check_imports(model.opset_import, "the model", report, loc)
    known: set[tuple[str, str, str]] = set()
    for f in model.functions:
        key = (domain_of(f.domain), f.name, f.overload)
        if key in known:
            report.malformed(f"the function '{f.name}' is defined twice", loc=loc)
        known.add(key)
        _check_imports(f.opset_import, f"the function '{f.name}'", report, loc)
    report.finish()


def _check_imports(
    entries: Sequence[OperatorSetIdProto], whose: str, report: Report, loc: Loc
) -> None:
    """Each domain once (the standard one may have both of its names), versions from 1 on."""
    spelled = Counter(e.domain for e in entries)
    versions = {(domain_of(e.domain), e.version) for e in entries}
    short = Counter(domain for domain, _ in versions)
    twice = [d for d, count in spelled.items() if count > 1]
    for domain in dict.fromkeys((*twice, *(d for d, count in short.items() if count > 1))):
        report.malformed(f"{whose} imports the domain '{domain}' twice", loc=loc)
    for domain, version in sorted(versions):
        if domain in NEWEST and version < 1:
            report.malformed(f"{whose} imports version {version} of domain '{domain}'", loc=loc)


# --- nodes ----------------------------------------------------------------------------------------
def check_call(node: Node, proto: NodeProto, function: FunctionProto | None) -> None:
    """E103 for an operator that the imported set does not have, or with more or fewer operands or
    results than it takes. `function` is what the model itself defines for it."""
    if function is not None:
        _check_count(node, "inputs", len(proto.input), 0, len(function.input))
        _check_count(node, "outputs", len(proto.output), 0, len(function.output))
        return
    domain = domain_of(proto.domain)
    if domain not in NEWEST:
        return
    wanted = signature(domain, proto.op_type, node.version)
    if wanted is None:
        if known := versions(domain, proto.op_type, NEWEST[domain]):
            since = known[0].since
            raise node.malformed(f"it came with opset {since}, the model imports {node.version}")
        return
    if wanted.removed:
        since = wanted.since
        raise node.malformed(f"opset {since} removed it, the model imports {node.version}")
    for name in wanted.required:
        if name not in node.attributes:
            raise node.malformed(f"attribute '{name}' is missing")
    _check_count(node, "inputs", len(proto.input), *wanted.operands)
    _check_count(node, "outputs", len(proto.output), *wanted.results)


def _check_count(node: Node, what: str, count: int, least: int, most: int) -> None:
    if least <= count <= most:
        return
    wanted = str(least) if least == most else f"{least} to {most}"
    wanted = f"at least {least}" if most > 1 << 20 else wanted
    text = f"{node.op}: {count} {what if count != 1 else what.removesuffix('s')}"
    raise error("E103", text, f"expected {wanted}", loc=node.loc)


# --- results --------------------------------------------------------------------------------------
def check_declared(info: ValueInfoProto, got: TensorType, what: str, sizes: bool, loc: Loc) -> None:
    """E103 unless a value has the element type, the rank and the sizes that it is declared with.

    Names of dimensions are hints; so are sizes that only the run gives. `sizes`: whether sizes
    are the model's own, and not the caller's.
    """
    if info.type.WhichOneof("value") != "tensor_type":
        return
    declared = info.type.tensor_type
    fits = not declared.elem_type or _is_type(declared.elem_type, got, loc)
    dims = [
        d.dim_value if d.HasField("dim_value") and d.dim_value >= 0 else None
        for d in declared.shape.dim
    ]
    if declared.HasField("shape"):
        fits = fits and len(dims) == got.rank
        pairs = zip(dims, got.shape, strict=False)
        differ = any(isinstance(b, int) and a not in (None, b) for a, b in pairs)
        fits = fits and not (sizes and differ)
    if not fits:
        notes = (f"declared {_declared_text(info)}", f"the model gives {got}")
        raise error("E103", f"{what} '{info.name}' is not what it is declared as", *notes, loc=loc)


def _is_type(code: int, got: TensorType, loc: Loc) -> bool:
    try:
        return element_type(code, loc) is got.dtype
    except CompileError:  # a type that no value can have here
        return False


def _declared_text(info: ValueInfoProto) -> str:
    from aisc.frontend.onnx.tensors import type_name

    declared = info.type.tensor_type
    name = type_name(declared.elem_type).lower() if declared.elem_type else "a tensor"
    if not declared.HasField("shape"):
        return name
    dims = (
        str(d.dim_value) if d.HasField("dim_value") else d.dim_param or "?"
        for d in declared.shape.dim
    )
    return f"{name}[{', '.join(dims)}]"
