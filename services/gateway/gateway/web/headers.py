"""Headers that routes of several rooms answer with."""

NOT_STORED = {"Cache-Control": "no-store"}
"""For what is personal, or changes at any moment (RFC 9111, section 5.2.2.5)."""
