"""The illustrated world: people, garments, places and weathers, each drawn from a record and a seed."""
