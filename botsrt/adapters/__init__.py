"""Platforms: one file each, with a class ``Adapter``. Platform SDKs are imported here and nowhere else."""
