"""For all tests: property tests are not judged by how fast a busy machine draws their examples."""

from hypothesis import HealthCheck, settings

settings.register_profile("vmnet", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("vmnet")
