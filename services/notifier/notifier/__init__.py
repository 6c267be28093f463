"""The notifier: keeps each job's state and streams its progress."""

SERVICE = "notifier"
