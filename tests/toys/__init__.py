"""A platform and agents for tests. ``BOTSRT_ADAPTER_PACKAGES=botsrt.adapters,tests.toys`` makes the platform known."""
