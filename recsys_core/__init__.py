"""Distillation of sequential recommenders, without an orchestrator."""
