"""`bftkit engine`: the engines that are installed, and what they promise."""

from typing import TYPE_CHECKING, Any

import rich_click as click

from bftkit.cli.main import CHECK_FAILED, FINE
from bftkit.cli.options import emit, json_option, tell

if TYPE_CHECKING:
    from bftkit.testing.conformance import ConformanceReport


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


def _numbers(_: click.Context, __: click.Parameter, value: str | None) -> list[int] | None:
    """Read `4`, `4,7` or `1:9`, which leaves out the 9."""
    if value is None:
        return None
    try:
        first, colon, last = value.partition(":")
        numbers = list(range(int(first), int(last))) if colon else [int(part) for part in value.split(",")]
    except ValueError:
        raise click.BadParameter("say whole numbers with commas between them, or A:B") from None
    if not numbers:
        raise click.BadParameter("there is no number between these two")
    return numbers


@engine.command("test")
@click.argument("name")
@click.option("--property", "properties", multiple=True, metavar="NAME", help="Only this promise; may be repeated.")
@click.option("--members", default=None, callback=_numbers, help="Sizes of groups: 4, or 4,7, or 4:8.")
@click.option("--seeds", default=None, callback=_numbers, help="What chance is drawn from: 3, or 1,2, or 1:100.")
@click.option("--bound-ms", default=None, type=click.IntRange(1), help="How long a healed group may take.")
@click.option("--python", "interpreters", multiple=True, metavar="PATH", help="Also under this one; may be repeated.")
@json_option
def test_engine(
    *,
    name: str,
    properties: tuple[str, ...],
    members: list[int] | None,
    seeds: list[int] | None,
    bound_ms: int | None,
    interpreters: tuple[str, ...],
    as_json: bool,
) -> int:
    """Try every promise of the contract on an engine."""
    from bftkit.testing.conformance import BOUND_MS, examine_engine

    tried: list[str] = []

    def progress(case: Any) -> None:
        if case.property.name not in tried:
            tried.append(case.property.name)
            tell(f"{case.property.group}: {case.property.name}")

    report = examine_engine(
        name,
        properties=properties or None,
        members=members,
        seeds=seeds,
        bound_ms=bound_ms or BOUND_MS,
        interpreters=interpreters,
        progress=progress,
    )
    emit(_document(report), _table(report), as_json=as_json)
    return CHECK_FAILED if report.failures else FINE


def _document(report: "ConformanceReport") -> dict[str, Any]:
    import msgspec

    properties = [
        {
            "name": result.name,
            "group": result.group,
            "promise": result.promise,
            "cases": result.cases,
            "kept": result.failure is None,
        }
        for result in report.results
    ]
    return {
        "engine": report.engine,
        "fault_model": report.fault_model,
        "conforms": not report.failures,
        "properties": properties,
        "failures": [msgspec.to_builtins(failure) for failure in report.failures],
    }


def _table(report: "ConformanceReport") -> str:
    lines = [
        f"{'kept' if result.failure is None else 'BROKEN':<8}{result.group:<14}{result.name:<20}{result.cases:>5}"
        for result in report.results
    ]
    cases, broken = sum(result.cases for result in report.results), len(report.failures)
    lines += [f"\n{failure}" for failure in report.failures]
    verdict = f"{broken} of {len(report.results)} promises broken" if broken else "every promise kept"
    return "\n".join([*lines, f"{report.engine}: {verdict}, {cases} cases"])
