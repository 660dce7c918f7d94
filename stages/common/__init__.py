"""What several tasks share. Part of the key of every stage that loads a task."""
