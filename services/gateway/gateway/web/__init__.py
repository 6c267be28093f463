"""What the routes of several rooms need: problem bodies, forms, ranges, limits, and headers."""
