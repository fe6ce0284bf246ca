"""Plain methods that the networks are measured against."""
