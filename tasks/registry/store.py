"""Runs and registered models in MLflow.

Whatever is written here can be written again after a kill: runs and versions are found by the tag
of the stage output that they belong to, and values are logged under fixed timestamps.
"""

import logging
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")

import mlflow
import numpy as np
import onnxruntime
import pandas as pd
from mlflow.entities import Metric, Param, RunTag
from mlflow.models import ModelSignature
from mlflow.pyfunc import PyFuncModel
from mlflow.tracking import MlflowClient
from mlflow.types.schema import Array, ColSpec, DataType, Map, ParamSchema, ParamSpec, Schema
from mlflow.utils import mlflow_tags

import recsys_core.serving.scorer
from tasks.registry.config import RegistryConfig
