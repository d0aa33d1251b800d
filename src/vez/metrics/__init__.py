"""Numbers about sampled pictures: embeddings, scores and what their differences are worth."""
