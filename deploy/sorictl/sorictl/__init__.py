"""The operator's command: deals with dead letters, and imports and exports the catalogue."""

SOURCE = "sorictl"
"""The source of the events that this command publishes."""
