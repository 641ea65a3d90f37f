"""Target "coreml": convert a model to a Core ML package (mlprogram, fp16) with coremltools.

Apple's runtime is on macOS and iOS only. There load() predicts with it; anywhere else it interprets the saved
package (mil_interpreter.py), and what that shows is "interpreted on Linux, not run on Apple hardware".
"""

from __future__ import annotations

import json
import sys
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

import stillroom
from stillroom.errors import UsageError
from stillroom.extras import require, version_of
from stillroom.files import read_json
from stillroom.scheme import INT4_BLOCK, rounds_weights
from stillroom.student import load_model

if TYPE_CHECKING:
    from stillroom.export.options import ExportOptions
    from stillroom.export.targets import Predict
    from stillroom.task import TaskSpec

FILE = "model.mlpackage"
NOT_RUN = "interpreted on Linux, not run on Apple hardware"
MIN_ELEMENTS = 512  # smaller weights (LayerNorm, biases) stay fp16: they weigh nothing
# scheme -> the oldest iOS that can load it
OLDEST_IOS = {"fp16": 16, "int8-weights": 16, "palette6": 16, "palette4": 16, "int4": 18}
NEWEST_IOS = 18
QUANTIZATION = 3  # as coremltools numbers kinds of compression
MAX_LENGTHS = 16  # shapes that one package may enumerate; Core ML itself allows 128
INPUTS = {
    "input_ids": "token ids, [1, tokens]",
    "attention_mask": "1 for a token of the text, 0 for padding, [1, tokens]",
    "token_type_ids": "0 for a token of the first text, 1 for one of the second, [1, tokens]",
}


def proof() -> str:
    """How load() computes answers on this machine."""
    return "run" if sys.platform == "darwin" else NOT_RUN


def tool_versions() -> dict[str, str]:
    """The tools whose version can change the package."""
    return {name: version_of(name) for name in ("torch", "transformers", "coremltools")}


def convert(model_folder: Path, task: TaskSpec, scheme: str, out: Path, options: ExportOptions) -> None:
    """Write out/model.mlpackage: int32 inputs [1, tokens], output "logits" float [1, labels].

    Raises UsageError for a scheme it does not know, and an iOS version that cannot load what is asked for.
    """
    ios = oldest_ios(scheme, options)
    require("torch", "transformers", "coremltools")
    import coremltools
    import torch

    from stillroom.export.encoder import ExportModel
    from stillroom.export.options import rounds_to_nearest

    lengths = options.lengths or (task.max_length,)
    wrapped = ExportModel(load_model(model_folder), task.inputs, task.max_length, shorten=options.shorten)
    if ours := rounds_weights(scheme) and not rounds_to_nearest(options):
        _round(wrapped, scheme, options)
    example = tuple(torch.ones(1, lengths[0], dtype=torch.long) for _ in task.inputs)
    axes = None
    if len(options.lengths) != 1:
        axes = tuple({1: torch.export.Dim("length", min=1, max=task.max_length)} for _ in task.inputs)
    program = torch.export.export(wrapped, example, dynamic_shapes=axes).run_decompositions({})
    package = coremltools.convert(
        program,
        convert_to="mlprogram",
        minimum_deployment_target=getattr(coremltools.target, f"iOS{ios}"),
        compute_precision=coremltools.precision.FLOAT16,
        inputs=[
            coremltools.TensorType(name, _shape(options.lengths, task), np.int32) for name in task.inputs
        ],
        outputs=[coremltools.TensorType("logits", dtype=np.float32)],
        skip_model_load=True,
    )
    package = _compressed(package, scheme, ours)
    _describe(package, task, scheme, options)
    package.save(str(out / FILE))
    _make_reproducible(out / FILE)


def oldest_ios(scheme: str, options: ExportOptions) -> int:
    """The deployment target. Raises UsageError for one that cannot load the scheme or the lengths."""
    if scheme not in OLDEST_IOS:
        raise UsageError(f"coreml has no scheme {scheme!r}: there are {', '.join(OLDEST_IOS)}")
    needed = max(OLDEST_IOS[scheme], 18 if len(options.lengths) > 1 else 0)
    if options.ios and not needed <= options.ios <= NEWEST_IOS:
        what = f"{scheme} with several lengths" if len(options.lengths) > 1 else scheme
        raise UsageError(f"iOS {options.ios}: coreml-{what} needs {needed} to {NEWEST_IOS}")
    return options.ios or needed


def _shape(lengths: tuple[int, ...], task: TaskSpec) -> Any:
    import coremltools

    if not lengths:
        return (1, coremltools.RangeDim(1, task.max_length, default=task.max_length))
    shapes = [(1, length) for length in lengths]
    return shapes[0] if len(shapes) == 1 else coremltools.EnumeratedShapes(shapes, default=shapes[-1])


def _round(wrapped: Any, scheme: str, options: ExportOptions) -> None:
    """Round an ExportModel in place, and leave beside each int4 weight what coremltools is to store of it.

    It reads such buffers by their names ("torch models with compression" in its guide) and keeps position
    embeddings, of which it then knows nothing, in fp16.
    """
    import torch

    from stillroom.export.rounding import WORDS, round_to_blocks, round_to_palettes
    from stillroom.observe import linear_maps

    names = [WORDS, *linear_maps(wrapped)]
    if scheme != "int4":
        round_to_palettes(wrapped, options, names, 2 ** int(scheme.removeprefix("palette")))
        return
    for name, rounded in round_to_blocks(wrapped, options, names, signed=False).items():
        module = wrapped.get_submodule(name)
        module.register_buffer("_COREML_/weight/compression_type", torch.tensor([QUANTIZATION]))
        module.register_buffer("_COREML_/weight/quantization_n_bits", torch.tensor(4))
        module.register_buffer("_COREML_/weight/quantization_scale", rounded.scales.half())


def _compressed(package: Any, scheme: str, ours: bool) -> Any:
    """ours: weights were rounded before the conversion, and only have to be stored so."""
    import coremltools.optimize.coreml as optimize

    def by(change: Any, setting: Any) -> Any:
        return change(package, optimize.OptimizationConfig(global_config=setting))

    if scheme == "int8-weights":
        setting = optimize.OpLinearQuantizerConfig(mode="linear_symmetric", weight_threshold=MIN_ELEMENTS)
        return by(optimize.linear_quantize_weights, setting)  # per output channel
    if scheme == "int4" and not ours:
        setting = optimize.OpLinearQuantizerConfig(
            mode="linear_symmetric", dtype="int4", granularity="per_block", block_size=INT4_BLOCK,
            weight_threshold=MIN_ELEMENTS,
        )  # fmt: skip
        return by(optimize.linear_quantize_weights, setting)
    if scheme.startswith("palette"):
        require("sklearn")
        bits = int(scheme.removeprefix("palette"))
        chosen = {"mode": "kmeans", "nbits": bits}
        if ours:
            chosen = {"mode": "custom", "lut_function": lambda values: table_and_indices(values, 2**bits)}
        setting = optimize.OpPalettizerConfig(**chosen, weight_threshold=MIN_ELEMENTS)
        return by(optimize.palettize_weights, setting)
    return package


def table_and_indices(values: np.ndarray, size: int) -> tuple[np.ndarray, np.ndarray]:
    """The values there are, [size], padded with zeros, and for each value of the array which of them it is.

    More than size of them: those of k-means, for a weight that nobody has rounded (position embeddings).
    coremltools' own mode "unique" takes numpy's unique of fp16, which numpy 2.4.6 gets wrong: 16 values
    came out as 42, and the table with 6 bits instead of 4.
    """
    found, indices = np.unique(values.astype(np.float32), return_inverse=True)
    if len(found) > size:
        import torch

        from stillroom.export.rounding import palette_of

        weight = torch.from_numpy(values.astype(np.float32))
        palette = palette_of(weight, size, torch.ones_like(weight))
        found, indices = palette.numpy(), torch.bucketize(weight, (palette[1:] + palette[:-1]) / 2).numpy()
    table = np.zeros(size, dtype=values.dtype)
    table[: len(found)] = found
    return table, indices.reshape(-1).astype(np.uint8)


def _describe(package: Any, task: TaskSpec, scheme: str, options: ExportOptions) -> None:
    """The metadata that Xcode shows, and the labels in the form an app can read."""
    package.author, package.license = options.author, options.license
    package.short_description = (
        f"{task.kind} with {len(task.labels)} labels, {scheme}. The output is logits: index -> label as "
        "in the metadata key labels."
    )
    package.version = stillroom.__version__
    for name in task.inputs:
        package.input_description[name] = INPUTS[name]
    package.output_description["logits"] = f"one number a label, [1, {len(task.labels)}]"
    package.user_defined_metadata["labels"] = json.dumps(list(task.labels), ensure_ascii=False)
    package.user_defined_metadata["max_length"] = str(task.max_length)
    package.user_defined_metadata["stillroom"] = f"{stillroom.__version__}; {NOT_RUN}"


def _make_reproducible(package: Path) -> None:
    """Same model, same bytes: fixed item ids in Manifest.json, map entries of the program in key order."""
    from coremltools.proto import Model_pb2

    spec_path = package / "Data" / "com.apple.CoreML" / "model.mlmodel"
    spec = Model_pb2.Model()
    spec.ParseFromString(spec_path.read_bytes())
    spec_path.write_bytes(spec.SerializeToString(deterministic=True))
    manifest = read_json(package / "Manifest.json")
    new_id = {old: str(uuid.uuid5(uuid.NAMESPACE_URL, entry["path"])).upper()
              for old, entry in manifest["itemInfoEntries"].items()}  # fmt: skip
    entries = {new_id[old]: entry for old, entry in manifest["itemInfoEntries"].items()}
    manifest["itemInfoEntries"] = dict(sorted(entries.items()))
    manifest["rootModelIdentifier"] = new_id[manifest["rootModelIdentifier"]]
    text = json.dumps(manifest, indent=4, sort_keys=True)  # as coremltools does, whenever it opens one
    (package / "Manifest.json").write_text(f"{text}\n", encoding="utf-8")
    (package / "executorch_debug_handle_mapping.json").unlink(missing_ok=True)  # of no use to Core ML


def import_runtime() -> None:
    """Load coremltools, and off a Mac torch, which the interpreter computes with."""
    require("coremltools", "torch")
    import coremltools  # noqa: F401  (the import is the point)


def load(folder: Path, threads: int) -> Predict:
    """Open folder/model.mlpackage: on macOS with Core ML, on its CPU, elsewhere interpreted."""
    require("coremltools", "torch")
    if sys.platform == "darwin":
        run = _run_by_apple(folder / FILE)
    else:
        import torch

        from stillroom.export.mil_interpreter import interpreter_of

        torch.set_num_threads(threads)
        run = interpreter_of(folder / FILE)

    def predict(*inputs: np.ndarray) -> np.ndarray:
        arrays = (array.astype(np.int32) for array in inputs)
        return np.asarray(run(dict(zip(INPUTS, arrays, strict=False)))["logits"], dtype=np.float32)

    return predict


def _run_by_apple(package: Path) -> Any:
    import coremltools

    return coremltools.models.MLModel(str(package), compute_units=coremltools.ComputeUnit.CPU_ONLY).predict
