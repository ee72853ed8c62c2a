"""The direct solver of the ridge penalty: kernel, one strength, many strengths."""
