"""What finished runs and schedules are examined for, one question in each module."""
