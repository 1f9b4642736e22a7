"""The stock Django admin: raw rows to read, users and groups to manage, and a second door to replay, retry, discard.

Only what is registered here is there. Signing in, roles, confirmations and the audit are the staff site's own.
"""

from praisonweb.dashboard.admin.site import site

__all__ = ["site"]
