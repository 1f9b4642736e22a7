"""The library: a thin face over the services and the runtime, for scripts and for programs of your own.

It owns no rules: what it stores, runs and sends goes through the same services as ``runbots`` and the site. Importing
it sets Django up, unless somebody has.
"""

from botsrt.api import project

project.set_up()
