"""Who a request comes from: checked where it comes in, from public keys and what MongoDB says of sessions and keys."""
