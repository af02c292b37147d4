"""Quantization as a tool: an ONNX model and data in, the same model in few bits out.

Ranges are those that our own executables compute on the data (:mod:`.observe`), the result is
standard ONNX with QuantizeLinear and DequantizeLinear (:mod:`.insert`), which any runtime executes
and which aisc computes in integers.
"""
