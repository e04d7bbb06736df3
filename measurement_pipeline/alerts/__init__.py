"""How a person is told: the webhook. The only package that posts to it; what is told is `health/incidents`."""
