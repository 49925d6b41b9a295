"""Validation of new rows: rules, Great Expectations, findings and the page."""
