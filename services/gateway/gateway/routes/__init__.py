"""The public HTTP surface, but for the streams, which are the notifier's."""
