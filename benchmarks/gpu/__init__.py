"""Our GPU engine on a random model: kernels against float64, then its speed against the card's limits."""
