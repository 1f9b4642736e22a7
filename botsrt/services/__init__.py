"""The only writers of the tables. Synchronous, transactional, keyword-only; they take ``now`` and return values.

Each function owns its ``atomic``; none awaits, none calls a platform.
"""
