"""What stands still is told again: recordings, cancels, purges and webhooks whose event has led to nothing yet."""
