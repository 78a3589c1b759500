"""Keep patched forks of compiled scientific Python libraries alive."""

__version__ = "0.2.0"
