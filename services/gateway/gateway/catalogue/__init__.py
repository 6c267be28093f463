"""The catalogue: tokens, scripts and actors; their rows in MongoDB, and the routes to them."""
