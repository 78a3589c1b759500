"""The locking stage."""
