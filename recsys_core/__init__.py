"""Distilling sequential recommenders: everything that makes sense without an orchestrator."""
