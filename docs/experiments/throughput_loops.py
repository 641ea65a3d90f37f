"""One distillation loop in one process, timed step by step: the child of throughput.py.

Reads a request (JSON, on standard input) and writes a reply where the request says. Only the functions that
need stillroom import it: TextBrewer's environment has none.
"""

from __future__ import annotations

import json
import math
import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from torch.optim.optimizer import register_optimizer_step_post_hook
from torch.utils.data import DataLoader, Dataset, RandomSampler

# Where a matrix product is computed, forward and backward; attention is two of them with a softmax between.
MATMULS = ("mm", "addmm", "bmm", "baddbmm", "linear", "matmul")
WEIGHT_DECAY = 0.01
TOP_OPERATIONS = 12  # kept in the reply, to see where time goes

Request = dict[str, Any]


class StepClock:
    """Seconds of wall and of CPU at the end of every optimizer step of this process, whoever makes it.

    untimed: steps at the start, at least 1. timed: steps after them, each from the end of the one before.
    profiled: steps after those, under torch's profiler, which slows them down.
    """

    def __init__(self, untimed: int, timed: int, profiled: int) -> None:
        self.first, self.last, self.end = untimed, untimed + timed, untimed + timed + profiled
        self.wall_s: list[float] = []
        self.cpu_s: list[float] = []
        self.peak_rss_bytes = 0
        self.profile_s = 0.0
        self.profiler = torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU])
        self.hook = register_optimizer_step_post_hook(self._stepped)

    def _stepped(self, *_: Any) -> None:
        self.wall_s.append(time.perf_counter())
        self.cpu_s.append(time.process_time())
        step = len(self.wall_s)
        if step == self.last:
            self.peak_rss_bytes = peak_rss_bytes()
            self.profiler.start()
            self.profile_s = -time.perf_counter()
        if step == self.end:
            self.profile_s += time.perf_counter()
            self.profiler.stop()

    def figures(self, threads: int) -> dict[str, Any]:
        """step_s: seconds of each timed step. cpu_utilisation: of `threads` cores. See outside_matmuls."""
        self.hook.remove()
        wall = self.wall_s[self.last - 1] - self.wall_s[self.first - 1]
        cpu = self.cpu_s[self.last - 1] - self.cpu_s[self.first - 1]
        return {
            "step_s": np.diff(self.wall_s[self.first - 1 : self.last]).round(4).tolist(),
            "timed_s": wall,
            "timed_cpu_s": cpu,
            "cpu_utilisation": cpu / wall / threads,
            "peak_rss_bytes": self.peak_rss_bytes,
            **outside_matmuls(self.profiler, self.profile_s),
        }


def outside_matmuls(profiler: Any, profile_s: float) -> dict[str, Any]:
    """The share of the operations' own CPU time that is in no matrix product, and where the time goes."""
    own_s = {event.key: event.self_cpu_time_total / 1e6 for event in profiler.key_averages()}
    total = sum(own_s.values())
    inside = sum(spent for name, spent in own_s.items() if is_matmul(name))
    top = sorted(own_s, key=lambda name: -own_s[name])[:TOP_OPERATIONS]
    return {
        "outside_matmuls": 1 - inside / total,
        "profiled_s": profile_s,
        "profiled_operations_s": total,
        "top_operations": {name: own_s[name] / total for name in top},
    }


def is_matmul(operation: str) -> bool:
    """Whether a profiler's event is a matrix product: "aten::addmm" is one, "aten::addcmul_" is not."""
    name = operation.rpartition("::")[2].lstrip("_")
    return name in MATMULS or name.startswith(("scaled_dot_product", "mkldnn"))


def peak_rss_bytes() -> int:
    """This process' resident memory at its highest."""
    status = Path("/proc/self/status")
    if status.is_file():  # Linux hands ru_maxrss on from the parent, VmHWM it does not
        for line in status.read_text("ascii", "replace").splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


class PaddedRows(Dataset[dict[str, torch.Tensor]]):
    """Rows padded to max_length, as a script that calls the tokenizer with padding="max_length" has them."""

    def __init__(self, request: Request) -> None:
        rows = np.load(Path(request["folder"]) / "rows.npz", allow_pickle=False)
        lengths = np.diff(rows["offsets"])
        real = np.arange(request["task"]["max_length"]) < lengths[:, None]
        ids = np.full(real.shape, request["pad_id"], dtype=np.int64)
        ids[real] = rows["ids"]
        self.columns = {
            "input_ids": torch.from_numpy(ids),
            "attention_mask": torch.from_numpy(real.astype(np.int64)),
            "labels": torch.from_numpy(rows["labels"]),
        }

    def __len__(self) -> int:
        return len(self.columns["labels"])

    def __getitem__(self, row: int) -> dict[str, torch.Tensor]:
        return {name: column[row] for name, column in self.columns.items()}


def cut_to_longest(rows: list[dict[str, torch.Tensor]]) -> dict[str, torch.Tensor]:
    """A batch as wide as its longest row: what a padding collator makes."""
    batch = {name: torch.stack([row[name] for row in rows]) for name in rows[0]}
    longest = int(batch["attention_mask"].sum(dim=1).max())
    return {name: column[:, :longest] if column.ndim > 1 else column for name, column in batch.items()}


def steps_of(request: Request) -> tuple[int, int]:
    """How many steps a pass over the rows takes, and how many a loop that need not end with one makes."""
    epoch = request["rows"] // request["batch_size"]
    return epoch, request["untimed"] + epoch + request["profiled"]


def load(request: Request, name: str) -> Any:
    folder = Path(request["folder"]) / name
    return transformers.AutoModelForSequenceClassification.from_pretrained(folder, local_files_only=True)


def stillroom_loop(request: Request, *, frozen: bool = False, fp32: bool = False) -> dict[str, Any]:
    """stillroom's own: the teacher's outputs computed once, rows of like length in one batch.

    Three epochs: the loop warms up in one, is timed over one, and profiled at the start of the last.
    frozen: word embeddings are not trained, as in the demo. fp32: even where the CPU has bf16, as TextBrewer,
    which has none on a CPU. teacher_s: seconds for the teacher's outputs, always in fp32.
    """
    from stillroom.distill import train
    from stillroom.distill.distill import StudentShape, distill_from_model, model_sha256
    from stillroom.distill.objective import LossWeights
    from stillroom.distill.targets_cache import teacher_outputs
    from stillroom.student import load_model
    from stillroom.task import task_from_dict
    from stillroom.tokens import Tokens

    rows = np.load(Path(request["folder"]) / "rows.npz", allow_pickle=False)
    tokens, task = Tokens(**rows, pad_id=request["pad_id"]), task_from_dict(request["task"])
    teacher, work = load_model(Path(request["folder"]) / "teacher"), Path(request["scratch"])
    start, states = time.perf_counter(), [f"hidden-{teacher.config.num_hidden_layers}"]
    teacher_outputs(teacher, model_sha256(teacher), tokens, task.inputs, work / "teacher-outputs-0", states)
    teacher_s = time.perf_counter() - start
    if fp32:
        train.mixed_precision = lambda: "no"
    settings = train.TrainSettings(
        3, request["learning_rate"], request["batch_size"], request["seed"], frozen, checkpoint_every_s=1e9
    )
    clock = StepClock(steps_of(request)[0], steps_of(request)[0], request["profiled"])
    _, facts = distill_from_model(
        teacher, tokens, task, settings, work, StudentShape(), LossWeights(**request["weights"])
    )
    return {"teacher_s": teacher_s, "precision": facts["precision"], **clock.figures(request["threads"])}


def trainer_loop(request: Request, *, bf16: bool) -> dict[str, Any]:
    """transformers' Trainer as a user would write it: the teacher answers in compute_loss, at every step."""
    from stillroom.distill.losses import hidden_cosine_loss, soft_target_loss

    teacher, weights = load(request, "teacher").eval(), request["weights"]

    class DistillationTrainer(transformers.Trainer):  # type: ignore[misc]
        def compute_loss(self, model: Any, inputs: Any, return_outputs: bool = False, **_: Any) -> Any:
            output = model(**inputs, output_hidden_states=True)
            # accelerate casts inside the model that it prepared, not inside the teacher.
            with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=bf16):
                told = teacher(
                    inputs["input_ids"], attention_mask=inputs["attention_mask"], output_hidden_states=True
                )
            soft = soft_target_loss(output.logits, told.logits, weights["temperature"])
            cosine = hidden_cosine_loss(
                output.hidden_states[-1], told.hidden_states[-1], inputs["attention_mask"]
            )
            loss = weights["soft"] * soft + weights["hard"] * output.loss + weights["cosine"] * cosine
            return (loss, output) if return_outputs else loss

    arguments = transformers.TrainingArguments(
        output_dir=request["scratch"],
        per_device_train_batch_size=request["batch_size"],
        max_steps=steps_of(request)[1],
        learning_rate=request["learning_rate"],
        weight_decay=WEIGHT_DECAY,
        warmup_steps=math.ceil(0.1 * steps_of(request)[1]),
        seed=request["seed"],
        bf16=bf16,
        use_cpu=True,
        save_strategy="no",
        report_to=[],
    )
    trainer = DistillationTrainer(load(request, "student"), arguments, train_dataset=PaddedRows(request))
    clock = StepClock(request["untimed"], steps_of(request)[0], request["profiled"])
    trainer.train()
    return {"precision": "bf16 autocast" if bf16 else "fp32", **clock.figures(request["threads"])}


def textbrewer_loop(request: Request, *, longest: bool) -> dict[str, Any]:
    """TextBrewer's GeneralDistiller, set up as in its sst2 example, with the losses of the others.

    Its "ce" is the KL divergence but for a constant, and without the T squared, which is in the weight here.
    longest: batches are cut to their longest row; its examples pad to max_length.
    """
    from textbrewer import DistillationConfig, GeneralDistiller, TrainingConfig

    teacher, student, rows = load(request, "teacher"), load(request, "student"), PaddedRows(request)
    epoch, steps = steps_of(request)
    weights = request["weights"]
    batches = DataLoader(
        rows,
        sampler=RandomSampler(rows),
        batch_size=request["batch_size"],
        collate_fn=cut_to_longest if longest else None,
    )

    def adaptor(batch: Any, output: Any) -> dict[str, Any]:
        return {
            "logits": output.logits,
            "hidden": output.hidden_states[-1:],
            "inputs_mask": batch["attention_mask"],
            "losses": output.loss,
        }

    distiller = GeneralDistiller(
        TrainingConfig(device="cpu", output_dir=request["scratch"], ckpt_steps=steps),
        DistillationConfig(
            temperature=weights["temperature"],
            kd_loss_type="ce",
            kd_loss_weight=weights["soft"] * weights["temperature"] ** 2,
            hard_label_weight=weights["hard"],
            intermediate_matches=[
                {"layer_T": 0, "layer_S": 0, "feature": "hidden", "loss": "cos", "weight": weights["cosine"]}
            ],
        ),
        teacher,
        student,
        adaptor,
        adaptor,
    )
    # fused, as in the other two: the optimizer is not what is compared.
    optimizer = torch.optim.AdamW(
        student.parameters(), lr=request["learning_rate"], weight_decay=WEIGHT_DECAY, fused=True
    )
    clock = StepClock(request["untimed"], epoch, request["profiled"])
    with distiller:
        distiller.train(
            optimizer,
            batches,
            num_steps=steps,
            max_grad_norm=1.0,
            scheduler_class=transformers.get_linear_schedule_with_warmup,
            scheduler_args={"num_warmup_steps": math.ceil(0.1 * steps), "num_training_steps": steps},
            output_hidden_states=True,
        )
    return {"precision": "fp32", **clock.figures(request["threads"])}


LOOPS: dict[str, Callable[[Request], dict[str, Any]]] = {
    "stillroom": stillroom_loop,
    "stillroom, word embeddings frozen": lambda request: stillroom_loop(request, frozen=True),
    "stillroom, fp32": lambda request: stillroom_loop(request, fp32=True),
    "Trainer, fp32": lambda request: trainer_loop(request, bf16=False),
    "Trainer, bf16": lambda request: trainer_loop(request, bf16=True),
    "TextBrewer": lambda request: textbrewer_loop(request, longest=False),
    "TextBrewer, batches cut to their longest row": lambda request: textbrewer_loop(request, longest=True),
}


def main() -> None:
    request = json.load(sys.stdin)
    torch.set_num_threads(request["threads"])
    torch.manual_seed(request["seed"])
    transformers.logging.set_verbosity_error()
    reply = LOOPS[request["loop"]](request)
    reply["versions"] = {"torch": torch.__version__, "transformers": transformers.__version__}
    if "TextBrewer" in request["loop"]:
        from importlib.metadata import version

        reply["versions"]["textbrewer"] = version("textbrewer")
    Path(request["reply"]).write_text(json.dumps(reply), encoding="utf-8")


if __name__ == "__main__":
    main()
