"""The pages of the reference, made from the code: settings, `mierctl`, HTTP, gRPC, Python. Values in, Markdown out."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any, Literal, get_args, get_origin

import typer
from pydantic import BaseModel, SecretStr
from pydantic.fields import FieldInfo
from typer.cli import get_docs_for_click

from mier_service.http.app import build_app
from mier_service.http.health import build_health
from mier_service.http.inference import build_inference
from mier_service.http.routes import build_router
from mier_service.mierctl.__main__ import app as mierctl

_MADE = "*Made from the code when the site is built.*\n"
_SIGNS = (("ge", "≥"), ("gt", ">"), ("le", "≤"), ("lt", "<"))
_CALLS = """\
The calls are told once, for both clients. Where one gives a `Plan[X]`, `Client` returns an `X` and `AsyncClient` is
awaited for it; over `Pages[X]` and `Watch[X]` the one iterates with `for`, the other with `async for`.
"""
_MODULES = {
    "The client": ["mier_client.Client", "mier_client.AsyncClient", "mier_client.Timeouts", "mier_client.Tls"],
    "Its calls": ["mier_client.surface.Surface"],
    "Acting and recording": [
        *("mier_client.RemotePolicy", "mier_client.edge.EdgePolicy", "mier_client.Acting"),
        *("mier_client.Recorder", "mier_client.Step", "mier_client.adaptive_env.AdaptiveEnv"),
    ],
    "What comes back": ["mier_client.values"],
    "Errors": ["mier_client.errors"],
    "Retries": ["mier_client.RetryPolicy", "mier_client.Retrier"],
}


def settings_page(settings: type[BaseModel]) -> str:
    """A row for each setting of `mier-serve`: flag, variable, default, meaning."""
    rows = [
        f"| `--{name.replace('_', '-')}`{_kind(field)}<br>`MIER_{name.upper()}` | {_default(field)} | {_means(field)} |"
        for name, field in settings.model_fields.items()
    ]
    head = "# Settings of mier-serve\n\nThe command line wins, then the environment, then the default.\n"
    return "\n".join([head, _MADE, "| flag, variable | default | |", "|---|---|---|", *rows, ""])


def _kind(field: FieldInfo) -> str:
    types = [t for t in (get_args(field.annotation) or (field.annotation,)) if t is not type(None)]
    if get_origin(field.annotation) is Literal:
        return " " + "\\|".join(f"`{value}`" for value in types)
    if types == [bool]:
        return ""
    return " " + {"SecretStr": "URL", "Path": "PATH", "str": "TEXT", "int": "N", "float": "X"}[types[0].__name__]


def _default(field: FieldInfo) -> str:
    if field.default_factory is not None:
        return "the bundled ones"
    if field.default is None or isinstance(field.default, SecretStr):
        return ""
    if isinstance(field.default, bool):
        return "on" if field.default else "off"
    return f"`{field.default}`"


def _means(field: FieldInfo) -> str:
    limits = [
        f"{sign} {getattr(rule, name)}" for rule in field.metadata for name, sign in _SIGNS if hasattr(rule, name)
    ]
    return ". ".join(filter(None, [_cell(field.description or ""), ", ".join(limits)]))


def mierctl_page() -> str:
    """Every command of `mierctl`, as Typer tells it."""
    command = typer.main.get_command(mierctl)
    text = get_docs_for_click(obj=command, ctx=typer.Context(command), name="mierctl")
    return f"{text.replace('# `mierctl`', '# mierctl', 1)}\n{_MADE}"


def openapi() -> dict[str, Any]:
    """The document that a service has at `/openapi.json`. Routes are made without what they call: nobody calls them."""
    nothing: Any = None
    calls, health = build_router(nothing, nothing, nothing), build_health(nothing, nothing, list)
    return build_app(calls, health, build_inference(nothing, nothing, nothing), keys_required=True).openapi()


def http_page(openapi: Mapping[str, Any]) -> str:
    """Every call and every body of an OpenAPI document."""
    lines = [f"# HTTP: {openapi['info']['title']}\n", openapi["info"]["description"], _MADE]
    lines.append("The document itself is at `/openapi.json` of a running service, and to try at `/docs`.\n")
    lines.append("## Calls\n")
    for path, methods in openapi["paths"].items():
        for method, call in methods.items():
            lines += _call(method.upper(), path, call)
    lines.append("## Bodies\n")
    for name, schema in sorted(openapi["components"]["schemas"].items()):
        lines += _schema(name, schema)
    return "\n".join(lines)


def _call(method: str, path: str, call: Mapping[str, Any]) -> Iterator[str]:
    yield f"### `{method} {path}`\n"
    yield f"{call.get('description') or call.get('summary', '')}\n"
    if parameters := call.get("parameters"):
        yield "| parameter | in | type | |\n|---|---|---|---|"
        for p in parameters:
            required = ", required" if p.get("required") else ""
            yield f"| `{p['name']}` | {p['in']}{required} | {_type(p['schema'])} | {_cell(p.get('description', ''))} |"
        yield ""
    for kind, content in call.get("requestBody", {}).get("content", {}).items():
        yield f"Takes `{kind}`: {_type(content.get('schema', {}))}\n"
    yield "| status | body | |\n|---|---|---|"
    rows: dict[str, list[str]] = {}
    for status, reply in call["responses"].items():
        bodies = ", ".join(_type(content.get("schema", {})) for content in reply.get("content", {}).values())
        rows.setdefault(f"{bodies} | {_cell(reply.get('description', ''))}", []).append(status)
    for what, statuses in rows.items():
        yield f"| {', '.join(statuses)} | {what} |"
    yield ""


def _schema(name: str, schema: Mapping[str, Any]) -> Iterator[str]:
    yield f"### {name} {{#{_anchor(name)}}}\n"
    yield f"{schema.get('description', '')}\n"
    if "enum" in schema:
        yield "One of " + ", ".join(f"`{value}`" for value in schema["enum"]) + ".\n"
    if fields := schema.get("properties"):
        yield "| field | type | |\n|---|---|---|"
        for field, value in fields.items():
            required = " (required)" if field in schema.get("required", ()) else ""
            examples = value.get("examples") or []
            example = f" For example `{_cell(json.dumps(examples[0]))}`." if examples else ""
            yield f"| `{field}`{required} | {_type(value)} | {_cell(value.get('description', ''))}{example} |"
        yield ""


def _type(schema: Mapping[str, Any]) -> str:
    if "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        return f"[{name}](#{_anchor(name)})"
    for union in ("anyOf", "oneOf", "allOf"):
        if union in schema:
            return " or ".join(_type(part) for part in schema[union])
    if schema.get("type") == "array":
        return f"list of {_type(schema.get('items', {}))}"
    return f"{schema.get('type', 'any')}" + (f" ({schema['format']})" if "format" in schema else "")


def _anchor(name: str) -> str:
    return f"body-{re.sub('[^a-z0-9]+', '-', name.lower())}"


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|").replace("<", "&lt;")


def grpc_page(proto: str) -> str:
    """The schema itself: each field is commented there."""
    return f"# gRPC: `mier_proto.v1.AdaptationService`\n\nThe contract, word for word.\n\n```protobuf\n{proto}\n```\n"


def python_page() -> str:
    """The client's classes, from their docstrings."""
    parts = [f"# Python: `mier_client`\n\n{_MADE}", _CALLS]
    for title, names in _MODULES.items():
        parts.append(f"## {title}\n")
        parts += [f"::: {name}\n" for name in names]
    return "\n".join(parts)
