"""The themes: dark, light, high contrast, and two for terminals of 16 colours."""

from __future__ import annotations

from typing import Final

from textual.theme import BUILTIN_THEMES, Theme

CONTRAST: Final = Theme(
    name="contrast",
    primary="#ffff00",
    secondary="#00ffff",
    accent="#ffffff",
    warning="#ffff00",
    error="#ff8080",
    success="#80ff80",
    foreground="#ffffff",
    background="#000000",
    surface="#000000",
    panel="#202020",
    dark=True,
    variables={
        "block-cursor-background": "#ffffff",
        "block-cursor-foreground": "#000000",
        "border": "#ffffff",
        "quiet": "#c0c0c0",
        "row-cursor": "#005f87",
    },
)
DARK: Final = Theme(
    name="dark",
    primary="#5fafff",
    secondary="#5fd7af",
    accent="#ffaf5f",
    warning="#ffaf5f",
    error="#ff6b6b",
    success="#87d787",
    foreground="#d8dee9",
    background="#15181e",
    surface="#1d222b",
    panel="#262c37",
    dark=True,
    variables={"quiet": "#8a93a3", "row-cursor": "#24405e"},
)
LIGHT: Final = Theme(
    name="light",
    primary="#0050a0",
    secondary="#006b5a",
    accent="#9a4d00",
    warning="#9a4d00",
    error="#b00020",
    success="#1a6b1a",
    foreground="#1c1c1c",
    background="#fafafa",
    surface="#eceff3",
    panel="#dfe4ea",
    dark=False,
    variables={"quiet": "#5c6470", "row-cursor": "#c5dcf5"},
)


def _renamed(name: str, builtin: str) -> Theme:
    theme = BUILTIN_THEMES[builtin]
    values = {item: getattr(theme, item) for item in theme.__dataclass_fields__}
    mine = {"quiet": "ansi_bright_black", "row-cursor": "ansi_blue" if theme.dark else "ansi_cyan"}
    return Theme(**{**values, "name": name, "variables": {**theme.variables, **mine}})


THEMES: Final = (DARK, LIGHT, CONTRAST, _renamed("ansi", "ansi-dark"), _renamed("ansi-light", "ansi-light"))
VARIABLES: Final = {"quiet": "#8a8a8a", "row-cursor": "#444466"}
"""What other themes of Textual's lack."""

NAMES: Final = tuple(theme.name for theme in THEMES)
