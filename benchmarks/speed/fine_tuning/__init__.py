"""Fine-tuning by this project and by TRL, on one model and the same records.

``material`` makes them, ``contestants`` runs the trainers, ``trl_run`` is the program that trains with TRL.
"""
