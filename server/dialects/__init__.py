"""What clients speak. Each dialect has its wire (`schemas`), its translator (`convert`), its `routes`."""
