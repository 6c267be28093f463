"""The operator's command: dead letters, to be dealt with; the catalogue, to be taken in and out."""

SOURCE = "sorictl"
"""What the events that this command publishes are from."""
