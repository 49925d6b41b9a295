"""Validating new rows: rules, Great Expectations, findings, the page."""
