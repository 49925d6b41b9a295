"""One stage of a night a file: thin Prefect tasks around recsys_core."""
