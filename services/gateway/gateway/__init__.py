"""The gateway: uploads in, results out, and the analysis server's webhook."""

SERVICE = "gateway"
