"""Times one file in one runtime, in this process: a JSON request on standard input, a JSON reply on output.

Runs by the Python of each peer's own environment, so it imports nothing but numpy and, once asked for, that
runtime. LOADERS holds one function per runtime; all else is the same for every one of them: the same inputs,
the same number of calls, the same clock around the same callable (ids, mask, types: int64 [1, tokens] each
-> logits float32 [1, labels]).
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import re
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]
Predict = Callable[[Array, Array, Array], Array]


@dataclass(frozen=True)
class Loader:
    """A runtime: modules it imports (timed apart from loading), packages whose versions are reported."""

    modules: tuple[str, ...]
    packages: tuple[str, ...]
    open: Callable[[str, int], Predict]  # a file or folder, and how many threads -> predict


def open_onnxruntime(path: str, threads: int) -> Predict:
    """A session with intra_op_num_threads; graph optimization is onnxruntime's default, all of it."""
    runtime = importlib.import_module("onnxruntime")
    options = runtime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    options.log_severity_level = 3
    session = runtime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    wanted = [entry.name for entry in session.get_inputs()]

    def predict(ids: Array, mask: Array, types: Array) -> Array:
        given = {"input_ids": ids, "attention_mask": mask, "token_type_ids": types}
        return np.asarray(session.run(None, {name: given[name] for name in wanted})[0])

    return predict


def open_executorch(path: str, threads: int) -> Predict:
    """A program whose thread pool is made anew with so many threads."""
    torch = importlib.import_module("torch")
    portable = importlib.import_module("executorch.extension.pybindings.portable_lib")
    portable._unsafe_reset_threadpool(threads)
    runtime = importlib.import_module("executorch.runtime").Runtime.get()
    program = runtime.load_program(path)
    method = program.load_method("forward")
    count = method.metadata.num_inputs()

    def predict(*inputs: Array) -> Array:
        (logits,) = method.execute([torch.from_numpy(array) for array in inputs[:count]])
        return np.array(logits.numpy())  # a copy: the program's memory is reused

    return predict


def open_openvino(path: str, threads: int) -> Predict:
    """Compiled for latency with INFERENCE_NUM_THREADS; fp32 where no file says int8, never bf16 by itself."""
    openvino = importlib.import_module("openvino")
    settings = {
        "INFERENCE_NUM_THREADS": threads, "PERFORMANCE_HINT": "LATENCY", "NUM_STREAMS": 1,
        "INFERENCE_PRECISION_HINT": "f32",
    }  # fmt: skip
    compiled = openvino.Core().compile_model(path, "CPU", settings)
    request = compiled.create_infer_request()
    wanted = [entry.get_any_name() for entry in compiled.inputs]

    def predict(ids: Array, mask: Array, types: Array) -> Array:
        given = {"input_ids": ids, "attention_mask": mask, "token_type_ids": types}
        request.infer({name: given[name] for name in wanted}, share_inputs=True)
        return np.array(request.get_output_tensor(0).data)

    return predict


def open_litert(path: str, threads: int) -> Predict:
    """An interpreter with num_threads and its default delegate, XNNPACK; one signature for each length.

    The file has fixed lengths: a text is padded to the next of them, and the mask hides what was added.
    """
    litert = importlib.import_module("ai_edge_litert.interpreter")
    interpreter = litert.Interpreter(model_path=path, num_threads=threads)
    runners = {
        int(name.rpartition("_")[2]): interpreter.get_signature_runner(name)
        for name in interpreter.get_signature_list()
    }

    def predict(ids: Array, mask: Array, types: Array) -> Array:
        tokens = ids.shape[1]
        width = min(length for length in runners if length >= tokens)
        padding = ((0, 0), (0, width - tokens))
        padded = [np.pad(array, padding).astype(np.int32) for array in (ids, mask)]
        (logits,) = runners[width](args_0=padded[0], args_1=padded[1]).values()
        return np.asarray(logits)

    return predict


def open_torch(path: str, threads: int) -> Predict:
    """transformers' own model, eager, with torch.set_num_threads."""
    torch = importlib.import_module("torch")
    torch.set_num_threads(threads)
    transformers = importlib.import_module("transformers")
    model = transformers.AutoModelForSequenceClassification.from_pretrained(path, local_files_only=True)
    model.eval()

    def predict(ids: Array, mask: Array, types: Array) -> Array:
        given = {"input_ids": ids, "attention_mask": mask, "token_type_ids": types}
        with torch.inference_mode():
            return np.asarray(
                model(**{name: torch.from_numpy(array) for name, array in given.items()}).logits
            )

    return predict


def open_torchscript(path: str, threads: int) -> Predict:
    """A traced module, with torch.set_num_threads."""
    torch = importlib.import_module("torch")
    torch.set_num_threads(threads)
    model = torch.jit.load(path)

    def predict(*inputs: Array) -> Array:
        with torch.inference_mode():
            return np.asarray(model(*(torch.from_numpy(array) for array in inputs)))

    return predict


def open_nothing(path: str, threads: int) -> Predict:
    """No model at all: what the clock and the call around it take."""
    logits = np.zeros((1, 2), dtype=np.float32)
    return lambda ids, mask, types: logits


LOADERS = {
    "onnxruntime": Loader(("onnxruntime",), ("onnxruntime",), open_onnxruntime),
    "executorch": Loader(
        ("torch", "executorch.runtime"), ("executorch", "torch", "torchao"), open_executorch
    ),
    "openvino": Loader(("openvino",), ("openvino",), open_openvino),
    "litert": Loader(("ai_edge_litert.interpreter",), ("ai-edge-litert",), open_litert),
    "torch": Loader(("torch", "transformers"), ("torch", "transformers"), open_torch),
    "torchscript": Loader(("torch",), ("torch",), open_torchscript),
    "nothing": Loader((), (), open_nothing),
}


def resident_bytes() -> tuple[int, int]:
    """Resident memory of this process: now, and at most so far (VmHWM, which no fork carries along)."""
    status = Path("/proc/self/status").read_text(encoding="ascii", errors="replace")
    found = dict(re.findall(r"^(VmHWM|VmRSS):\s*(\d+) kB$", status, flags=re.MULTILINE))
    return int(found["VmRSS"]) * 1024, int(found["VmHWM"]) * 1024


def whole(row: Array) -> tuple[Array, Array, Array]:
    """Ids [tokens] as inputs of one row: all attended to, all of the first segment."""
    ids = np.ascontiguousarray(row, dtype=np.int64)[None, :]
    return ids, np.ones_like(ids), np.zeros_like(ids)


def measure(request: dict[str, Any], loaders: dict[str, Loader]) -> dict[str, Any]:
    """What one process measures; logits of the test rows too where request asks for them.

    request: loader, file, threads, inputs (an .npz with timed_ids, test_ids, test_offsets), lengths, warmup,
    samples, answers. Times are milliseconds, memory is bytes. Raises what the runtime raises, and ValueError
    for logits that are not finite.
    """
    loader = loaders[request["loader"]]
    arrays = np.load(request["inputs"], allow_pickle=False)
    timed_ids = arrays["timed_ids"]
    begun = time.perf_counter_ns()
    for module in loader.modules:
        imported = importlib.import_module(module)
        if module == "transformers":  # loads its parts on first use
            imported.AutoModelForSequenceClassification  # noqa: B018
    import_ms = (time.perf_counter_ns() - begun) / 1e6
    baseline_bytes, _ = resident_bytes()
    begun = time.perf_counter_ns()
    predict = loader.open(request["file"], request["threads"])
    load_ms = (time.perf_counter_ns() - begun) / 1e6

    def call_ms(inputs: tuple[Array, Array, Array]) -> float:
        start_ns = time.perf_counter_ns()
        logits = predict(*inputs)
        elapsed_ms = (time.perf_counter_ns() - start_ns) / 1e6
        if logits.ndim != 2 or not np.isfinite(logits).all():
            raise ValueError(f"logits of shape {logits.shape}, or not finite, at {inputs[0].shape[1]} tokens")
        return elapsed_ms

    first_ms = call_ms(whole(timed_ids[: max(request["lengths"])]))
    samples_ms: dict[int, list[float]] = {}
    for length in request["lengths"]:
        inputs = whole(timed_ids[:length])
        for _ in range(request["warmup"]):
            call_ms(inputs)
        samples_ms[length] = [call_ms(inputs) for _ in range(request["samples"])]
    _, peak_bytes = resident_bytes()  # before the test rows: other runtimes keep something for every length
    logits: list[list[float]] = []
    if request["answers"]:
        ids, offsets = arrays["test_ids"], arrays["test_offsets"]
        for start, end in pairwise(offsets):
            logits.append([float(value) for value in predict(*whole(ids[start:end]))[0]])
    return {
        "import_ms": import_ms, "load_ms": load_ms, "first_ms": first_ms, "samples_ms": samples_ms,
        "peak_rss_bytes": peak_bytes, "baseline_rss_bytes": baseline_bytes, "logits": logits,
        "versions": {package: version(package) for package in loader.packages},
    }  # fmt: skip


def main(loaders: dict[str, Loader]) -> None:
    """Read the request, write the reply. A failure ends with a traceback, whose last line is the reason."""
    os.environ["ORT_DISABLE_TELEMETRY"] = "1"
    with os.fdopen(os.dup(1), "w", encoding="utf-8") as reply_file:
        os.dup2(2, 1)  # runtimes print to descriptor 1 from native code
        request = json.load(sys.stdin)
        gc.disable()  # an app has no Python collector, so its pauses do not belong in the samples
        json.dump(measure(request, loaders), reply_file)


if __name__ == "__main__":
    main(LOADERS)
