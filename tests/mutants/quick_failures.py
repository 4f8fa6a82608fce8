"""A plugin of pytest, `-p tests.mutants.quick_failures`: Hypothesis tries the same examples in every run.

And it does not look for a smaller one behind the first that fails, which takes longer than all else.
"""

from hypothesis import Phase, settings

settings.register_profile("mutants", derandomize=True, database=None, phases=(Phase.explicit, Phase.generate))
settings.load_profile("mutants")
