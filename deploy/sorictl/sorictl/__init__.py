"""The operator's command: dead letters, to be listed, shown, replayed and discarded."""

SOURCE = "sorictl"
"""What the events that this command publishes are from."""
