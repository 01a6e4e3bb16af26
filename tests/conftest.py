"""Settings that hold for every test."""

from hypothesis import settings

# No deadline: how long an example takes says more about what else the machine does than about the code.
settings.register_profile("repository", deadline=None, print_blob=True)
settings.load_profile("repository")
