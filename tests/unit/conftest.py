"""Only that it is here: pytest puts its directory where tests below find what they share (histories)."""
