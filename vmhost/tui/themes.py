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
        "footer-key-foreground": "#ffff00",
        "footer-description-foreground": "#ffffff",
        "border": "#ffffff",
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
    variables={"footer-key-foreground": "#5fafff"},
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
    variables={"footer-key-foreground": "#0050a0"},
)


def _renamed(name: str, builtin: str) -> Theme:
    theme = BUILTIN_THEMES[builtin]
    values = {item: getattr(theme, item) for item in theme.__dataclass_fields__}
    return Theme(**{**values, "name": name})


THEMES: Final = (DARK, LIGHT, CONTRAST, _renamed("ansi", "ansi-dark"), _renamed("ansi-light", "ansi-light"))
NAMES: Final = tuple(theme.name for theme in THEMES)
