"""A platform that costs nothing, so that what is measured is ours."""
