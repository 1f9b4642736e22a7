"""Where everything is. A page that needs no sign-in says so on its view; all others ask for it by themselves."""

from django.urls import URLPattern, URLResolver, include, path

from praisonweb import hooks
from praisonweb.dashboard import admin

urlpatterns: list[URLPattern | URLResolver] = [
    path("hooks/<platform:platform>/<account:account>/", hooks.receive, name="hook"),
    path("admin/", admin.site.urls),
    path("", include("praisonweb.dashboard.urls")),
]
