"""Supervised processes: started once, kept running by a supervisor of their own, found again by every operator."""
