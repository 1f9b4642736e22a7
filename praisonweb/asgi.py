"""HTTP and websockets of the staff site."""

import os

from django.core.asgi import get_asgi_application

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "praisonweb.settings")
application = get_asgi_application()
