"""How property tests run here: the same examples each time, so that only a change of the code changes the outcome.

`pytest tests/unit --hypothesis-profile=explore` looks further, at other examples each time.
"""

from hypothesis import HealthCheck, settings

# No time limit for each example: the machine may be busy with other tests.
_PATIENT = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("unit", _PATIENT, derandomize=True)
settings.register_profile("explore", _PATIENT, max_examples=1000)
settings.load_profile("unit")
