"""How long a second is. A pipeline runs two lines of tests beside each other on two cores: there it is longer."""

from __future__ import annotations

import os

SECOND = 5.0 if os.environ.get("CI") else 1.0
