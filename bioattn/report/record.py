"""Section about the run itself: versions, devices, digests, settings."""

from pathlib import PurePosixPath
from typing import Any

import yaml

from bioattn.config import RunConfig, digest, step_settings
from bioattn.report.blocks import Block, Cell, Code, Column, Fact, Facts, Heading, Notice, Section, Table, Text
from bioattn.report.files import ResultFiles
from bioattn.report.model import duration
from bioattn.report.numbers import MISSING

_STEPS = {
    "input": "simulate",
    "data": "ingest",
    "split": "split",
    "models": "train",
    "evaluation": "evaluate",
    "heads": "heads",
}
_COLUMNS = [
    Column("file", "file"),
    Column("step", "step"),
    Column("digest", "settings digest"),
    Column("seed", "seed"),
    Column("state", "made with these settings"),
]


def record_section(files: ResultFiles, run: RunConfig, *, version: str) -> Section:
    """Versions, device and time of training; the origin of every file read; the resolved settings."""
    blocks: list[Block] = [Facts([Fact("bioattn that wrote this report", version), *_training_facts(files)])]
    rows = [_row(path, record, run) for path, record in files.records()]
    stale = [row[0].text for row in rows if row[-1].text == "no"]
    if stale:
        text = (
            f"Made with other settings than the ones below: {', '.join(stale)}. Run the workflow again to update them."
        )
        blocks.append(Notice(text))
    if rows:
        blocks += [Heading("Files behind this report"), Table("files", "Files that were read", _COLUMNS, rows)]
    blocks.append(
        Text("The digest names the settings that a file depends on; the same digest means the same settings.", "small")
    )
    settings = yaml.safe_dump(run.model_dump(mode="json"), sort_keys=False, allow_unicode=True)
    blocks.append(Code("All settings of this run, defaults included", settings, folded=True))
    return Section("record", "Versions and settings", blocks)


def _training_facts(files: ResultFiles) -> list[Fact]:
    paths = files.replicates("models/fold*/seed*/run_record.json")
    records = [record for path in paths if (record := files.document(path))]
    if not records:
        return [Fact("training record", "missing")]
    first = records[0]
    versions: dict[str, Any] = first["versions"] if isinstance(first.get("versions"), dict) else {}
    facts = [Fact(str(name), str(value)) for name, value in versions.items()]
    facts += [Fact(name, str(first[name])) for name in ("device", "precision", "platform") if first.get(name)]
    seconds = [record["seconds"] for record in records if isinstance(record.get("seconds"), (int, float))]
    return facts + ([Fact(f"training time, {len(seconds)} models", duration(sum(seconds)))] if seconds else [])


def _row(path: str, record: dict[str, Any], run: RunConfig) -> list[Cell]:
    step = _step(path)
    found = str(record.get("digest") or "")
    state = MISSING
    if found and step:
        state = "yes" if found == digest(step_settings(run, step)) else "no"
    texts = [path, step or MISSING, found or MISSING, str(record.get("seed", MISSING)), state]
    return [Cell(text) for text in texts]


def _step(path: str) -> str:
    """Workflow step that writes a file."""
    parts = PurePosixPath(path).parts
    if parts[0] == "interactions":
        return "interactions" if parts[1] == "table" else "coattention"
    return _STEPS.get(parts[0], "")
