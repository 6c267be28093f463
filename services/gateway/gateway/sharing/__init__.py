"""Share links: addresses that show one job to whoever has them, without a login, until they expire or are revoked."""
