"""The staff site."""

from django.apps import AppConfig


class DashboardConfig(AppConfig):
    name = "praisonweb.dashboard"
    verbose_name = "Staff site"
