"""A fuzzer of model files: mutants of tiny valid ones must be refused in one line, or give finite replies."""
