"""The operator's command: deals with dead letters, makes keys, imports and exports the catalogue."""

SOURCE = "sorictl"
"""The source of the events that this command publishes."""
