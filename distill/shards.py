"""Rows of tokens on disk: Arrow files, written in shards and read memory-mapped, by `datasets`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

SHARD_ROWS = 2**16


@dataclass(frozen=True)
class PackedRows:
    """Rows of max_length tokens each, on disk; read from the pages the system has mapped."""

    dataset: Any

    def __len__(self) -> int:
        return len(self.dataset)

    def read(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """ids int64 [rows, max_length] and word starts bool [rows, max_length] of some rows, in their order.

        A word start is False where a token goes on with the word of the token before it.
        """
        batch = self.dataset[rows]
        return batch["input_ids"], batch["word_start"]


class ShardWriter:
    """Writes rows to NAME-00000.arrow, NAME-00001.arrow, ... of SHARD_ROWS or a few more rows each."""

    def __init__(self, folder: Path, name: str, max_length: int) -> None:
        self.folder, self.name, self.max_length = folder, name, max_length
        self.rows, self.shards = 0, 0
        self._writer: Any = None
        self._file: Any = None
        self._rows_of_shard = 0

    def write(self, ids: np.ndarray, starts: np.ndarray) -> None:
        import pyarrow
        from datasets import Features, List, Value
        from datasets.arrow_writer import ArrowWriter

        if not len(ids):
            return
        if self._writer is None:
            kinds = {"input_ids": "int32", "word_start": "bool"}
            features = Features({name: List(Value(kind), self.max_length) for name, kind in kinds.items()})
            # Our own file: a path would be read as an address, in which some characters mean something.
            self._file = (self.folder / f"{self.name}-{self.shards:05d}.arrow").open("wb")
            self._writer = ArrowWriter(stream=self._file, features=features)
        columns = {
            name: pyarrow.FixedSizeListArray.from_arrays(pyarrow.array(values.reshape(-1)), self.max_length)
            for name, values in (("input_ids", ids), ("word_start", starts))
        }
        self._writer.write_table(pyarrow.table(columns))
        self.rows += len(ids)
        self._rows_of_shard += len(ids)
        if self._rows_of_shard >= SHARD_ROWS:
            self.close()

    def close(self) -> None:
        """Finish the shard under way; the next row begins another."""
        if self._writer is not None:
            self._writer.finalize(close_stream=False)
            self._file.close()
            self._writer, self._rows_of_shard, self.shards = None, 0, self.shards + 1


def open_rows(folder: Path, name: str) -> PackedRows:
    """Map the rows that a ShardWriter of this name wrote."""
    import datasets

    shards = [datasets.Dataset.from_file(str(path)) for path in sorted(folder.glob(f"{name}-*.arrow"))]
    return PackedRows(datasets.concatenate_datasets(shards).with_format("numpy"))
