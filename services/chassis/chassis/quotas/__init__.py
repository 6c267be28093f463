"""How much one client may use of what all of them share, over all replicas."""
