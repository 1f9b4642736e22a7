"""PraisonWeb's bot runtime."""

__version__ = "0.1.0"
