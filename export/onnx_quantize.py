"""The schemes of an ONNX file: an fp32 graph in, fp16, int8 or int4 out. By onnxruntime's own tools."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stillroom.scheme import INT4_BLOCK

if TYPE_CHECKING:
    from stillroom.export.options import ExportOptions

# Attention is left out: rewriting it gives a QAttention that does not load.
WITH_WEIGHTS = ("MatMul", "Gemm", "Gather")
FP32_OPERATORS = ("Attention", "Gelu")  # in fp16 they cost casts around them, 7 % of the whole (docs/log.md)
INT8_ARITHMETIC = 4  # MatMulNBits' accuracy_level: activations rounded to 8 bits, integer products


def fp16(source: Path, out: Path, options: ExportOptions) -> None:
    """Weights and arithmetic in 16-bit floats; inputs and logits keep their types.

    onnxruntime computes in fp32 where its CPU has no fp16 form of an operator, casting as it goes.
    """
    import onnx
    from onnxruntime.transformers.float16 import DEFAULT_OP_BLOCK_LIST, convert_float_to_float16

    left = [*DEFAULT_OP_BLOCK_LIST, *FP32_OPERATORS]
    onnx.save(convert_float_to_float16(onnx.load(source), keep_io_types=True, op_block_list=left), out)


def int8_dynamic(source: Path, out: Path, options: ExportOptions) -> None:
    """Signed 8-bit weights per output channel; activations unsigned 8-bit, scaled as they come."""
    from onnxruntime.quantization import QuantType, quantize_dynamic

    quantize_dynamic(
        source,
        out,
        per_channel=True,
        reduce_range=options.portable,
        weight_type=QuantType.QInt8,
        op_types_to_quantize=list(WITH_WEIGHTS),
    )


def int4(source: Path, out: Path, options: ExportOptions) -> None:
    """Weights and embeddings in 4 bits, a scale for each 32; activations in 8 bits as they come."""
    import onnx
    from onnxruntime.quantization.matmul_nbits_quantizer import MatMulNBitsQuantizer

    quantizer = MatMulNBitsQuantizer(
        onnx.load(source),
        bits=4,
        block_size=INT4_BLOCK,
        is_symmetric=True,
        accuracy_level=INT8_ARITHMETIC,
        op_types_to_quantize=("MatMul", "Gather"),
        quant_axes=(("MatMul", 0), ("Gather", 1)),
    )
    quantizer.process()
    onnx.save(quantizer.model.model, out)


QUANTIZE: dict[str, Callable[[Path, Path, Any], None]] = {
    "fp16": fp16,
    "int8-dynamic": int8_dynamic,
    "int4": int4,
}
