"""Options of a command that dataclasses declare: on the command line, in the environment, in --help."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated, Any

import pytest
import typer
from typer.testing import CliRunner

from ioc.program.main import app
from ioc.program.option_groups import spread
from ioc.service.options import FaceOptions, ReceiveOptions, ServiceOptions, WriteOptions


@dataclass(frozen=True, kw_only=True)
class Kettle:
    hot_water: Annotated[int, typer.Option(min=1, max=100, help="Of the water.")] = 80
    owner: Annotated[str, typer.Option(envvar=["STD_DAQ_OWNER", "OWNER"])] = ""
    leaves: Annotated[list[Path] | None, typer.Option()] = None


@pytest.fixture
def made() -> list[tuple[str, Kettle]]:
    return []


@pytest.fixture
def run(made: list[tuple[str, Kettle]]) -> Callable[..., Any]:
    """Run a command that takes a Kettle."""

    def brew(name: Annotated[str, typer.Argument()], kettle: Kettle) -> None:
        """Make tea."""
        made.append((name, kettle))

    brew.__annotations__ = {"name": Annotated[str, typer.Argument()], "kettle": Kettle, "return": None}
    program = typer.Typer()
    program.command()(spread(brew))
    return lambda *words, **environment: CliRunner().invoke(program, words, env=environment)


def test_a_command_gets_the_options_of_a_dataclass_as_one(
    run: Callable[..., Any], made: list[tuple[str, Kettle]]
) -> None:
    assert run("Assam", "--hot-water", "95", "--leaves", "a", "--leaves", "b").exit_code == 0
    assert made == [("Assam", Kettle(hot_water=95, leaves=[Path("a"), Path("b")]))]


def test_what_is_not_given_is_as_the_dataclass_says(
    run: Callable[..., Any], made: list[tuple[str, Kettle]]
) -> None:
    assert run("Assam").exit_code == 0
    assert made == [("Assam", Kettle())]


def test_an_option_has_a_name_in_the_environment_made_of_its_own(
    run: Callable[..., Any], made: list[tuple[str, Kettle]]
) -> None:
    assert run("Assam", STD_DAQ_HOT_WATER="70", OWNER="Ada").exit_code == 0
    assert made == [("Assam", Kettle(hot_water=70, owner="Ada"))]


def test_a_value_beyond_the_bounds_of_an_option_is_refused(
    run: Callable[..., Any], made: list[tuple[str, Kettle]]
) -> None:
    done = run("Assam", "--hot-water", "101")
    assert done.exit_code == 2
    assert "--hot-water" in done.output
    assert not made


def test_each_field_of_the_options_of_serve_is_an_option_with_a_name_in_the_environment() -> None:
    program: Any = typer.main.get_command(app)
    serve = program.get_command(typer.Context(program), "serve")
    options = {option.name: option for option in serve.params}
    groups = (FaceOptions, ReceiveOptions, WriteOptions, ServiceOptions)
    declared = {field.name for group in groups for field in fields(group)}
    assert options.keys() - {"config", "prefix", "list_pvs", "log_level", "help"} == declared
    for name in declared:
        assert f"STD_DAQ_{name.upper()}" in options[name].envvar
