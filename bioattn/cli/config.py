"""Verbs `config` and `schema`: what a configuration says, and what it may say."""

import json
from pathlib import Path
from typing import Annotated, Any

import typer
import yaml

from bioattn.config import json_schema, load_config


def config(
    path: Annotated[Path, typer.Argument(metavar="FILE", help="Configuration file (YAML).", show_default=False)],
) -> None:
    """Check a configuration file and print it with all defaults."""
    resolved = load_config(path)
    held = [f"{len(resolved.runs)} run(s): {', '.join(resolved.runs)}"] if resolved.runs else []
    held += ["the protein track"] if resolved.protein else []
    typer.echo(f"# OK: {path} holds {'; '.join(held)}")
    typer.echo(yaml.safe_dump(resolved.model_dump(mode="json"), sort_keys=False, allow_unicode=True), nl=False)


def schema(
    markdown: Annotated[bool, typer.Option("--markdown", help="Print a table of all settings instead.")] = False,
) -> None:
    """Print the JSON schema of configuration files."""
    typer.echo(settings_table() if markdown else json.dumps(json_schema(), indent=2))


def settings_table() -> str:
    """Markdown table of all settings: name, type, default, meaning."""
    document = json_schema()
    rows = ["| setting | type | default | meaning |", "| --- | --- | --- | --- |"]
    rows += _rows(document["properties"], document["$defs"], prefix="")
    return "\n".join(rows)


def _rows(properties: dict[str, Any], definitions: dict[str, Any], *, prefix: str) -> list[str]:
    rows = []
    for name, entry in properties.items():
        path, inner = f"{prefix}{name}", _section_of(entry)
        if inner is None:
            default = json.dumps(entry["default"]) if "default" in entry else "(required)"
            rows.append(f"| `{path}` | {_type_of(entry)} | `{default}` | {_cell(entry.get('description', ''))} |")
            continue
        section, step = inner
        meaning = entry.get("description") or definitions[section]["description"].splitlines()[0]
        absent = "`null`" if entry.get("default", "") is None else ""
        rows.append(f"| **`{path}`** | section | {absent} | {_cell(meaning)} |")
        rows += _rows(definitions[section]["properties"], definitions, prefix=path + step)
    return rows


def _section_of(entry: dict[str, Any]) -> tuple[str, str] | None:
    """Name of the section that a setting holds, and what stands between the two names; None for a plain value."""
    steps = [
        (entry, "."),
        (entry.get("additionalProperties"), ".NAME."),
        (entry.get("items"), "[]."),
        *((part, ".") for part in entry.get("anyOf", [])),
    ]
    for part, step in steps:
        if isinstance(part, dict) and "$ref" in part:
            return part["$ref"].rpartition("/")[2], step
    return None


def _type_of(entry: dict[str, Any]) -> str:
    if "anyOf" in entry:
        return " or ".join(_type_of(part) for part in entry["anyOf"])
    if "enum" in entry:
        return ", ".join(f"`{value}`" for value in entry["enum"])
    if "const" in entry:
        return f"`{entry['const']}`"
    if entry.get("type") == "array":
        return f"list of {_type_of(entry['items'])}"
    bounds = {"minimum": ">=", "exclusiveMinimum": ">", "maximum": "<=", "exclusiveMaximum": "<"}
    limits = ", ".join(f"{sign} {entry[key]:g}" for key, sign in bounds.items() if key in entry)
    return f"{entry.get('type', 'any')} {limits}".strip()


def _cell(text: str) -> str:
    return text.replace("|", "\\|")
