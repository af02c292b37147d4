"""Default schedules by structure, made of primitives only."""
