"""The base of all commands: help in groups, examples, and errors that name options."""

from __future__ import annotations

import logging
import re
import sys
from collections.abc import Iterator
from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup

from nnkit.cli.words import DATA_KEYS, printed_notes, with_option_names
from nnkit.errors import NnkitError

__all__ = ["Command", "CommandGroup", "ModelCommand"]


class Command(TyperCommand):
    """A command whose help shows its options in groups, and its examples unwrapped."""

    def collect_usage_pieces(self, ctx: Any) -> list[str]:
        """Return the words of the line of usage."""
        names = [
            _argument_name(param) if param.required else f"[{_argument_name(param)}]"
            for param in self.get_params(ctx)
            if param.param_type_name == "argument"
        ]
        return ["[OPTIONS]", *names]

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Write the arguments, then the options in their groups."""
        groups: dict[str, list[tuple[str, str]]] = {}
        for param in self.get_params(ctx):
            record = param.get_help_record(ctx)
            if record is not None:
                is_argument = param.param_type_name == "argument"
                group = "Arguments" if is_argument else getattr(param, "rich_help_panel", None) or "Options"
                name = _argument_name(param) if is_argument else record[0]
                groups.setdefault(group, []).append((name, _plain_default(record[1])))
        for group, rows in groups.items():
            with formatter.section(group):
                formatter.write_dl(rows)

    def format_epilog(self, ctx: Any, formatter: Any) -> None:
        """Write the examples, a line each."""
        _write_examples(self.epilog, formatter)

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Parse the arguments; errors do not quote Typer's validator."""
        try:
            return super().parse_args(ctx, args)
        except typer.BadParameter as error:
            error.message = _in_plain_words(error.message)
            raise

    def invoke(self, ctx: Any) -> Any:
        """Run the command; errors of the library name options in place of arguments."""
        try:
            return super().invoke(ctx)
        except NnkitError as error:
            options = DATA_KEYS | {param.name: _written(param) for param in self.get_params(ctx)}
            error.args = (with_option_names(str(error), options), *error.args[1:])
            raise


class ModelCommand(Command):
    """A command that gives rows to a model, and notes on standard error which cells did not fit."""

    def invoke(self, ctx: Any) -> Any:
        """Run the command; only `predict` and `evaluate` print notes, all print warnings."""
        own = self.name in ("predict", "evaluate") and not ctx.params.get("quiet")
        with printed_notes(False, sys.stderr, logging.INFO if own else logging.WARNING):
            return super().invoke(ctx)


class CommandGroup(TyperGroup):
    """The program; its help shows the commands in groups."""

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """Write each group's commands with the first sentence of their help."""
        groups: dict[str, list[tuple[str, str]]] = {}
        for name, command in self._visible(ctx):
            group = getattr(command, "rich_help_panel", None) or "Commands"
            groups.setdefault(group, []).append((name, _first_sentence(command.help or "")))
        width = max(len(name) for rows in groups.values() for name, _ in rows)
        for group, rows in groups.items():
            with formatter.section(group):
                formatter.write_dl([(name.ljust(width), words) for name, words in rows])

    def format_epilog(self, ctx: Any, formatter: Any) -> None:
        """Write the examples, a line each."""
        _write_examples(self.epilog, formatter)

    def _visible(self, ctx: Any) -> Iterator[tuple[str, Any]]:
        for name in self.list_commands(ctx):
            command: Any = self.get_command(ctx, name)
            if command is not None and not command.hidden:
                yield name, command


def _in_plain_words(message: str) -> str:
    """Return an error about an option's value without the phrases of Typer's validator."""
    message = message.removeprefix("Value error, ")
    for kind, words in (("integer", "a whole number"), ("number", "a number")):
        message = re.sub(rf"Input should be a valid {kind}\b.*", f"it must be {words}.", message)
    return message


def _written(param: Any) -> str:
    return _argument_name(param) if param.param_type_name == "argument" else param.opts[0]


def _argument_name(param: Any) -> str:
    name = (param.metavar or param.name).upper()
    return name if param.nargs == 1 or name.endswith("...") else f"{name}..."


def _plain_default(words: str) -> str:
    """Return an option's help without the parentheses that Typer puts around a default in words."""
    return re.sub(r"\[default: \((.*)\)", r"[default: \1", words)


def _first_sentence(words: str) -> str:
    return re.split(r"(?<=\.)\s|\n\n", " ".join(words.split("\n\n")[0].split()))[0]


def _write_examples(epilog: str | None, formatter: Any) -> None:
    if epilog:
        with formatter.section("Examples"):
            for line in epilog.splitlines():
                formatter.write(f"{'':>{formatter.current_indent}}{line}\n")
