"""Kinds of agents: one file each, with a class ``Agent``. LLM libraries are imported here and nowhere else."""
