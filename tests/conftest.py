"""Settings of every test: no property passes or fails by the time that an example takes."""

from hypothesis import settings

settings.register_profile("patient", deadline=None)
settings.load_profile("patient")
