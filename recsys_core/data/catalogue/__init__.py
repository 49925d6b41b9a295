"""Items: their versions over time, the append-only item index, the candidates."""
