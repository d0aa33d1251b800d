"""Coming from kohya: its settings, from whichever file holds them, in vez's fields; and what has none."""
