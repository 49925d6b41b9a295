"""The flows (night and backfill), their configuration, the services and the command line."""
