"""Data to look at: people, desks and a few days of talk, played through the services with clocks in the past."""
