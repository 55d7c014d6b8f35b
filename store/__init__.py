"""The ground floor: configuration, database, records, embedding and tokens; imports neither proxy nor learner."""
