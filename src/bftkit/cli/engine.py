"""`bftkit engine`: the engines that are installed."""

import rich_click as click

from bftkit.cli.options import emit, json_option


@click.group()
def engine() -> None:
    """Look at engines."""


@engine.command("list")
@json_option
def list_engines(as_json: bool) -> None:
    """List the engines that are installed here."""
    from bftkit.plugins import load_engines

    found = [
        {
            "name": name,
            "version": spec.version,
            "fault_model": str(spec.fault_model),
            "min_members": spec.min_members,
            "options": list(spec.options_type.__struct_fields__),
        }
        for name, spec in sorted(load_engines().items())
    ]
    lines = [f"{each['name']:<12} {each['version']:<8} {each['fault_model']}" for each in found]
    emit({"engines": found}, "\n".join(lines) or "no engine is installed", as_json=as_json)
