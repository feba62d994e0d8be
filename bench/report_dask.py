"""The table of `tokenize --backend dask`, and what it says of a terabyte. Used by report.py."""

from typing import Any

from bench.report_common import machine_line, ranged

TERABYTE_MB = 1e6
N_WORKERS = (1, 8, 32, 128)
ROWS = {
    "seen, 1": "one worker that sees the staging folder",
    "seen, 2": "two of them",
    "sent, 1": "one worker that sends its files back",
    "sent, 2": "two of them",
    "client": "taking the files that workers send, nothing tokenized",
    "vocabulary": "counts to a vocabulary",
    "second pass": "the second pass, two processes of this machine",
}


def hours_of_a_terabyte(result: dict[str, Any], n_workers: int, *, sent: bool) -> float:
    """The first pass by the measured rates: as many workers as there are, or what one process can take of their files.

    Workers by the seconds of their processors, which other programs of the machine do not change; the process by the clock.
    """
    seconds, mb = result["seconds"], result["text_mb"]
    way = "sent" if sent else "seen"
    worker_s = seconds[f"{way}, 2, processors"]["median"] / mb
    client_s = seconds["client"]["median"] / mb if sent else 0.0
    return TERABYTE_MB * max(worker_s / n_workers, client_s) / 3600


def alone_hours(result: dict[str, Any]) -> float:
    """What the machine that was asked does by itself for a terabyte, whatever the cluster: vocabulary and second pass."""
    alone_s = sum(result["seconds"][name]["median"] for name in ("vocabulary", "second pass"))
    return TERABYTE_MB * alone_s / result["text_mb"] / 3600


def dask_table(result: dict[str, Any]) -> str:
    """What was measured, then the model."""
    mb, load = result["text_mb"], result["load_average"]
    lines = [
        f"{mb:.1f} MB of text in {result['n_units']} work units; {result['sent_mb'] / mb:.2f} MB of files for each MB of it.",
        "",
        f"| {mb:.0f} MB of text, all on 2 cores | seconds | MB/s | MB per second of its processors |",
        "|---|---|---|---|",
    ]
    for name, shown in ROWS.items():
        found = result["seconds"][name]
        cpu = result["seconds"].get(f"{name}, processors") or result["seconds"].get(f"{name}, processor")
        per_cpu = f"{mb / cpu['median']:.1f}" if cpu else ""
        lines.append(f"| {shown} | {ranged(found, digits=1)} | {mb / found['median']:.1f} | {per_cpu} |")
    lines += ["", "| a terabyte, by these rates | folder seen, hours | files sent, hours |", "|---|---|---|"]
    for n in N_WORKERS:
        seen, sent = (hours_of_a_terabyte(result, n, sent=sent) for sent in (False, True))
        lines.append(f"| {n} worker{'s' * (n > 1)} | {seen:.1f} | {sent:.1f} |")
    lines += [
        "",
        f"To each of them {alone_hours(result):.1f} hours of the machine that was asked, for the vocabulary and the second pass (two processes; more take less).",
        "No network was between these processes, and nothing of this was measured on a terabyte. "
        f"The load average of the machine was {load[0]} to {load[-1]}: above 2 the seconds of the clock are those of other work too.",
        "",
        machine_line(result),
    ]
    return "\n".join(lines)
