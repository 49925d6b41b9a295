"""Services on this machine: the Prefect server, the MLflow server and a worker."""
