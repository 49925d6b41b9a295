"""Prefect tasks around a night that are no stages."""
