"""Jobs: their documents in MongoDB; listing, reading, cancelling and purging them, and reading their recordings."""
