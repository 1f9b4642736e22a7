"""Platforms for the library's tests: ``BOTSRT_ADAPTER_PACKAGES=botsrt.adapters,tests.library.platforms``."""
