"""The registered model's scorer: onnxruntime and numpy only."""
