"""Fine-tuning: machine, batches, Lightning module, loggers."""
