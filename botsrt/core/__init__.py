"""Plain Python: the words and rules of the runtime. No Django, no I/O."""
