"""A paper's claims as checks: what was published, what is measured here, at which scale, and a verdict."""
