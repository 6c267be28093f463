"""Who may call what: logging in, sessions, tickets, and what every route needs."""
