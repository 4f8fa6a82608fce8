"""The KoboldAI United API with KoboldCpp's extensions."""
