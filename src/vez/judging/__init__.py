"""People compare pictures without knowing what drew them: a plan, a page, votes, and what they say."""
