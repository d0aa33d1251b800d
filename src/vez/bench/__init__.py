"""What a training step costs on this machine: time, memory, operators, and the share of its matrix rate.

Nothing is downloaded: the weights are random numbers in the shapes of a real base. Speed does not ask what they mean.
"""

from vez.bench.work import Measured, Workload, measured, study_seconds, study_text, work_of

__all__ = ["Measured", "Workload", "measured", "study_seconds", "study_text", "work_of"]
