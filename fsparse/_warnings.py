"""What fsparse warns of, beside what Python does."""


class EfficiencyWarning(UserWarning):
    """Results are right, but dear or of little use: figures say why, and what helps."""


class NonFiniteWarning(UserWarning):
    """Steps whose loss or gradient held NaN or infinity were skipped, and counted."""
