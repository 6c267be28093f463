"""What a result lacks, and why: its warnings, each a stable code and a sentence for people."""

from analysis_server.job import Part

Warnings = list[dict[str, str]]

_PARTS: dict[Part, str] = {
    "reference": "The reference's sound",
    "textgrid": "The reference's TextGrid",
    "pitch": "The reference's pitch file",
}


def warning(code: str, text: str) -> dict[str, str]:
    """Return one warning of a result."""
    return {"code": code, "text": text}


def left_out(part: Part, fault: str, reason: str) -> dict[str, str]:
    """Return the warning that a part of the reference was left out; `reason` is a sentence."""
    return warning(f"{part}_{fault}", f"{_PARTS[part]} was left out. {reason}")


def all_left_out(fault: str, reason: str) -> dict[str, str]:
    """Return the warning that nothing was compared with the reference."""
    return warning(f"reference_{fault}", f"The reference was left out. {reason}")
