"""Trained controls: LoRAs of which it is known what they cannot have learned, to see what the scores mean on this data.

They lie in `studies/NAME/controls`, with runs, samples and scores of their own. So nothing that chooses can meet them:
not the verdict, nor the front, a search, the comparisons that were declared, the judges, or the model card.
"""

from vez.controls.cost import added_bytes, planned
from vez.controls.shuffled import permutation

__all__ = ["added_bytes", "permutation", "planned"]
