"""Templates as text: strict about what is undefined, and clear about where."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from types import TracebackType
from typing import Any

from jinja2 import Environment, FunctionLoader, StrictUndefined, TemplateNotFound, TemplateSyntaxError
from jinja2.exceptions import TemplateError
from jinja2.sandbox import ImmutableSandboxedEnvironment

from vmhost.model.errors import UsageError


class Templates:
    """A set of Jinja2 templates. Values are escaped for XML unless a template marks them otherwise (``tojson`` does).

    :param files: the text of each template by its name (``parts/disk.xml.j2``); templates include one another by name.
    :param sandboxed: True when somebody else's templates are among them: they reach values, never Python.
    """

    def __init__(self, files: Mapping[str, str], *, sandboxed: bool) -> None:
        self.files = dict(files)
        kind = ImmutableSandboxedEnvironment if sandboxed else Environment
        self._environment = kind(
            loader=FunctionLoader(self._load),
            autoescape=True,
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
            finalize=_never_none,
        )

    def render(self, name: str, /, **values: Any) -> str:
        """Return the text that template ``name`` makes of ``values``.

        :raises UsageError: there is no such template, it is wrong, or it uses a value that does not exist; the message
            names the template and its line.
        """
        try:
            return self._environment.get_template(name).render(values)
        except TemplateNotFound as error:
            raise _error(str(error.name), 0, "there is no such template", values) from error
        except TemplateSyntaxError as error:
            raise _error(error.name or name, error.lineno, error.message or "not a template", values) from error
        except (TemplateError, TypeError, ValueError, LookupError, ArithmeticError, AttributeError) as error:
            place, line = self._place(error.__traceback__, name)
            raise _error(place, line, str(error) or type(error).__name__, values) from error

    def _load(self, name: str) -> tuple[str, str, None] | None:
        """Return the source under its own name as file name, which Jinja2 then puts into its tracebacks."""
        text = self.files.get(name)
        return None if text is None else (text, name, None)

    def _place(self, traceback: TracebackType | None, name: str) -> tuple[str, int]:
        """Return the innermost template and line of a traceback."""
        found = (name, 0)
        for place, line in _frames(traceback):
            if place in self.files:
                found = (place, line)
        return found


def _never_none(value: Any) -> Any:
    """Refuse to write ``None``: what is absent is left out by the template, never spelled."""
    if value is None:
        raise ValueError("a value is None here; leave its element out when it is absent")
    return value


def _frames(traceback: TracebackType | None) -> Iterator[tuple[str, int]]:
    while traceback is not None:
        yield traceback.tb_frame.f_code.co_filename, traceback.tb_lineno
        traceback = traceback.tb_next


def _error(name: str, line: int, message: str, values: Mapping[str, Any]) -> UsageError:
    subject = f"{name}, line {line}" if line else name
    known = ", ".join(sorted(values))
    text = f"{message} (known here: {known})" if known and "undefined" in message else message
    return UsageError(text, subject=subject, hint=f"mv {name} {name}.off   # if it is an override")
