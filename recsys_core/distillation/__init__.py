"""Writing soft labels, and the distillation loss that reads them."""
