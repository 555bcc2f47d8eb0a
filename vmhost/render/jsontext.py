"""JSON that reads the same as JSON, as YAML 1.2 and as the YAML 1.1 of PyYAML."""

from __future__ import annotations

import json
import re
from typing import Any

_ABOVE_ASCII = re.compile("[\x7f-\uffff]")


def to_json(value: Any) -> str:
    """Return a value as indented JSON.

    Characters of the basic plane beyond ASCII are escaped: PyYAML refuses some of them and folds others as line breaks.
    Those of other planes stand as they are: PyYAML reads an escaped surrogate pair as two characters.
    """
    text = json.dumps(value, ensure_ascii=False, indent=2, allow_nan=False)
    return _ABOVE_ASCII.sub(lambda match: f"\\u{ord(match.group()):04x}", text) + "\n"
