"""What the subcommands do, one module each. Heavy imports happen when a command runs."""
